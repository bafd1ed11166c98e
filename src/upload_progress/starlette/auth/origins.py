"""Which web pages may act for a user: the ``Origin`` check (RFC 6454; Fetch standard).

A browser sends cookies, and the Basic credentials it has cached, to this server whatever page
asks it to, but it also says which page that was. An origin is compared as scheme, host and
port after parsing, never as text: ``https://ok.example.evil`` begins like an allowed one.
A page is of *this* origin when its host and port are those of the ``Host`` header. There the
scheme may differ in one direction: a proxy that ends TLS makes https look like http to us,
while an http page in front of an https server is somebody in between.

A token that a page must put into a header itself (``Authorization: Bearer …``) is never sent
by accident, so it needs no such check.
"""

import re
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue

__all__ = [
    "Origin",
    "Origins",
    "parse_origin",
]

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@\\:\[\]]+)(?::([0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_PORTS: Final = {"http": 80, "https": 443}
_SENT_BY_ITSELF: Final = frozenset({"basic", "digest", "negotiate", "ntlm"})


@frozen
class Origin:
    """Where a web page comes from."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """Parse a serialised origin; ``null``, paths and all else that is none give None."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return Origin(scheme, host, int(port) if port else _PORTS.get(scheme))


def _allowed(texts: Iterable[str]) -> frozenset[Origin]:
    origins: set[Origin] = set()
    for text in [texts] if isinstance(texts, str) else texts:
        origin = parse_origin(text)
        if origin is None:
            raise InvalidValue(
                "allowed_origins", f"{text!r} is no origin such as https://a.example"
            )
        origins.add(origin)
    return frozenset(origins)


@frozen
class Origins:
    """The origins whose pages may act for users.

    Attributes:
        allowed: Besides the origin of this server itself.
    """

    allowed: frozenset[Origin]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Origins":
        """Parse the configured origins.

        Raises:
            InvalidValue: One is no origin; also ``*`` and ``null``, which are never allowed.
        """
        return cls(_allowed(texts))

    def permits_write(self, connection: Connection) -> bool:
        """Tell whether a POST, DELETE or handshake is from a page that may act for the user.

        Without an ``Origin`` it comes from no browser, unless it carries a cookie: then it
        must be known to come from here.
        """
        if connection.header("origin") is not None:
            return self._is_friend(connection) or not _is_ambient(connection)
        if connection.header("cookie") is None or connection.header("authorization") is not None:
            return True
        return connection.header("sec-fetch-site") == "same-origin"

    def permits_read(self, connection: Connection) -> bool:
        """Tell whether an event stream may be opened for the page that asks."""
        return (
            connection.header("origin") is None
            or self._is_friend(connection)
            or not _is_ambient(connection)
        )

    def permits_socket(self, connection: Connection, *, has_ticket: bool) -> bool:
        """Tell whether a WebSocket may be opened: no foreign page, whatever it shows."""
        if connection.header("origin") is not None:
            return self._is_friend(connection)
        return has_ticket or self.permits_write(connection)

    def _is_friend(self, connection: Connection) -> bool:
        texts = connection.headers("origin")
        origin = parse_origin(texts[0])
        if origin is None or len(texts) > 1:
            return False
        return origin in self.allowed or _is_same(origin, connection)


def _is_same(origin: Origin, connection: Connection) -> bool:
    hosts = connection.headers("host")
    if origin.scheme not in _PORTS or len(hosts) != 1:
        return False
    is_secure = connection.scope.get("scheme") in {"https", "wss"}
    if is_secure and origin.scheme == "http":
        return False
    return parse_origin(f"{origin.scheme}://{hosts[0]}") == origin


def _is_ambient(connection: Connection) -> bool:
    """Tell whether a browser may have sent the credentials without the page's doing."""
    credentials = connection.header("authorization")
    if credentials is None:
        return connection.header("cookie") is not None
    return credentials.partition(" ")[0].lower() in _SENT_BY_ITSELF
