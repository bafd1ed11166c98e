"""Validation of descriptions: what a store cannot keep is truncated or rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import JSON_VALUES, TEXTS
from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.validation import MAX_METADATA_DEPTH, validate_metadata
from upload_progress.exceptions import InvalidValue


@given(st.dictionaries(TEXTS, JSON_VALUES, max_size=4))
def test_valid_metadata_is_unchanged(metadata: dict[str, object]) -> None:
    kept = validate_metadata(metadata, "set.metadata", 10**6)

    assert kept == metadata
    record = TransferRecord("a", "u", "t", 1, 1, UploadState.PENDING, metadata=kept)
    assert unpack_record("a", "u", pack_record(record)) == record


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": object()},
        {"a": 2**70},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": "x" * 4096},
        nested(MAX_METADATA_DEPTH),
        nested(100_000),
        {"a": {1, 2}.__iter__()},
        ["a"],
        "a",
    ],
)
def test_invalid_metadata_is_rejected(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=r"set\.metadata"):
        validate_metadata(metadata, "set.metadata", 4096)
