"""``Content-Range`` in requests: a transfer of one range of the upload (RFC 9110, section 14.5).

``PUT``, ``PATCH`` or ``POST`` with ``Content-Range: bytes FIRST-LAST/TOTAL`` carries the bytes from
FIRST to LAST of the upload at its address. TOTAL may be ``*`` for an unknown size. Clients write
the unit in any case, with ``=`` or ``:``, or omit it; some give TOTAL as the LAST of the final
range. A server that expects more bytes answers 308 with ``Range: bytes=0-LAST``, without ``Range``
if it has none, or any 2xx. The upload is complete when the server has accepted ``TOTAL`` bytes.

``bytes */TOTAL`` or ``bytes */*`` without a body asks how many bytes the server has: it answers
308, or 2xx if the upload is complete. A header that cannot be understood announces a part of
unknown size, which never completes an upload.

The resource is path and query, for ``POST`` with the file name in ``Content-Disposition``. It is
not unique: a new upload at the address of an earlier one is its next attempt.

Google's resumable sessions are created by a request with ``uploadType=resumable`` and
``X-Upload-Content-Type`` or ``X-Upload-Content-Length``; the response gives their address. A
``PUT`` to it without ``Content-Range`` carries the whole upload.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

import re
from typing import Final

from attrs import evolve

from upload_progress._model.models import truncate_text
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
    resolve_target,
    target_of,
)
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS, filename_of, media_type_of

__all__ = ["ContentRange", "end_of_range", "read_range"]

_RESUME_INCOMPLETE: Final = 308
_WITHOUT_BODY: Final = frozenset({"DELETE", "GET", "HEAD"})
_MAX_HEADER_CHARACTERS: Final = 128
_UNIT: Final = r"(?:bytes)?[ \t]*[:=]?[ \t]*"
_TOTAL: Final = r"(?:[ \t]*/[ \t]*([0-9]{1,16}|\*))?"
_FLAGS: Final = re.ASCII | re.IGNORECASE
_RANGE: Final = re.compile(rf"{_UNIT}([0-9]{{1,16}})[ \t]*-[ \t]*([0-9]{{1,16}}){_TOTAL}", _FLAGS)
_QUERY: Final = re.compile(rf"{_UNIT}\*{_TOTAL}", _FLAGS)
_RECEIVED: Final = re.compile(rf"{_UNIT}0-([0-9]{{1,16}})(?:[ \t]*[,/].*)?", _FLAGS)


def _match(pattern: re.Pattern[str], text: str | None) -> re.Match[str] | None:
    """Match a header; the length is limited because the patterns backtrack over white space."""
    if text is None or len(text) > _MAX_HEADER_CHARACTERS:
        return None
    return pattern.fullmatch(text.strip())


def read_range(text: str | None) -> tuple[int, int, int | None] | None:
    """Return first byte, end (exclusive) and total of a ``Content-Range``; None if it is invalid.

    The total is None if it is unknown.
    """
    found = _match(_RANGE, text)
    if found is None:
        return None
    first, stop = int(found[1]), int(found[2]) + 1
    total = int(found[3]) if found[3] and found[3] != "*" else None
    if total is not None and stop == total + 1:
        stop = total
    if not first < stop <= (MAX_OFFSET if total is None else min(total, MAX_OFFSET)):
        return None
    return first, stop, total


def end_of_range(text: str | None) -> int | None:
    """Return how many bytes a ``Range`` of a response counts from the start; None if invalid."""
    found = _match(_RECEIVED, text)
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
        """Describe the range that a request carries, or asks for."""
        text = connection.header("content-range")
        if text is None:
            return self._google_request(connection)
        if connection.method in _WITHOUT_BODY:
            return None
        found, query = read_range(text), _match(_QUERY, text)
        if found is None:
            return (
                self._query(connection, parse_count(query[1]))
                if query is not None and _has_no_body(connection)
                else self._head(connection, offset=None)
            )
        first, stop, total = found
        return self._head(
            connection,
            offset=first,
            length=stop - first,
            total_bytes=total,
            completes_at_total=True,
        )

    def _head(
        self,
        connection: Connection,
        *,
        offset: int | None,
        length: int | None = None,
        total_bytes: int | None = None,
        completes_at_total: bool = False,
        is_last: bool = False,
    ) -> TransferHead:
        name = _session_filename(connection) or filename_of(connection)
        target = target_of(connection)
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            f"{target}\n{name}" if connection.method == "POST" and name else target,
            offset=offset,
            length=length,
            total_bytes=total_bytes,
            filename=name,
            content_type=media_type_of(connection),
            completes_at_total=completes_at_total,
            is_last=is_last,
            is_sequential=False,
            resource_is_unique=False,
        )

    def _query(self, connection: Connection, total_bytes: int | None) -> TransferHead:
        """Describe a request that asks; its media type is none of the upload."""
        head = self._head(connection, offset=0, total_bytes=total_bytes, completes_at_total=True)
        return evolve(head, kind=TransferKind.QUERY, carries_bytes=False, content_type=None)

    def _google_request(self, connection: Connection) -> TransferHead | None:
        """Describe the creation of one of Google's sessions, or an upload to it in one request."""
        if b"uploadType=resumable" not in connection.scope.get("query_string", b""):
            return None
        query = connection.query
        if query.get("uploadType") != "resumable" or connection.method in _WITHOUT_BODY:
            return None
        length = parse_count(connection.header("content-length"))
        if "upload_id" in query:
            return (
                self._head(connection, offset=0, length=length, total_bytes=length, is_last=True)
                if connection.method == "PUT"
                else None
            )
        total = parse_count(connection.header("x-upload-content-length"))
        media_type = connection.header("x-upload-content-type")
        if total is None and media_type is None:
            return None
        return TransferHead(
            self.name,
            TransferKind.CREATE,
            total_bytes=total,
            filename=_session_filename(connection),
            content_type=truncate_text(media_type or "", MAX_NAME_CHARACTERS) or None,
            completes_at_total=True,
            is_sequential=False,
            resource_is_unique=False,
            carries_bytes=False,
            request_path=connection.path,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if transfer_head.kind is TransferKind.CREATE:
            return _created(transfer_head, status, headers)
        if status == _RESUME_INCOMPLETE:
            return _incomplete(headers)
        if transfer_head.kind is TransferKind.QUERY:
            return _answer(transfer_head, status, headers)
        if not is_success(status):
            return refusal(status)
        return TransferOutcome(
            TransferResult.COMPLETED if transfer_head.is_last else TransferResult.ACCEPTED
        )


def _has_no_body(connection: Connection) -> bool:
    is_empty = connection.header("content-length") in {None, "0"}
    return is_empty and connection.header("transfer-encoding") is None


def _session_filename(connection: Connection) -> str | None:
    """Return the name of an object in one of Google's sessions; None for any other request."""
    if b"uploadType=resumable" not in connection.scope.get("query_string", b""):
        return None
    name = connection.query.get("name", "").rpartition("/")[2]
    return truncate_text(name, MAX_NAME_CHARACTERS) or None


def _created(transfer_head: TransferHead, status: int, headers: Headers) -> TransferOutcome:
    if not is_success(status):
        return refusal(status)
    resource = resolve_target(headers.get("location"), transfer_head.request_path)
    if resource is None or "upload_id=" not in resource:
        return TransferOutcome(TransferResult.NOTHING)
    return TransferOutcome(TransferResult.CREATED, resource)


def _incomplete(headers: Headers) -> TransferOutcome:
    """Return the outcome of a response with status 308; with ``Location``, it is a redirect."""
    received = end_of_range(headers.get("range"))
    if received is None and ("range" in headers or "location" in headers):
        return TransferOutcome(TransferResult.REFUSED)
    return TransferOutcome(TransferResult.ACCEPTED, offset=received or 0)


def _answer(transfer_head: TransferHead, status: int, headers: Headers) -> TransferOutcome:
    """Return the outcome of a request that asks, other than 308."""
    if not is_success(status):
        return TransferOutcome(TransferResult.REFUSED)
    received, total = end_of_range(headers.get("range")), transfer_head.total_bytes
    if received is not None and (total is None or received < total):
        return TransferOutcome(TransferResult.ACCEPTED, offset=received)
    return TransferOutcome(TransferResult.COMPLETED, total_bytes=total)
