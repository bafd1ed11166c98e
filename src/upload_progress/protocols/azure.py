"""Azure Blob Storage: a blob from blocks, in any order and in parallel.

``PUT ?comp=block&blockid=ID`` carries one block; a block that is sent again replaces the earlier
one. ``PUT ?comp=blocklist`` assembles the blob from the blocks that its body lists. The size of the
blob is not announced. Applications may use the same query parameters: a request is read only if it
has ``x-ms-version``, ``x-ms-blob-type`` or ``x-ms-client-request-id``. Page blobs and append blobs
have no request that completes them: each of their requests is an upload of its own.

Source: https://learn.microsoft.com/rest/api/storageservices/put-block and put-block-list.
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
    part_name,
    refusal,
)
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS, filename_of

__all__ = ["AzureBlocks"]

_AZURE_HEADERS: Final = ("x-ms-version", "x-ms-blob-type", "x-ms-client-request-id")


class AzureBlocks:
    """Protocol of block blobs in Azure Blob Storage.

    >>> query, headers = b"comp=block&blockid=MDE%3D", [(b"x-ms-version", b"2021-08-06")]
    >>> scope = {"type": "http", "method": "PUT", "path": "/container/a.bin", "headers": headers}
    >>> AzureBlocks().read_request(Connection({**scope, "query_string": query})).filename
    'a.bin'
    """

    name = "azure"
    specification = "https://learn.microsoft.com/rest/api/storageservices/put-block"

    required_headers: tuple[str, ...] = _AZURE_HEADERS

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request that carries a block, or assembles the blob from its blocks."""
        is_blocks = b"comp=block" in connection.scope.get("query_string", b"")
        if not is_blocks or connection.method != "PUT":
            return None
        if all(connection.header(name) is None for name in _AZURE_HEADERS):
            return None
        query = connection.query
        block = query.get("blockid")
        if query.get("comp") == "block" and block:
            return TransferHead(
                self.name,
                TransferKind.BYTES,
                connection.path,
                part=part_name(block),
                length=parse_count(connection.header("content-length")),
                filename=filename_of(connection),
                is_sequential=False,
                resource_is_unique=False,
            )
        if query.get("comp") != "blocklist":
            return None
        content_type = connection.header("x-ms-blob-content-type") or ""
        return TransferHead(
            self.name,
            TransferKind.COMPLETE,
            connection.path,
            content_type=truncate_text(content_type, MAX_NAME_CHARACTERS) or None,
            is_last=True,
            is_sequential=False,
            resource_is_unique=False,
            carries_bytes=False,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        del headers
        if not is_success(status):
            return refusal(status)
        return TransferOutcome(
            TransferResult.COMPLETED if transfer_head.is_last else TransferResult.ACCEPTED
        )
