"""Resumable uploads for HTTP, as the IETF drafts them: any request may be the first piece.

A request with ``Upload-Complete`` begins an upload; ``?1`` says that its body is the whole,
``?0`` that more will follow. The answer names the upload's address in ``Location``; ``PATCH``
there appends at ``Upload-Offset``, and the last of them says ``?1``. ``Upload-Length`` may
tell the size at any time; the last piece tells it by where it ends. ``DELETE`` gives it up.

Source: draft-ietf-httpbis-resumable-upload (interop version 8).
"""

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    MAX_OFFSET,
    Came,
    Headers,
    Kind,
    Outcome,
    Piece,
    count_of,
    is_success,
    path_of,
)

__all__ = [
    "Resumable",
]


class Resumable:
    """Reads the headers of the IETF draft."""

    name = "ietf"
    specification = "https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/"

    def read(self, head: Connection) -> Piece | None:
        """Return what a request with ``Upload-Complete`` carries, or which one it deletes."""
        if head.method == "DELETE":
            is_ours = head.header("upload-draft-interop-version") is not None
            return Piece(self.name, Kind.ABORT, head.path) if is_ours else None
        is_last = {"?1": True, "?0": False}.get((head.header("upload-complete") or "").strip())
        if is_last is None:
            return None
        length = count_of(head.header("content-length"))
        offset = count_of(head.header("upload-offset"))
        is_first = head.method != "PATCH"
        total = count_of(head.header("upload-length"))
        if total is None and is_last and length is not None:
            total = min((offset or 0) + length, MAX_OFFSET)
        return Piece(
            self.name,
            Kind.CREATE if is_first else Kind.BYTES,
            None if is_first else head.path,
            offset=0 if is_first else offset or 0,
            length=length,
            total_bytes=total,
            is_last=is_last,
            base=head.path,
        )

    def answer(self, piece: Piece, status: int, headers: Headers) -> Outcome:
        """Return what came of it."""
        if not is_success(status):
            return Outcome(Came.REFUSED)
        if piece.kind is Kind.ABORT:
            return Outcome(Came.ABORTED)
        offset = count_of(headers.get("upload-offset"))
        is_open = not piece.is_last or headers.get("upload-complete") == "?0"
        if not is_open:
            return Outcome(Came.COMPLETED)
        if piece.kind is Kind.CREATE:
            resource = path_of(headers.get("location"), piece.base)
            return Outcome(Came.CREATED if resource else Came.NOTHING, resource, offset)
        return Outcome(Came.ACCEPTED, offset=offset)
