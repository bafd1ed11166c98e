"""Serving the Web Component: one file, the same for everybody, kept by browsers."""

import hashlib
from importlib.resources import files
from typing import Final

from attrs import field, frozen
from starlette.responses import Response

from upload_progress.starlette.negotiation import Condition
from upload_progress.starlette.problems import NOT_FOUND, Refused
from upload_progress.starlette.site import Exchange

__all__ = ["Script"]

_DAY_SECONDS: Final = 86_400
_YEAR_SECONDS: Final = 365 * _DAY_SECONDS


def _read() -> bytes | None:
    source = files("upload_progress") / "static" / "upload-progress.js"
    return source.read_bytes() if source.is_file() else None


@frozen(eq=False, repr=False)
class Script:
    """The file, read once."""

    content: bytes | None = field(factory=_read, repr=False)

    async def get(self, exchange: Exchange) -> Response:
        """``GET /uploads/upload-progress.js``: for a day, with ``?v=`` for good."""
        if self.content is None:
            raise Refused(NOT_FOUND)
        tag = hashlib.sha256(self.content).hexdigest()[:32]
        age = f"max-age={_DAY_SECONDS}"
        if "v" in exchange.connection.query:
            age = f"max-age={_YEAR_SECONDS}, immutable"
        headers = {
            "cache-control": f"public, {age}",
            "etag": f'"{tag}"',
            "x-content-type-options": "nosniff",
        }
        if tag in Condition.of(exchange.connection).tags:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type="text/javascript")
