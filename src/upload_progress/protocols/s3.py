"""Amazon S3 multipart upload: numbered parts, in any order and in parallel.

``POST ?uploads`` creates an upload. Its id comes in the body of the response, which is not read
here, so tracking begins with the first part. ``PUT ?partNumber=N&uploadId=ID`` carries part N, from
1 to 10,000; a part that is sent again replaces the earlier one. ``POST ?uploadId=ID`` completes the
upload, ``DELETE ?uploadId=ID`` aborts it. The size of the whole upload is not announced.

Applications use ``uploadId`` for purposes of their own: a ``POST`` is read only if it is signed for
S3, or carries a short XML document. S3 answers 200 to the completion before it has assembled the
parts; if that fails, the body of the response is an ``<Error>``.

A body with chunk signatures (``aws-chunked``) is larger than the part that it contains, whose size
is then in ``x-amz-decoded-content-length``.

Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, AbortMultipartUpload,
and "Signature calculations for the authorization header: transferring payload in chunks".
"""

import re
from collections.abc import Mapping
from typing import Final

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
)
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS, media_type_of

__all__ = ["S3Multipart"]

_MAX_PARTS: Final = 10_000
_MAX_COMPLETION_BYTES: Final = 8 * 1024 * 1024
"""10,000 parts, each with its ETag and checksums, are about 3 MB of XML."""
_XML: Final = frozenset({"application/xml", "text/xml"})
_S3_HEADERS: Final = (b"x-amz-", b"amz-sdk-")
_ERROR_DOCUMENT: Final = re.compile(rb"(?:<\?xml[^>]{0,200}>\s{0,100})?<Error[\s>]")


class S3Multipart:
    """Protocol of Amazon S3 multipart uploads.

    >>> query = b"partNumber=2&uploadId=abc"
    >>> scope = {"type": "http", "method": "PUT", "path": "/bucket/key", "query_string": query}
    >>> S3Multipart().read_request(Connection(scope)).part
    '2'
    """

    name = "s3"
    specification = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request with ``uploadId`` in its query."""
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
            if not _is_completion(connection, query):
                return None
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
        if number is None or not 1 <= number <= _MAX_PARTS:
            return None
        decoded = parse_count(connection.header("x-amz-decoded-content-length"))
        announced = content_length(connection)
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            resource,
            part=str(number),
            length=announced if decoded is None else decoded,
            filename=connection.path.rstrip("/").rpartition("/")[2][:MAX_NAME_CHARACTERS] or None,
            is_sequential=False,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        del headers
        if not is_success(status):
            return refusal(status)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        return TransferOutcome(
            TransferResult.COMPLETED
            if transfer_head.kind is TransferKind.COMPLETE
            else TransferResult.ACCEPTED
        )

    def reads_response_body(self, outcome: TransferOutcome) -> bool:
        """Return whether this is a completion that was answered with success."""
        return outcome.result is TransferResult.COMPLETED

    def read_response_body(self, outcome: TransferOutcome, body: bytes) -> TransferOutcome:
        """Return a rejection if the body of the response to a completion is an error document."""
        is_error = _ERROR_DOCUMENT.match(body) is not None
        return TransferOutcome(TransferResult.REJECTED) if is_error else outcome


def _is_completion(connection: Connection, query: Mapping[str, str]) -> bool:
    """Return whether a ``POST`` with ``uploadId`` is the completion, and no upload of a file."""
    media_type = media_type_of(connection)
    length = content_length(connection) or 0
    if media_type == "multipart/form-data" or length > _MAX_COMPLETION_BYTES:
        return False
    return media_type in _XML or _is_signed(connection, query)


def _is_signed(connection: Connection, query: Mapping[str, str]) -> bool:
    """Return whether a request is signed for S3, or comes from a client for it."""
    if "X-Amz-Signature" in query or "X-Amz-Credential" in query:
        return True
    if (connection.header("authorization") or "").startswith("AWS"):
        return True
    return any(
        bytes(name).lower().startswith(_S3_HEADERS) for name, _ in connection.scope["headers"]
    )
