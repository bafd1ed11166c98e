"""The head of a request, as any ASGI server provides it: read once, never changed.

No URL is built and no body is read: values are looked up in the raw headers and the raw query
(ASGI 3.0 specification, HTTP connection scope).
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen

__all__ = ["Connection"]


@lru_cache(maxsize=256)
def _field(name: str) -> bytes:
    """Return *name* as servers encode it."""
    return name.lower().encode("latin-1")


@frozen(eq=False, repr=False)
class Connection:
    """The head of an HTTP or WebSocket request, as passed to ``authenticate``.

    >>> connection = Connection({"type": "http", "headers": [(b"x-user", b"alice")]})
    >>> connection.header("X-User")
    'alice'

    The repr shows neither headers nor query, because both may contain secrets.

    Attributes:
        scope: The ASGI scope.
    """

    scope: MutableMapping[str, Any]

    def __repr__(self) -> str:
        """Show the type only."""
        return f"<Connection {self.scope.get('type')}>"

    @property
    def method(self) -> str:
        """The HTTP method; ``GET`` for a WebSocket."""
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        """The decoded path."""
        return str(self.scope.get("path", ""))

    def header(self, name: str) -> str | None:
        """Return the first header of that name, decoded as Latin-1; None if there is none."""
        values = self._fields.get(_field(name))
        return values[0].decode("latin-1") if values else None

    def headers(self, name: str) -> list[str]:
        """Return all headers of that name, in order, decoded as Latin-1."""
        values = self._fields.get(_field(name))
        return [value.decode("latin-1") for value in values] if values else []

    @property
    def header_names(self) -> Collection[bytes]:
        """The names of all headers, in lower case."""
        return self._fields.keys()

    @cached_property
    def _fields(self) -> Mapping[bytes, Sequence[bytes]]:
        fields: dict[bytes, list[bytes]] = {}
        for name, value in self.scope.get("headers", ()):
            fields.setdefault(name.lower(), []).append(value)
        return fields

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of a repeated parameter the first value."""
        raw = bytes(self.scope.get("query_string", b"")).decode("latin-1")
        return dict(reversed(parse_qsl(raw, keep_blank_values=True))) if raw else {}

    def cookie(self, name: str) -> str | None:
        """Return the cookie of that name; None if there is none."""
        for pair in ";".join(self.headers("cookie")).split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
        return None
