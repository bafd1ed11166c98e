"""Strategies of hypothesis for records."""

from __future__ import annotations

from hypothesis import strategies as st

from upload_progress._model.fold import fold
from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    Stage,
    TransferRecord,
    UploadError,
    UploadProgress,
    UploadState,
)

__all__ = ["JSON_VALUES", "RECORDS", "TEXTS", "snapshot_of"]

TEXTS = st.text(max_size=20)
_COUNTS = st.integers(0, 2**53 - 1)
_TIMES = st.integers(0, 2**32).map(float)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.builds(
    TransferRecord,
    owner=TEXTS,
    upload_id=TEXTS,
    transfer_id=TEXTS,
    attempt=_COUNTS,
    sequence=_COUNTS,
    state=st.sampled_from(UploadState),
    received_bytes=_COUNTS,
    total_bytes=st.none() | _COUNTS,
    bytes_per_second=st.none() | st.floats(0, 1e12),
    stalled=st.booleans(),
    arrival=st.none() | st.sampled_from(Arrival),
    stage=st.none() | st.builds(Stage, TEXTS, _COUNTS, st.none() | _COUNTS),
    error=st.none()
    | st.builds(UploadError, st.sampled_from(ErrorCode), TEXTS, st.none() | st.integers(100, 599)),
    group=st.none() | TEXTS,
    filename=st.none() | TEXTS,
    content_type=st.none() | TEXTS,
    metadata=st.none() | st.dictionaries(TEXTS, JSON_VALUES, max_size=3),
    created_at=_TIMES,
    started_at=st.none() | _TIMES,
    updated_at=_TIMES,
    last_byte_at=st.none() | _TIMES,
    finished_at=st.none() | _TIMES,
    worker=st.none() | TEXTS,
)


def snapshot_of(record: TransferRecord) -> UploadProgress:
    """Return the snapshot of an upload with one record."""
    progress = fold([record], now=0.0)
    assert progress is not None
    return progress
