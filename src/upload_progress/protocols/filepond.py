"""FilePond: a file in chunks (``chunkUploads: true``).

``POST`` with ``Upload-Length`` and a form without the file creates an upload; its id comes in the
body of the response, which is not read here, so tracking begins with the first chunk. ``PATCH``
carries a chunk: ``Upload-Offset``, ``Upload-Length`` and ``Upload-Name`` describe it, and the id is
in the query or in the path. ``HEAD`` asks for the offset; it has no header of its own and is not
read, as each chunk tells its position. The upload is complete when the server has accepted
``Upload-Length`` bytes.

FilePond sends a chunk again after any error (``chunkRetryDelays``): only 404 and 410 are final.

Source: https://pqina.nl/filepond/docs/api/server/#process-chunks.
"""

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
    target_of,
)
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS, media_type_of

__all__ = ["FilePond"]

_NOT_THERE: Final = frozenset({404, 410})


class FilePond:
    """Protocol of FilePond's chunk uploads.

    >>> headers = [(b"upload-offset", b"5"), (b"upload-length", b"9"), (b"upload-name", b"a.txt")]
    >>> scope = {"type": "http", "method": "PATCH", "path": "/process/1", "headers": headers}
    >>> FilePond().read_request(Connection(scope)).filename
    'a.txt'
    """

    name = "filepond"
    specification = "https://pqina.nl/filepond/docs/api/server/#process-chunks"

    required_headers: tuple[str, ...] = ("upload-length",)

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a chunk, or the creation of an upload."""
        announced = connection.header("upload-length")
        if announced is None or connection.header("tus-resumable") is not None:
            return None
        total = parse_count(announced)
        if total is None:
            return None
        length = parse_count(connection.header("content-length"))
        if connection.method == "POST":
            is_creation = media_type_of(connection) == "multipart/form-data" and (
                length is not None and length < total
            )
            return (
                TransferHead(self.name, TransferKind.CREATE, total_bytes=total, carries_bytes=False)
                if is_creation
                else None
            )
        name, offset = connection.header("upload-name"), connection.header("upload-offset")
        if connection.method != "PATCH" or name is None or offset is None:
            return None
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            target_of(connection),
            offset=parse_count(offset),
            length=length,
            total_bytes=total,
            filename=_basename(name),
            is_sequential=False,
            completes_at_total=True,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if transfer_head.kind is TransferKind.CREATE:
            return TransferOutcome(TransferResult.NOTHING)
        if not is_success(status):
            is_final = status in _NOT_THERE
            return TransferOutcome(TransferResult.REJECTED if is_final else TransferResult.REFUSED)
        return TransferOutcome(
            TransferResult.ACCEPTED, offset=parse_count(headers.get("upload-offset"))
        )


def _basename(name: str) -> str | None:
    """Return the name of a file; browsers send the bytes of its UTF-8 form."""
    text = name.encode("latin-1").decode("utf-8", "replace").replace("\\", "/")
    return truncate_text(text.rpartition("/")[2], MAX_NAME_CHARACTERS) or None
