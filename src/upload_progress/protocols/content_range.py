"""``Content-Range`` in requests: a transfer of one range of the upload (RFC 9110, section 14.5).

``PUT``, ``PATCH`` or ``POST`` with ``Content-Range: bytes FIRST-LAST/TOTAL`` carries the bytes from
FIRST to LAST of the upload at its path. TOTAL may be ``*`` for an unknown size; some clients omit
the unit. ``bytes */TOTAL`` carries no bytes: it asks how many the server has. A server that expects
more bytes answers 308 with ``Range: bytes=0-LAST``, or any 2xx. The upload is complete when the
server has accepted ``TOTAL`` bytes.

The resource is the path. A new upload at the path of a completed one is its next attempt.
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
    refusal,
)

__all__ = ["ContentRange", "end_of_range", "read_range"]

_RESUME_INCOMPLETE: Final = 308
_RANGE: Final = re.compile(
    r"(?:bytes[ =])?\s*([0-9]{1,16})-([0-9]{1,16})(?:/([0-9]{1,16}|\*))?", re.ASCII
)
_RECEIVED: Final = re.compile(r"(?:bytes[ =])?0-([0-9]{1,16})", re.ASCII)


def read_range(text: str | None) -> tuple[int, int, int | None] | None:
    """Return first byte, end (exclusive) and total of a ``Content-Range``; None if it is invalid.

    The total is None if it is unknown.
    """
    found = _RANGE.fullmatch((text or "").strip())
    if found is None:
        return None
    first, stop = int(found[1]), int(found[2]) + 1
    total = int(found[3]) if found[3] and found[3] != "*" else None
    if not first < stop <= (MAX_OFFSET if total is None else min(total, MAX_OFFSET)):
        return None
    return first, stop, total


def end_of_range(text: str | None) -> int | None:
    """Return how many bytes a ``Range`` of a response counts from the start; None if invalid."""
    found = _RECEIVED.fullmatch((text or "").strip())
    return None if found is None else min(int(found[1]) + 1, MAX_OFFSET)


class ContentRange:
    """Protocol of requests with ``Content-Range`` (RFC 9110, section 14.5).

    >>> headers = [(b"content-range", b"bytes 0-4/10")]
    >>> scope = {"type": "http", "method": "PUT", "path": "/files/1", "headers": headers}
    >>> ContentRange().read_request(Connection(scope)).total_bytes
    10
    """

    name = "range"
    specification = "https://www.rfc-editor.org/rfc/rfc9110#section-14.5"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe the range that a request carries; None if it has no valid ``Content-Range``."""
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
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if status == _RESUME_INCOMPLETE:
            return TransferOutcome(
                TransferResult.ACCEPTED, offset=end_of_range(headers.get("range")) or 0
            )
        return TransferOutcome(TransferResult.ACCEPTED) if is_success(status) else refusal(status)
