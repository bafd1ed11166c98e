"""``Content-Range`` on a request: this is the piece from here to there of so many bytes.

RFC 9110, section 14.5, lets a PUT (or PATCH, or POST) carry part of what is at its path. The
form is ``bytes FIRST-LAST/TOTAL``, either of which may be ``*``; ``bytes */TOTAL`` carries
nothing and asks how far the server is. Some clients leave the unit out. A server that wants
more answers 308 and tells in ``Range`` what it has, counted from the start; others answer
with any success. The upload is whole when all of its bytes have been taken.

The resource is the path: after an upload is whole, the next one at its path is a new attempt.
"""

import re
from typing import Final

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    MAX_OFFSET,
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    is_success,
)

__all__ = [
    "ContentRange",
    "end_of_range",
    "read_range",
]

_RESUME_INCOMPLETE: Final = 308
_RANGE: Final = re.compile(
    r"(?:bytes[ =])?\s*([0-9]{1,16})-([0-9]{1,16})(?:/([0-9]{1,16}|\*))?", re.ASCII
)
_HELD: Final = re.compile(r"(?:bytes[ =])?0-([0-9]{1,16})", re.ASCII)


def read_range(text: str | None) -> tuple[int, int, int | None] | None:
    """Return where a piece begins, where it ends, and the total; None where it makes no sense."""
    found = _RANGE.fullmatch((text or "").strip())
    if found is None:
        return None
    first, stop = int(found[1]), int(found[2]) + 1
    total = int(found[3]) if found[3] and found[3] != "*" else None
    if not first < stop <= (MAX_OFFSET if total is None else min(total, MAX_OFFSET)):
        return None
    return first, stop, total


def end_of_range(text: str | None) -> int | None:
    """Return how many bytes from the start a ``Range`` in an answer says are there."""
    found = _HELD.fullmatch((text or "").strip())
    return None if found is None else min(int(found[1]) + 1, MAX_OFFSET)


class ContentRange:
    """Reads ``Content-Range`` of requests."""

    name = "range"
    specification = "https://www.rfc-editor.org/rfc/rfc9110#section-14.5"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Return which piece of what is at its path the request carries."""
        found = read_range(connection.header("content-range"))
        if found is None:
            return None
        first, stop, total = found
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            connection.path,
            offset=first,
            length=stop - first,
            total_bytes=total,
            completes_at_total=True,
            is_sequential=False,
            resource_is_unique=False,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return what came of it."""
        if status == _RESUME_INCOMPLETE:
            return TransferOutcome(
                TransferResult.ACCEPTED, offset=end_of_range(headers.get("range")) or 0
            )
        return TransferOutcome(
            TransferResult.ACCEPTED if is_success(status) else TransferResult.REFUSED
        )
