"""OCI distribution: the push of a blob to a container registry.

``POST .../blobs/uploads/`` opens an upload session and answers 202 with its ``Location``. The query
of that address may change with each response; its path stays. ``PATCH`` appends bytes, at the
position given by ``Content-Range: FIRST-LAST`` if present. ``PUT ?digest=`` closes the session,
with or without last bytes; the blob exists when it answers 201. The size is not announced.
``POST ?digest=`` carries the whole blob (201), unless the registry answers with a session (202).
``POST ?mount=`` carries no bytes; 201 means that the blob exists already. The digest is the name.

Source: https://github.com/opencontainers/distribution-spec, "Pushing blobs".
"""

from collections.abc import Mapping
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
    refusal,
    resolve_path,
)
from upload_progress.protocols.content_range import end_of_range, read_range
from upload_progress.protocols.request_head import MAX_NAME_CHARACTERS

__all__ = ["Oci"]

_CREATED: Final = 201
_DENIED: Final = (403,)
"""A client asks for a token after 401, and stops after 403 (error code ``DENIED``)."""


class Oci:
    """Protocol of the OCI Distribution Specification for pushing blobs.

    >>> scope = {"type": "http", "method": "PATCH", "path": "/v2/shop/blobs/uploads/1"}
    >>> Oci().read_request(Connection(scope)).resource
    '/v2/shop/blobs/uploads/1'
    """

    name = "oci"
    specification = "https://github.com/opencontainers/distribution-spec/blob/main/spec.md"

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe a request that opens, continues, closes or cancels an upload session."""
        repository, found, session = connection.path.rpartition("/blobs/uploads/")
        if not found:
            return None
        _, is_registry, name = repository.partition("/v2/")
        if not (is_registry and name) or "/" in session:
            return None
        if connection.method == "POST":
            return None if session else self._creation(connection)
        return self._step(connection) if session else None

    def _creation(self, connection: Connection) -> TransferHead:
        query = connection.query
        is_whole = "digest" in query and "mount" not in query
        length = content_length(connection)
        return TransferHead(
            self.name,
            TransferKind.CREATE,
            length=length,
            total_bytes=length if is_whole else None,
            filename=_digest(query) if is_whole else None,
            is_last=is_whole,
            carries_bytes=is_whole,
            request_path=connection.path,
        )

    def _step(self, connection: Connection) -> TransferHead | None:
        if connection.method == "DELETE":
            return TransferHead(self.name, TransferKind.ABORT, connection.path)
        if connection.method not in {"PATCH", "PUT"}:
            return None
        found = read_range(connection.header("content-range"))
        is_last = connection.method == "PUT"
        return TransferHead(
            self.name,
            TransferKind.BYTES,
            connection.path,
            offset=None if found is None else found[0],
            length=content_length(connection),
            filename=_digest(connection.query) if is_last else None,
            is_last=is_last,
        )

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer, see `TransferProtocol.read_response`."""
        if not is_success(status):
            return refusal(status, final=_DENIED)
        if transfer_head.kind is TransferKind.ABORT:
            return TransferOutcome(TransferResult.ABORTED)
        if transfer_head.kind is TransferKind.CREATE:
            return self._created(transfer_head, status, headers)
        if transfer_head.is_last:
            return TransferOutcome(TransferResult.COMPLETED)
        return TransferOutcome(TransferResult.ACCEPTED, offset=end_of_range(headers.get("range")))

    def _created(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        if status == _CREATED:
            return TransferOutcome(
                TransferResult.COMPLETED if transfer_head.is_last else TransferResult.NOTHING
            )
        resource = resolve_path(headers.get("location"), transfer_head.request_path)
        return TransferOutcome(
            # A registry that opens a session has not taken the bytes of a whole blob.
            TransferResult.CREATED if resource else TransferResult.NOTHING,
            resource,
            offset=0 if transfer_head.carries_bytes else None,
        )


def _digest(query: Mapping[str, str]) -> str | None:
    return truncate_text(query.get("digest", ""), MAX_NAME_CHARACTERS) or None
