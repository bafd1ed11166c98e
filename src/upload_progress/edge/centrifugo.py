"""Centrifugo: a push server to which watchers connect with tokens.

A client requests a ticket from the routes, and gets tokens with it: JSON Web Tokens that name its
channels and expire soon. It connects to Centrifugo with them, and reads its uploads after that; of
what it has read and what is published, it keeps the newer snapshots. So nothing is lost between the
two, and no worker holds anything for a connection.

A channel belongs to one upload, one group, or all uploads of an owner. Centrifugo keeps the newest
publication of each channel, and sends it to each client that connects. On the channel of an upload
that is its snapshot, and nothing has to be read.

When a token expires, Centrifugo closes the connection: the client requests another one, and is
authenticated. A connection cannot be extended in any other way.

Sources: centrifugal.dev/docs/server (HTTP API, JWT authentication, cache recovery mode),
Centrifugo 6.9.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

import jwt
from attrs import Attribute, Factory, define, field
from msgspec import DecodeError, Struct, json

from upload_progress._fanout.update import Update
from upload_progress._model.api_types import EdgeAccess
from upload_progress._model.codec import encode_json
from upload_progress.edge.push_server import (
    Channels,
    PushServer,
    check_key,
    check_url,
    key_bytes,
    portions,
    without_slash,
)
from upload_progress.exceptions import InvalidValue, UnexpectedResponse

__all__ = ["CLOSING_SECONDS", "MIN_TOKEN_SECONDS", "Centrifugo"]

CLOSING_SECONDS: Final = 2
"""How long a connection lives at most after its token has expired: ``expired_close_delay`` of the
configuration is 1 second, and Centrifugo counts whole seconds."""
MIN_TOKEN_SECONDS: Final = 1
_PREFIX: Final = "uploads:"
"""The namespace of the channels in the configuration of Centrifugo."""
_PATH: Final = "/connection/uni_http_stream"


class _Refusal(Struct):
    code: int = 0
    message: str = ""


class _Response(Struct):
    error: _Refusal | None = None


class _Broadcast(Struct):
    responses: list[_Response] = []


class _Reply(Struct):
    error: _Refusal | None = None
    broadcast: _Broadcast | None = None


class _Replies(Struct):
    replies: list[_Reply]


def _check_public_url(_edge: object, attribute: "Attribute[str]", url: str) -> None:
    if not (url == "" or url.startswith("/")):
        check_url(_edge, attribute, url)


def _check_api_key(_edge: object, _attribute: object, key: str) -> None:
    if not (key and key.isascii() and key.isprintable()):
        raise InvalidValue("edge.api_key", "must be printable ASCII text")


@define(eq=False, repr=False)
class Centrifugo(PushServer):
    """A Centrifugo 6 that holds the connections of watchers.

    Example:
        ::

            from upload_progress.edge import Centrifugo

            edge = Centrifugo(
                "http://127.0.0.1:8010",
                api_key="its http_api.key ...............",
                token_key="its client.token.hmac_secret_key",
                public_url="https://push.example",
            )
            tracker = ProgressTracker(edge=edge)

    Args:
        url: Its address for this process, whose path ``/api`` is its HTTP API.
        api_key: Its ``http_api.key``.
        token_key: Its ``client.token.hmac_secret_key``, at least 32 bytes. It also makes the names
            of channels.
        public_url: Its address for clients; a path is of the origin of the routes. By default, a
            proxy sends the path ``/connection/uni_http_stream`` of that origin to Centrifugo.

    Raises:
        InvalidValue: An address or a key is not valid.
    """

    url: str = field(converter=without_slash, validator=check_url)
    api_key: str = field(kw_only=True, validator=_check_api_key)
    token_key: bytes = field(kw_only=True, converter=key_bytes, validator=check_key)
    public_url: str = field(
        default="", kw_only=True, converter=without_slash, validator=_check_public_url
    )
    _commands: list[bytes] = field(factory=list, init=False)
    _channels: Channels = field(
        default=Factory(lambda self: Channels(self.token_key, _PREFIX), takes_self=True),
        init=False,
    )

    # Publishing

    @property
    def _headers(self) -> Mapping[str, str]:
        return {"content-type": "application/json", "x-api-key": self.api_key}

    def _add(self, namespace: str, update: Update) -> None:
        channels = encode_json(self._channels.of_update(namespace, update))
        self._commands.append(b'{"broadcast":{"channels":%b,"data":%b}}' % (channels, update.json))

    async def _send(self) -> None:
        commands, self._commands = self._commands, []
        for portion in portions(commands):
            response = await self._request(f"{self.url}/api/batch", b'{"commands":[%b]}' % portion)
            self._check(response.content)

    def _check(self, content: bytes) -> None:
        """Raise if one of the replies is an error: the status of a batch is 200 all the same."""
        try:
            replies = json.decode(content, type=_Replies).replies
        except DecodeError:
            raise UnexpectedResponse(self.url, "did not answer as Centrifugo does") from None
        for reply in replies:
            responses = reply.broadcast.responses if reply.broadcast else []
            for error in (reply.error, *(each.error for each in responses)):
                if error is not None:
                    problem = f"refuses an event: {error.message} ({error.code})"
                    raise UnexpectedResponse(self.url, problem)

    # Access

    def channel(
        self, namespace: str, owner: str, *, upload_id: str | None = None, group: str | None = None
    ) -> str:
        """Return the channel of an upload, of a group, or of all uploads of *owner*."""
        return self._channels.of(namespace, owner, upload_id=upload_id, group=group)

    def access(self, user: str, channels: Sequence[str], *, seconds: float) -> EdgeAccess | None:
        """Return the tokens with which a client connects; None if the time is too short.

        Args:
            user: The name of the user, which the tokens do not show.
            channels: What the client may read.
            seconds: After that time, the last connection with these tokens has ended.
        """
        lifetime = int(seconds) - CLOSING_SECONDS
        if lifetime < MIN_TOKEN_SECONDS:
            return None
        subject = self._channels.named(["user", user])
        claims: dict[str, object] = {"sub": subject, "exp": int(time.time()) + lifetime}
        return EdgeAccess(
            url=self.public_url + _PATH,
            token=self._token({**claims, "channels": list(channels)}),
            subscriptions={each: self._token({**claims, "channel": each}) for each in channels},
            expires_in=lifetime,
        )

    def _token(self, claims: dict[str, object]) -> str:
        return jwt.encode(claims, self.token_key, "HS256")
