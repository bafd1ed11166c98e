"""A snapshot of an upload that is being received, as sample data."""

from __future__ import annotations

from upload_progress import UploadProgress, UploadState
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord


def sample_snapshot() -> UploadProgress:
    """Return a snapshot of an upload that is being received."""
    record = TransferRecord(
        owner="benchmark",
        upload_id="upload-0000",
        transfer_id="t",
        attempt=1,
        sequence=1,
        state=UploadState.RECEIVING,
        received_bytes=123_456_789,
        total_bytes=987_654_321,
        bytes_per_second=2_345_678.9,
        filename="archive.tar.gz",
        content_type="application/gzip",
        created_at=1.7e9,
        started_at=1.7e9,
        updated_at=1.7e9 + 60,
        last_byte_at=1.7e9 + 60,
    )
    progress = fold([record], now=1.7e9 + 60)
    assert progress is not None
    return progress
