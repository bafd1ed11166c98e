"""How to reach Kafka, for its store and its publisher.

The driver has no types: what is made of it here is typed at once where it is used.
"""

import ssl
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from attrs import field, frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CALL_SECONDS",
    "CONNECT_SECONDS",
    "KafkaAccess",
]


CALL_SECONDS: Final = 1.0
"""How long a call may take, and how long what was not sent is kept."""

CONNECT_SECONDS: Final = 4.0
_METADATA_SECONDS: Final = 3.0
_FETCH_MS: Final = 250
"""How long a broker holds back the answer to one who reads: so long waits what is asked beside."""

_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SCHEMES: Final = {"kafka": False, "kafkas": True}
_FORM: Final = "is no URL of Kafka: kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…] or kafkas://…"


@frozen(repr=False)
class KafkaAccess:
    """How to connect: what a ready-made client is elsewhere.

    Args:
        servers: ``HOST:PORT`` of one or more brokers.
        options: What aiokafka's clients take besides, such as ``ssl_context`` or
            ``sasl_oauth_token_provider``.
    """

    servers: Sequence[str]
    options: Mapping[str, object] = field(factory=dict, kw_only=True)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return what *url* says.

        Args:
            url: ``kafka://HOST:PORT,HOST:PORT``, or ``kafkas://…`` for TLS; with
                ``USER:PASSWORD@`` it logs in by SASL, ``?sasl=PLAIN`` (the default),
                ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.

        Raises:
            InvalidValue: It is no such URL. The message does not hold it.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise InvalidValue("url", _FORM) from None
        login, _, hosts = parts.netloc.rpartition("@")
        mechanism = parse_qs(parts.query).get("sasl", ["PLAIN"])[-1]
        if parts.scheme not in _SCHEMES or not hosts or parts.path.strip("/"):
            raise InvalidValue("url", _FORM)
        if mechanism not in _MECHANISMS:
            raise InvalidValue("url", f"has another sasl than {', '.join(_MECHANISMS)}")
        is_safe, user_password = _SCHEMES[parts.scheme], login.partition(":")
        options: dict[str, object] = {
            "security_protocol": ("SASL_" if login else "") + ("SSL" if is_safe else "PLAINTEXT")
        }
        if is_safe:
            options["ssl_context"] = ssl.create_default_context()
        if login:
            options["sasl_mechanism"] = mechanism
            options["sasl_plain_username"] = unquote(user_password[0])
            options["sasl_plain_password"] = unquote(user_password[2])
        servers = tuple(host if ":" in host else f"{host}:9092" for host in hosts.split(","))
        return cls(servers, options=options)

    def __repr__(self) -> str:
        """Say where it leads, and nothing of who goes there."""
        return f"<KafkaAccess to {','.join(self.servers)}>"

    def producer(self) -> "AIOKafkaProducer":
        """Return a producer, not started; needs a running loop."""
        return AIOKafkaProducer(
            bootstrap_servers=list(self.servers),
            request_timeout_ms=int(CALL_SECONDS * 1000),
            metadata_max_age_ms=int(_METADATA_SECONDS * 1000),
            **{"acks": "all", **self.options},
        )

    def consumer(self, start: Literal["earliest", "none"]) -> "AIOKafkaConsumer":
        """Return a consumer of no group, not started; *start* is where it goes when it is lost."""
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
        """Return an administrator, not started."""
        return AIOKafkaAdminClient(
            bootstrap_servers=list(self.servers),
            request_timeout_ms=int(CONNECT_SECONDS * 1000),
            **self.options,
        )
