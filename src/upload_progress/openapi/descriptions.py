"""What each field of a snapshot means, for people who read the documents."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "MEANINGS",
]

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "upload_id": "The name of the upload, in its owner's namespace.",
        "group": "What it belongs to together with others; null for none.",
        "sequence": "Grows with every stored change: of two snapshots the higher is newer.",
        "attempt": "From 1; grows when the same id is uploaded again after an end.",
        "state": "Where it stands.",
        "stage": "While `processing`: what the application does with it.",
        "bytes_transferred": "Body bytes received; never falls within an attempt.",
        "total_bytes": "The announced size; null where it is unknown, never 0 for that.",
        "percent": "0 to 100, one decimal, rounded down: 100 only when every byte is here.",
        "bytes_per_second": "Smoothed; null in the first 2 seconds, and when stalled.",
        "eta_seconds": "What is left, at that rate; null where it cannot be known.",
        "retransmitted_bytes": "Bytes that came more than once.",
        "parts": "How many parts are here, of an upload that comes in parts.",
        "stalled": "Receiving, and no byte for a while. A report: nothing is aborted.",
        "arrival": "`buffered`: a proxy held the body back, so progress came in one gulp.",
        "filename": "As announced, or as the request says.",
        "content_type": "As announced, without parameters.",
        "metadata": "What the client announced, or the application set.",
        "created_at": "When it was announced, or its request came.",
        "started_at": "When the request that carries it came.",
        "updated_at": "When this snapshot was true.",
        "last_byte_at": "When its newest byte came, to the second.",
        "finished_at": "When it ended.",
        "error": "Why it failed or was cancelled.",
        "links": "Where to ask, listen and cancel.",
    }
)
