"""The ``Origin`` check: which web pages may act for a user (RFC 6454; Fetch standard).

A browser sends cookies, and the Basic credentials that it has cached, to this server with the
requests of any page, but it also sends the origin of that page. Origins are compared by scheme,
host and port after parsing, never as text: ``https://ok.example.evil`` begins like an allowed
origin. A page is of *this* origin if its host and port are those of the ``Host`` header. The
scheme may differ in one direction: behind a proxy that terminates TLS, https looks like http to
this server, while an http page in front of an https server may have been injected.

A token that a page must put into a header itself (``Authorization: Bearer …``) is never sent
implicitly, so it needs no such check.
"""

import re
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue

__all__ = ["Origin", "Origins", "parse_origin"]

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@\\:\[\]]+)(?::([0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_PORTS: Final = {"http": 80, "https": 443}
_AMBIENT_SCHEMES: Final = frozenset({"basic", "digest", "negotiate", "ntlm"})


@frozen
class Origin:
    """The origin of a web page."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """Parse a serialised origin; return None for ``null``, URLs with a path and other text."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return Origin(scheme, host, int(port) if port else _PORTS.get(scheme))


@frozen
class Origins:
    """The origins whose pages may act for users.

    Attributes:
        allowed: Origins in addition to the origin of this server.
    """

    allowed: frozenset[Origin]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Origins":
        """Parse the configured origins.

        Raises:
            InvalidValue: A text is not an origin; ``*`` and ``null`` are not allowed either.
        """
        origins: set[Origin] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            origin = parse_origin(text)
            if origin is None:
                problem = f"{text!r} is not an origin such as https://app.example"
                raise InvalidValue("allowed_origins", problem)
            origins.add(origin)
        return cls(frozenset(origins))

    def permits_write(self, connection: Connection) -> bool:
        """Tell whether a POST, DELETE or handshake comes from a page that may act for the user.

        A request without ``Origin`` comes from a program, not from a page, unless it carries a
        cookie: then ``Sec-Fetch-Site`` must show that it comes from this server.
        """
        if connection.header("origin") is not None:
            return self._is_trusted(connection) or not _is_ambient(connection)
        if connection.header("cookie") is None or connection.header("authorization") is not None:
            return True
        return connection.header("sec-fetch-site") == "same-origin"

    def permits_read(self, connection: Connection) -> bool:
        """Tell whether the requesting page may open an event stream."""
        return (
            connection.header("origin") is None
            or self._is_trusted(connection)
            or not _is_ambient(connection)
        )

    def permits_socket(self, connection: Connection, *, has_ticket: bool) -> bool:
        """Tell whether a WebSocket may be opened: never by a foreign page, even with a ticket."""
        if connection.header("origin") is not None:
            return self._is_trusted(connection)
        return has_ticket or self.permits_write(connection)

    def _is_trusted(self, connection: Connection) -> bool:
        texts = connection.headers("origin")
        origin = parse_origin(texts[0])
        if origin is None or len(texts) > 1:
            return False
        return origin in self.allowed or _is_this_server(origin, connection)


def _is_this_server(origin: Origin, connection: Connection) -> bool:
    hosts = connection.headers("host")
    if origin.scheme not in _PORTS or len(hosts) != 1:
        return False
    is_secure = connection.scope.get("scheme") in {"https", "wss"}
    if is_secure and origin.scheme == "http":
        return False
    return parse_origin(f"{origin.scheme}://{hosts[0]}") == origin


def _is_ambient(connection: Connection) -> bool:
    """Tell whether the browser may have added the credentials by itself."""
    credentials = connection.header("authorization")
    if credentials is None:
        return connection.header("cookie") is not None
    return credentials.partition(" ")[0].lower() in _AMBIENT_SCHEMES
