"""Resumable uploads for HTTP, an IETF draft.

A request with ``Upload-Complete`` creates an upload: ``?1`` if its body is the whole upload, ``?0``
if more follows. The response gives its address in ``Location``. ``PATCH`` to that address appends
at ``Upload-Offset``; the last one has ``Upload-Complete: ?1``. The size is announced by
``Upload-Length``, or follows from the end of the last transfer. ``DELETE`` abandons the upload.

Source: draft-ietf-httpbis-resumable-upload (interop version 8).
"""

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    MAX_OFFSET,
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    is_success,
    parse_count,
    refusal,
    resolve_path,
)

__all__ = ["IetfResumable"]


class IetfResumable:
    """Protocol of the IETF draft "Resumable Uploads for HTTP".

    >>> headers = [(b"upload-complete", b"?1"), (b"content-length", b"3")]
    >>> scope = {"type": "http", "method": "POST", "path": "/files", "headers": headers}
    >>> IetfResumable().read_request(Connection(scope)).total_bytes
    3
    """

    name = "ietf"
    specification = "https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request with ``Upload-Complete``, or the deletion of an upload."""
        if connection.method == "DELETE":
            is_ours = connection.header("upload-draft-interop-version") is not None
            return TransferHead(self.name, TransferKind.ABORT, connection.path) if is_ours else None
        is_last = {"?1": True, "?0": False}.get(
            (connection.header("upload-complete") or "").strip()
        )
        if is_last is None:
            return None
        length = parse_count(connection.header("content-length"))
        offset = parse_count(connection.header("upload-offset"))
        is_first = connection.method != "PATCH"
        total = parse_count(connection.header("upload-length"))
        if total is None and is_last and length is not None:
            total = min((offset or 0) + length, MAX_OFFSET)
        return TransferHead(
            self.name,
            TransferKind.CREATE if is_first else TransferKind.BYTES,
            None if is_first else connection.path,
            offset=0 if is_first else offset or 0,
            length=length,
            total_bytes=total,
            is_last=is_last,
            request_path=connection.path,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if not is_success(status):
            is_final = headers.get("upload-complete") == "?1"
            return TransferOutcome(TransferResult.REJECTED) if is_final else refusal(status)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        offset = parse_count(headers.get("upload-offset"))
        is_open = not transfer_head.is_last or headers.get("upload-complete") == "?0"
        if not is_open:
            return TransferOutcome(TransferResult.COMPLETED)
        if transfer_head.kind is TransferKind.CREATE:
            resource = resolve_path(headers.get("location"), transfer_head.request_path)
            return TransferOutcome(
                TransferResult.CREATED if resource else TransferResult.NOTHING, resource, offset
            )
        return TransferOutcome(TransferResult.ACCEPTED, offset=offset)
