"""S3 multipart: numbered parts in any order and in parallel, put together at the end.

``POST ?uploads`` opens an upload; its id comes in the body of the answer, which nobody here
reads, so the upload begins with its first part. ``PUT ?partNumber=N&uploadId=ID`` brings a
part, 1 to 10,000; sent again, it takes the place of the former. ``POST ?uploadId=ID`` puts the
parts together, ``DELETE ?uploadId=ID`` gives them up. Nothing announces the whole size.

A body that is signed as it streams is longer on the wire than its part: the announced
``x-amz-decoded-content-length`` is the part's size, and what exceeds it is envelope.

Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, AbortMultipartUpload,
and "Signature calculations for the authorization header: transferring payload in chunks".
"""

from typing import Final

from upload_progress.connection import Connection
from upload_progress.protocols.base import (
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    is_success,
    parse_count,
)

__all__ = [
    "S3Multipart",
]

_MOST_PARTS: Final = 10_000
_MAX_NAME_CHARACTERS: Final = 255


class S3Multipart:
    """Reads multipart uploads."""

    name = "s3"
    specification = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Return what a request with ``uploadId`` in its query carries."""
        if b"uploadId=" not in connection.scope.get("query_string", b""):
            return None
        query = connection.query
        upload_id = query.get("uploadId")
        if not upload_id:
            return None
        resource = f"{connection.path}?uploadId={upload_id}"
        if connection.method == "PUT":
            return self._part(connection, resource, parse_count(query.get("partNumber")))
        if connection.method == "POST":
            return TransferHead(
                self.name, TransferKind.COMPLETE, resource, is_last=True, carries_bytes=False
            )
        return (
            TransferHead(self.name, TransferKind.ABORT, resource)
            if connection.method == "DELETE"
            else None
        )

    def _part(
        self, connection: Connection, resource: str, number: int | None
    ) -> TransferHead | None:
        if number is None or not 1 <= number <= _MOST_PARTS:
            return None
        decoded = parse_count(connection.header("x-amz-decoded-content-length"))
        announced = parse_count(connection.header("content-length"))
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            resource,
            part=str(number),
            length=announced if decoded is None else decoded,
            filename=connection.path.rstrip("/").rpartition("/")[2][:_MAX_NAME_CHARACTERS] or None,
            is_sequential=False,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return what came of it."""
        del headers
        if not is_success(status):
            return TransferOutcome(TransferResult.REFUSED)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        return TransferOutcome(
            TransferResult.COMPLETED
            if transfer_head.kind is TransferKind.COMPLETE
            else TransferResult.ACCEPTED
        )
