"""tus 1.0.0, the resumable upload protocol.

``POST`` creates an upload and answers with its address in ``Location``. ``PATCH`` appends at
``Upload-Offset``; the response contains the new offset. The upload is complete when the offset is
its length, which may be announced later (``Upload-Defer-Length``). ``DELETE`` terminates it.
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
    is_success,
    parse_count,
    refusal,
    resolve_path,
)

__all__ = ["Tus"]

_MAX_NAME_CHARACTERS: Final = 255


class Tus:
    """Protocol of tus 1.0.0.

    >>> headers = [(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"5")]
    >>> scope = {"type": "http", "method": "PATCH", "path": "/files/1", "headers": headers}
    >>> Tus().read_request(Connection(scope)).offset
    5
    """

    name = "tus"
    specification = "https://tus.io/protocols/resumable-upload"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request with ``Tus-Resumable``."""
        if connection.header("tus-resumable") is None:
            return None
        # Clients send POST with this header where a proxy does not pass PATCH (tus 1.0.0, section
        # X-HTTP-Method-Override).
        method = (connection.header("x-http-method-override") or connection.method).upper()
        if method == "POST":
            return self._creation(connection)
        if method == "PATCH":
            return TransferHead(
                self.name,
                TransferKind.BYTES,
                connection.path,
                offset=parse_count(connection.header("upload-offset")) or 0,
                length=parse_count(connection.header("content-length")),
                total_bytes=parse_count(connection.header("upload-length")),
                completes_at_total=True,
                resource_may_be_part=True,
            )
        return (
            TransferHead(self.name, TransferKind.ABORT, connection.path)
            if method == "DELETE"
            else None
        )

    def _creation(self, connection: Connection) -> TransferHead | None:
        concat, _, parts = (connection.header("upload-concat") or "").strip().partition(";")
        if concat == "final":
            return self._concatenation(connection, parts)
        length = parse_count(connection.header("upload-length"))
        return TransferHead(
            self.name,
            TransferKind.CREATE,
            length=parse_count(connection.header("content-length")),
            total_bytes=length,
            completes_at_total=True,
            filename=_filename(connection.header("upload-metadata") or ""),
            carries_bytes=connection.header("content-type") == "application/offset+octet-stream",
            request_path=connection.path,
            resource_may_be_part=True,
            part_total_bytes=length if concat == "partial" else None,
        )

    def _concatenation(self, connection: Connection, parts: str) -> TransferHead | None:
        """Describe the final request, which is found by the first of its partial uploads."""
        first = resolve_path(next(iter(parts.split()), None), connection.path)
        if first is None:
            return None
        return TransferHead(
            self.name, TransferKind.COMPLETE, first, is_last=True, carries_bytes=False
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if not is_success(status):
            return refusal(status)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        if transfer_head.kind is TransferKind.COMPLETE:
            return TransferOutcome(TransferResult.COMPLETED)
        offset = parse_count(headers.get("upload-offset"))
        if transfer_head.kind is TransferKind.CREATE:
            resource = resolve_path(headers.get("location"), transfer_head.request_path)
            return TransferOutcome(
                TransferResult.CREATED if resource else TransferResult.NOTHING, resource, offset
            )
        return TransferOutcome(TransferResult.ACCEPTED, offset=offset)


def _filename(metadata: str) -> str | None:
    """Return the file name in ``Upload-Metadata``: pairs of a key and a value in Base64."""
    for pair in metadata.split(","):
        key, _, value = pair.strip().partition(" ")
        if key in {"filename", "name"}:
            return _decoded(value)
    return None


def _decoded(value: str) -> str | None:
    try:
        text = b64decode(value, validate=True).decode("utf-8", "replace")
    except (InvalidBase64, ValueError):
        return None
    return truncate_text(text.replace("\\", "/").rpartition("/")[2], _MAX_NAME_CHARACTERS) or None
