"""Resumable uploads for HTTP, an IETF draft.

A request with ``Upload-Complete`` creates an upload: ``?1`` if its body is the whole upload, ``?0``
if more follows. The response gives its address in ``Location``. ``PATCH`` to that address appends
at ``Upload-Offset``; the last one has ``Upload-Complete: ?1``. The size is announced by
``Upload-Length``, or follows from the end of the last transfer. ``DELETE`` abandons the upload.
``HEAD`` asks for the offset.

A response with ``Upload-Complete: ?1`` ends the upload: by success if it is 2xx, however much has
been sent, else by failure. Interim responses (104) are not read. Interop versions up to 3 send the
inverse, ``Upload-Incomplete``.

Source: draft-ietf-httpbis-resumable-upload-12 (interop version 8), sections "Upload Creation",
"Offset Retrieval", "Upload Append" and "Completeness".
"""

from typing import Final

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    MAX_OFFSET,
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    content_length,
    is_success,
    parse_count,
    refusal,
    resolve_target,
    target_of,
)
from upload_progress.protocols.request_head import filename_of, media_type_of

__all__ = ["IetfResumable"]

_BOOLEANS: Final = {"?1": True, "?0": False}
_PART_TYPE: Final = "application/partial-upload"
_TOO_LARGE: Final = 413
_INTEROP_VERSION: Final = "upload-draft-interop-version"


class IetfResumable:
    """Protocol of the IETF draft "Resumable Uploads for HTTP".

    >>> headers = [(b"upload-complete", b"?1"), (b"content-length", b"3")]
    >>> scope = {"type": "http", "method": "POST", "path": "/files", "headers": headers}
    >>> IetfResumable().read_request(Connection(scope)).total_bytes
    3
    """

    name = "ietf"
    specification = "https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/"

    required_headers: tuple[str, ...] = (
        "upload-complete",
        "upload-incomplete",
        _INTEROP_VERSION,
    )
    query_headers: tuple[str, ...] = (_INTEROP_VERSION,)

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request with ``Upload-Complete``, a deletion, or a request for the offset."""
        if connection.method in {"DELETE", "HEAD"}:
            return self._without_body(connection)
        is_last = _is_complete(
            connection.header("upload-complete"), connection.header("upload-incomplete")
        )
        if is_last is None:
            return None
        length = content_length(connection)
        offset = parse_count(connection.header("upload-offset"))
        # Every method that carries a body can create an upload; appending needs an offset.
        is_first = connection.method != "PATCH" or connection.header("upload-offset") is None
        total = parse_count(connection.header("upload-length"))
        if total is None and is_last and length is not None and (is_first or offset is not None):
            total = min((0 if is_first else offset or 0) + length, MAX_OFFSET)
        return TransferHead(
            self.name,
            TransferKind.CREATE if is_first else TransferKind.BYTES,
            None if is_first else target_of(connection),
            offset=0 if is_first else offset,
            length=length,
            total_bytes=total,
            filename=filename_of(connection) if is_first else None,
            content_type=_content_type(connection) if is_first else None,
            is_last=is_last,
            request_path=connection.path,
        )

    def _without_body(self, connection: Connection) -> TransferHead | None:
        if connection.header(_INTEROP_VERSION) is None:
            return None
        is_query = connection.method == "HEAD"
        return TransferHead(
            self.name,
            TransferKind.QUERY if is_query else TransferKind.ABORT,
            target_of(connection),
            carries_bytes=not is_query,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        is_complete = _is_complete(headers.get("upload-complete"), headers.get("upload-incomplete"))
        if transfer_head.kind is TransferKind.QUERY:
            return _answer(status, headers, is_complete=is_complete is True)
        if not is_success(status):
            return _refusal(status, headers, is_complete=is_complete is True)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        resource = resolve_target(headers.get("location"), transfer_head.request_path)
        is_creation = transfer_head.kind is TransferKind.CREATE
        if transfer_head.is_last if is_complete is None else is_complete:
            return TransferOutcome(TransferResult.COMPLETED, resource if is_creation else None)
        offset = parse_count(headers.get("upload-offset"))
        if is_creation:
            return TransferOutcome(
                TransferResult.CREATED if resource else TransferResult.NOTHING, resource, offset
            )
        return TransferOutcome(TransferResult.ACCEPTED, offset=offset)


def _content_type(connection: Connection) -> str | None:
    """Return the media type of an upload; some clients send that of a part with its creation."""
    media_type = media_type_of(connection)
    return None if media_type == _PART_TYPE else media_type


def _is_complete(complete: str | None, incomplete: str | None) -> bool | None:
    """Return the value of ``Upload-Complete``, or that of ``Upload-Incomplete`` inverted."""
    if complete is not None:
        return _BOOLEANS.get(complete.strip())
    is_incomplete = _BOOLEANS.get((incomplete or "").strip())
    return None if is_incomplete is None else not is_incomplete


def _refusal(status: int, headers: Headers, *, is_complete: bool) -> TransferOutcome:
    if is_complete:
        return TransferOutcome(TransferResult.REJECTED)
    # A client repeats the request with fewer bytes, if it is told how many are allowed.
    if status == _TOO_LARGE and "upload-limit" in headers:
        return TransferOutcome(TransferResult.REFUSED)
    return refusal(status)


def _answer(status: int, headers: Headers, *, is_complete: bool) -> TransferOutcome:
    """Return the outcome of a request for the offset.

    A complete upload has got its final response, which may be an error: the offset decides.
    """
    offset = parse_count(headers.get("upload-offset"))
    if not is_success(status) or offset is None:
        return TransferOutcome(TransferResult.REFUSED)
    total = parse_count(headers.get("upload-length"))
    is_whole = is_complete and offset == total
    return TransferOutcome(
        TransferResult.COMPLETED if is_whole else TransferResult.ACCEPTED,
        offset=offset,
        total_bytes=total,
    )
