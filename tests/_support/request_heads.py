"""Heads of requests, as protocols of uploads in several requests read them."""

from __future__ import annotations

from upload_progress.connection import Connection

__all__ = ["request"]


def request(
    method: str, path: str, *headers: tuple[bytes, bytes], query: bytes = b""
) -> Connection:
    """Return a request with this head."""
    return Connection(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list(headers),
        }
    )
