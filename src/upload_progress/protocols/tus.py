"""tus 1.0.0, the resumable upload protocol.

``POST`` creates an upload and answers with its address in ``Location``. ``PATCH`` appends at
``Upload-Offset``; the response contains the new offset. The upload is complete when the offset is
its length, which may be announced later (``Upload-Defer-Length``). ``DELETE`` terminates it.
``HEAD`` asks for the offset; the answer repeats length and metadata, so that an upload whose
creation was not seen here is known from then on.

A partial upload of a concatenation has a length of its own, and is an upload of its own unless
the client sends one ``Upload-Id`` with all of them. The final ``POST`` carries no bytes.

Source: https://tus.io/protocols/resumable-upload (core; creation, creation-with-upload,
termination, checksum, expiration, concatenation).
"""

from base64 import b64decode
from binascii import Error as InvalidBase64
from typing import Final

from upload_progress._model.models import truncate_text
from upload_progress.connection import Connection
from upload_progress.protocols.base import (
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
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS, media_type_of

__all__ = ["Tus"]

_NAME_KEYS: Final = ("filename", "name")
_TYPE_KEYS: Final = ("filetype", "type")


class Tus:
    """Protocol of tus 1.0.0.

    >>> headers = [(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"5")]
    >>> scope = {"type": "http", "method": "PATCH", "path": "/files/1", "headers": headers}
    >>> Tus().read_request(Connection(scope)).offset
    5
    """

    name = "tus"
    specification = "https://tus.io/protocols/resumable-upload"
    required_headers: tuple[str, ...] = ("tus-resumable",)
    query_headers: tuple[str, ...] = ("tus-resumable",)

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request with ``Tus-Resumable``."""
        if connection.header("tus-resumable") is None:
            return None
        # Clients send POST with this header where a proxy does not pass PATCH (tus 1.0.0, section
        # X-HTTP-Method-Override).
        method = (connection.header("x-http-method-override") or connection.method).upper()
        if method == "POST":
            return self._creation(connection)
        target = target_of(connection)
        if method == "PATCH":
            return TransferHead(
                self.name,
                TransferKind.BYTES,
                target,
                offset=parse_count(connection.header("upload-offset")),
                length=content_length(connection),
                total_bytes=parse_count(connection.header("upload-length")),
                completes_at_total=True,
                resource_may_be_part=True,
            )
        if method == "HEAD":
            return TransferHead(
                self.name,
                TransferKind.QUERY,
                target,
                completes_at_total=True,
                carries_bytes=False,
                resource_may_be_part=True,
            )
        return TransferHead(self.name, TransferKind.ABORT, target) if method == "DELETE" else None

    def _creation(self, connection: Connection) -> TransferHead | None:
        concat, _, parts = (connection.header("upload-concat") or "").strip().partition(";")
        if concat == "final":
            return self._concatenation(connection, parts)
        length = parse_count(connection.header("upload-length"))
        metadata = connection.header("upload-metadata")
        return TransferHead(
            self.name,
            TransferKind.CREATE,
            length=content_length(connection),
            total_bytes=length,
            completes_at_total=True,
            filename=_filename(metadata),
            content_type=_value(metadata, _TYPE_KEYS),
            carries_bytes=media_type_of(connection) == "application/offset+octet-stream",
            request_path=connection.path,
            resource_may_be_part=True,
            part_total_bytes=length if concat == "partial" else None,
        )

    def _concatenation(self, connection: Connection, parts: str) -> TransferHead | None:
        """Describe the final request, which is found by the first of its partial uploads."""
        first = resolve_target(next(iter(parts.split()), None), connection.path)
        if first is None:
            return None
        return TransferHead(
            self.name,
            TransferKind.COMPLETE,
            first,
            is_last=True,
            carries_bytes=False,
            resource_may_be_part=True,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if transfer_head.kind is TransferKind.QUERY:
            return _answer(status, headers)
        if not is_success(status):
            return refusal(status)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        if transfer_head.kind is TransferKind.COMPLETE:
            return TransferOutcome(TransferResult.COMPLETED)
        offset = parse_count(headers.get("upload-offset"))
        if transfer_head.kind is TransferKind.CREATE:
            resource = resolve_target(headers.get("location"), transfer_head.request_path)
            return TransferOutcome(
                TransferResult.CREATED if resource else TransferResult.NOTHING, resource, offset
            )
        return TransferOutcome(TransferResult.ACCEPTED, offset=offset)


def _answer(status: int, headers: Headers) -> TransferOutcome:
    """Return the outcome of a ``HEAD`` request; without an offset it tells nothing."""
    offset = parse_count(headers.get("upload-offset"))
    if not is_success(status) or offset is None:
        return TransferOutcome(TransferResult.REFUSED)
    metadata = headers.get("upload-metadata")
    # The length of a partial upload is not that of the upload (tus 1.0.0, Concatenation).
    is_part = headers.get("upload-concat", "").strip() == "partial"
    return TransferOutcome(
        TransferResult.ACCEPTED,
        offset=offset,
        total_bytes=None if is_part else parse_count(headers.get("upload-length")),
        filename=_filename(metadata),
        content_type=_value(metadata, _TYPE_KEYS),
    )


def _filename(metadata: str | None) -> str | None:
    name = _value(metadata, _NAME_KEYS)
    return None if name is None else name.replace("\\", "/").rpartition("/")[2] or None


def _value(metadata: str | None, keys: tuple[str, ...]) -> str | None:
    """Return a value in ``Upload-Metadata``: pairs of a key and a value in Base64."""
    for pair in (metadata or "").split(","):
        key, _, value = pair.strip().partition(" ")
        if key in keys:
            return _decoded(value)
    return None


def _decoded(value: str) -> str | None:
    try:
        text = b64decode(value, validate=True).decode("utf-8", "replace")
    except (InvalidBase64, ValueError):
        return None
    return truncate_text(text, MAX_NAME_CHARACTERS) or None
