"""tus 1.0.0: a resource is created, and bytes are appended to it at an offset.

``POST`` creates it and answers with its address in ``Location``; each ``PATCH`` names the
offset at which its bytes begin, and the answer says how far the server is now. The upload is
whole when that is its length. A length may come later (``Upload-Defer-Length``). ``DELETE``
gives it up. Each partial upload of a concatenation has a length of its own and is an upload
of its own, held together by its group; the final ``POST`` carries no bytes and is none.

Source: https://tus.io/protocols/resumable-upload (core; creation, creation-with-upload,
termination, checksum, expiration, concatenation).
"""

from base64 import b64decode
from binascii import Error as NoBase64
from typing import Final

from upload_progress._model.models import bounded_text
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

__all__ = [
    "Tus",
]

_MAX_NAME_CHARACTERS: Final = 255


class Tus:
    """Reads tus 1.0.0."""

    name = "tus"
    specification = "https://tus.io/protocols/resumable-upload"

    def read(self, head: Connection) -> Piece | None:
        """Return what a request with ``Tus-Resumable`` carries."""
        if head.header("tus-resumable") is None:
            return None
        # A client behind a proxy that knows no PATCH says so (tus 1.0.0, X-HTTP-Method-Override).
        method = (head.header("x-http-method-override") or head.method).upper()
        if method == "POST":
            return self._creation(head)
        if method == "PATCH":
            return Piece(
                self.name,
                Kind.BYTES,
                head.path,
                offset=count_of(head.header("upload-offset")) or 0,
                length=count_of(head.header("content-length")),
                total_bytes=count_of(head.header("upload-length")),
                is_whole_when_full=True,
                is_one_of=True,
            )
        return Piece(self.name, Kind.ABORT, head.path) if method == "DELETE" else None

    def _creation(self, head: Connection) -> Piece | None:
        concat, _, parts = (head.header("upload-concat") or "").strip().partition(";")
        if concat == "final":
            return self._concatenation(head, parts)
        length = count_of(head.header("upload-length"))
        return Piece(
            self.name,
            Kind.CREATE,
            length=count_of(head.header("content-length")),
            total_bytes=length,
            is_whole_when_full=True,
            filename=_filename(head.header("upload-metadata") or ""),
            has_body=head.header("content-type") == "application/offset+octet-stream",
            base=head.path,
            is_one_of=True,
            partial_bytes=length if concat == "partial" else None,
        )

    def _concatenation(self, head: Connection, parts: str) -> Piece | None:
        """Return the request that makes one of several: it goes by the first of them."""
        first = path_of(next(iter(parts.split()), None), head.path)
        if first is None:
            return None
        return Piece(self.name, Kind.COMPLETE, first, is_last=True, has_body=False)

    def answer(self, piece: Piece, status: int, headers: Headers) -> Outcome:
        """Return what came of it: the server's word on how far it is."""
        if not is_success(status):
            return Outcome(Came.REFUSED)
        if piece.kind is Kind.ABORT:
            return Outcome(Came.ABORTED)
        if piece.kind is Kind.COMPLETE:
            return Outcome(Came.COMPLETED)
        offset = count_of(headers.get("upload-offset"))
        if piece.kind is Kind.CREATE:
            resource = path_of(headers.get("location"), piece.base)
            return Outcome(Came.CREATED if resource else Came.NOTHING, resource, offset)
        return Outcome(Came.ACCEPTED, offset=offset)


def _filename(metadata: str) -> str | None:
    """Return the file name among comma-separated pairs of a key and a Base64 value."""
    for pair in metadata.split(","):
        key, _, value = pair.strip().partition(" ")
        if key in {"filename", "name"}:
            return _decoded(value)
    return None


def _decoded(value: str) -> str | None:
    try:
        text = b64decode(value, validate=True).decode("utf-8", "replace")
    except (NoBase64, ValueError):
        return None
    return bounded_text(text.replace("\\", "/").rpartition("/")[2], _MAX_NAME_CHARACTERS) or None
