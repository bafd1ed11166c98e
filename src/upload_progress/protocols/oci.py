"""OCI distribution: a blob is pushed in a session, and named by its digest at the end.

``POST …/blobs/uploads/`` opens a session and answers 202 with its address, which may be
another one after each step; what stays the same is its path. ``PATCH`` appends; with
``Content-Range: FIRST-LAST`` it says where, without it appends what comes. ``PUT ?digest=``
ends the session, with or without last bytes: only its 201 makes a blob. Nothing announces the
size before. ``POST ?digest=`` brings the whole blob at once (201), unless the server wants a
session after all (202); ``POST ?mount=`` brings nothing, and 201 says it was there already.

Source: https://github.com/opencontainers/distribution-spec, "Pushing blobs".
"""

import re
from typing import Final

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    Came,
    Headers,
    Kind,
    Outcome,
    Piece,
    count_of,
    is_success,
    path_of,
)
from upload_progress.protocols.content_range import end_of_range, read_range

__all__ = [
    "Oci",
]

_CREATED: Final = 201
_SESSION: Final = re.compile(r".*/v2/.+/blobs/uploads/([^/]*)")


class Oci:
    """Reads pushes of blobs."""

    name = "oci"
    specification = "https://github.com/opencontainers/distribution-spec/blob/main/spec.md"

    def read(self, head: Connection) -> Piece | None:
        """Return what a request to an upload session carries."""
        if "/blobs/uploads" not in head.path:
            return None
        found = _SESSION.fullmatch(head.path)
        if found is None:
            return None
        if head.method == "POST":
            return None if found[1] else self._creation(head)
        return self._step(head) if found[1] else None

    def _creation(self, head: Connection) -> Piece:
        is_whole = "digest" in head.query
        length = count_of(head.header("content-length"))
        return Piece(
            self.name,
            Kind.CREATE,
            length=length,
            total_bytes=length if is_whole else None,
            is_last=is_whole,
            has_body=is_whole,
            base=head.path,
        )

    def _step(self, head: Connection) -> Piece | None:
        if head.method == "DELETE":
            return Piece(self.name, Kind.ABORT, head.path)
        if head.method not in {"PATCH", "PUT"}:
            return None
        text = head.header("content-range")
        found = read_range(text)
        return Piece(
            self.name,
            Kind.BYTES,
            head.path,
            offset=None if found is None else found[0],
            length=count_of(head.header("content-length")),
            is_last=head.method == "PUT",
        )

    def answer(self, piece: Piece, status: int, headers: Headers) -> Outcome:
        """Return what came of it."""
        if not is_success(status):
            return Outcome(Came.REFUSED)
        if piece.kind is Kind.ABORT:
            return Outcome(Came.ABORTED)
        if piece.kind is Kind.CREATE:
            return self._created(piece, status, headers)
        if piece.is_last:
            return Outcome(Came.COMPLETED)
        return Outcome(Came.ACCEPTED, offset=end_of_range(headers.get("range")))

    def _created(self, piece: Piece, status: int, headers: Headers) -> Outcome:
        if status == _CREATED:
            return Outcome(Came.COMPLETED if piece.is_last else Came.NOTHING)
        resource = path_of(headers.get("location"), piece.base)
        return Outcome(Came.CREATED if resource else Came.NOTHING, resource)
