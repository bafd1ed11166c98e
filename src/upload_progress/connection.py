"""A request head, as any ASGI server hands it over: read once, never changed.

No URL is rebuilt and no body is touched: what is needed is looked up in the raw headers
and the raw query, as they came (ASGI 3.0 specification, HTTP connection scope).
"""

from collections.abc import Mapping, MutableMapping, Sequence
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen

__all__ = ["Connection"]


@lru_cache(maxsize=256)
def _field(name: str) -> bytes:
    """Return *name* as servers hand it over."""
    return name.lower().encode("latin-1")


@frozen(eq=False, repr=False)
class Connection:
    """Who is asking for what, over HTTP or WebSocket; given to ``authenticate``.

    Its repr shows neither headers nor query: both may hold secrets.

    Attributes:
        scope: The ASGI scope itself.
    """

    scope: MutableMapping[str, Any]

    def __repr__(self) -> str:
        """Name the kind, and nothing that could be secret."""
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
        """Return the first header of that name, in Latin-1; None where there is none."""
        values = self._fields.get(_field(name))
        return values[0].decode("latin-1") if values else None

    def headers(self, name: str) -> list[str]:
        """Return every header of that name, in their order."""
        return [value.decode("latin-1") for value in self._fields.get(_field(name), ())]

    @cached_property
    def _fields(self) -> Mapping[bytes, Sequence[bytes]]:
        fields: dict[bytes, list[bytes]] = {}
        for name, value in self.scope.get("headers", ()):
            fields.setdefault(name.lower(), []).append(value)
        return fields

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of one that comes twice, the first."""
        raw = bytes(self.scope.get("query_string", b"")).decode("latin-1")
        pairs = parse_qsl(raw, keep_blank_values=True)
        return dict(reversed(pairs))

    def cookie(self, name: str) -> str | None:
        """Return the cookie of that name; None where there is none."""
        for pair in ";".join(self.headers("cookie")).split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
        return None
