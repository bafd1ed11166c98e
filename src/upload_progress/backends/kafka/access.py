"""Addresses, credentials and timeouts of Kafka, for the store and the publisher.

aiokafka has no type annotations: what it returns is given a type where it is used.
"""

import ssl
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from attrs import field, frozen

from upload_progress.exceptions import InvalidValue

__all__ = ["CALL_SECONDS", "CONNECT_SECONDS", "KafkaAccess"]


CALL_SECONDS: Final = 1.0
"""Timeout of a write; a message that could not be sent until then is dropped."""

CONNECT_SECONDS: Final = 4.0
_METADATA_SECONDS: Final = 3.0
_FETCH_MS: Final = 250
"""How long a broker waits for messages before it answers a fetch; other requests wait as long."""

_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SCHEMES: Final = {"kafka": False, "kafkas": True}
_EXPECTED: Final = (
    "is not a valid Kafka URL: expected kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…], "
    "or kafkas:// for TLS"
)


@frozen(repr=False)
class KafkaAccess:
    """How to connect to Kafka: makes the clients of aiokafka.

    ``from_url`` is enough for most. With further options::

        KafkaAccess(["kafka-1:9092", "kafka-2:9092"], options={"ssl_context": context})

    Args:
        servers: ``HOST:PORT`` of one or more brokers.
        options: Further arguments of aiokafka's clients, such as ``ssl_context`` or
            ``sasl_oauth_token_provider``.
    """

    servers: Sequence[str]
    options: Mapping[str, object] = field(factory=dict, kw_only=True)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the access that *url* describes.

        Args:
            url: ``kafka://HOST:PORT,HOST:PORT``, or ``kafkas://…`` for TLS. The port is 9092 by
                default. ``USER:PASSWORD@`` logs in with SASL: ``?sasl=PLAIN`` (the default),
                ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.

        Raises:
            InvalidValue: The URL is not valid. The message does not contain it, as it may hold a
                password.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise InvalidValue("url", _EXPECTED) from None
        login, _, hosts = parts.netloc.rpartition("@")
        mechanism = parse_qs(parts.query).get("sasl", ["PLAIN"])[-1]
        if parts.scheme not in _SCHEMES or not hosts or parts.path.strip("/"):
            raise InvalidValue("url", _EXPECTED)
        if mechanism not in _MECHANISMS:
            raise InvalidValue("url", f"must have sasl={', '.join(_MECHANISMS)}")
        uses_tls, (user, _, password) = _SCHEMES[parts.scheme], login.partition(":")
        options: dict[str, object] = {
            "security_protocol": ("SASL_" if login else "") + ("SSL" if uses_tls else "PLAINTEXT")
        }
        if uses_tls:
            options["ssl_context"] = ssl.create_default_context()
        if login:
            options["sasl_mechanism"] = mechanism
            options["sasl_plain_username"] = unquote(user)
            options["sasl_plain_password"] = unquote(password)
        servers = tuple(host if ":" in host else f"{host}:9092" for host in hosts.split(","))
        return cls(servers, options=options)

    def __repr__(self) -> str:
        """Return the servers, and no credentials."""
        return f"<KafkaAccess to {','.join(self.servers)}>"

    def producer(self) -> "AIOKafkaProducer":
        """Return a producer that is not started; requires a running event loop."""
        return AIOKafkaProducer(
            bootstrap_servers=list(self.servers),
            request_timeout_ms=int(CALL_SECONDS * 1000),
            metadata_max_age_ms=int(_METADATA_SECONDS * 1000),
            **{"acks": "all", **self.options},
        )

    def consumer(self, start: Literal["earliest", "none"]) -> "AIOKafkaConsumer":
        """Return a consumer without a group that is not started.

        Args:
            start: Where it continues if its offset does not exist any more; ``none`` raises.
        """
        return AIOKafkaConsumer(
            bootstrap_servers=list(self.servers),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset=start,
            fetch_max_wait_ms=_FETCH_MS,
            request_timeout_ms=int(CONNECT_SECONDS * 1000),
            metadata_max_age_ms=int(_METADATA_SECONDS * 1000),
            **self.options,
        )

    def admin(self) -> "AIOKafkaAdminClient":
        """Return an administration client that is not started."""
        return AIOKafkaAdminClient(
            bootstrap_servers=list(self.servers),
            request_timeout_ms=int(CONNECT_SECONDS * 1000),
            **self.options,
        )
