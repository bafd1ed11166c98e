"""Descriptions of the fields of a snapshot."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["FIELD_DESCRIPTIONS"]

FIELD_DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "upload_id": "The id of the upload, unique within its owner.",
        "group": "The group of uploads to which it belongs; null for none.",
        "sequence": "Grows with every stored change: the higher of two snapshots is newer.",
        "attempt": "From 1; grows when the same id is uploaded again after an end.",
        "state": "The state of the upload.",
        "stage": "While `processing`: the current stage of the processing.",
        "bytes_transferred": "Body bytes received; never decreases within an attempt.",
        "stored_bytes": "Bytes that the application has passed on, as to object storage; null if "
        "it reports nothing. Never more than `bytes_transferred`.",
        "total_bytes": "The announced size; null if it is unknown, never 0 for unknown.",
        "percent": "0 to 100, one decimal, rounded down: 100 only if all bytes are received.",
        "bytes_per_second": "Smoothed rate; null in the first 2 seconds, and after 3 seconds "
        "without a byte.",
        "eta_seconds": "Remaining time at that rate; null if the rate or the size is unknown.",
        "retransmitted_bytes": "Bytes that were received more than once.",
        "parts": "The number of received parts, for an upload in numbered parts.",
        "stalled": "Receiving, but no byte for a while. The upload is not aborted.",
        "arrival": "`buffered`: a proxy held the body back and delivered it at once.",
        "filename": "The file name, as announced or as named by the request.",
        "content_type": "The announced media type, without parameters.",
        "metadata": "Metadata that the client announced or the application set.",
        "created_at": "When the upload was announced, or its first request began.",
        "started_at": "When the request that carries the bytes began.",
        "updated_at": "When this snapshot was taken.",
        "last_byte_at": "When the last byte was received, to the second.",
        "finished_at": "When the upload ended.",
        "error": "Why the upload failed or was cancelled.",
        "links": "Paths to get, stream and cancel the upload.",
        "owner": "The owner; only for operators who look at the uploads of others.",
    }
)
