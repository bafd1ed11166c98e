"""Ids, truncated texts, and the immutability of records."""

from __future__ import annotations

import string

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.models import (
    RESERVED_IDS,
    TransferRecord,
    UploadKey,
    UploadState,
    is_upload_id,
    new_transfer_id,
    new_upload_id,
    truncate_text,
)

UNRESERVED = string.ascii_letters + string.digits + "._~-"


@given(st.text(UNRESERVED, min_size=1, max_size=128))
def test_upload_id_consists_of_unreserved_characters(text: str) -> None:
    assert is_upload_id(text) == (text not in RESERVED_IDS | {".", ".."})


@given(st.text(max_size=200))
def test_other_text_is_not_an_upload_id(text: str) -> None:
    if not text or len(text) > 128 or set(text) - set(UNRESERVED):
        assert not is_upload_id(text)


@pytest.mark.parametrize(
    "text",
    [
        *sorted(RESERVED_IDS),
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a b",
        "a\n",
        "a\r\nb",
        "a\0",
        "a%2e",
        "ä",
        "\u0660",
        "\u202ea",
        "\ud800",
        "\U0001f600",
        "a" * 129,
        "a" * 10_000,
    ],
)
def test_invalid_upload_id(text: str) -> None:
    assert not is_upload_id(text)


def test_new_ids_have_128_random_bits() -> None:
    """They contain no counter and no time."""
    ids = {new_upload_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(is_upload_id(each) and len(each) == 22 for each in ids)
    assert len({each[:4] for each in ids}) > 900
    assert len({new_transfer_id() for _ in range(1000)}) == 1000


@given(st.text(st.characters(codec=None), max_size=50), st.integers(0, 60))
def test_truncated_text_is_short_and_encodable(text: str, characters: int) -> None:
    truncated = truncate_text(text, characters)

    assert len(truncated) == min(len(text), characters)
    assert truncated.encode("utf-8").decode("utf-8") == truncated


def test_records_are_immutable() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.PENDING)

    assert record.key == UploadKey("ann", "up") < UploadKey("bob", "a")
    with pytest.raises(FrozenInstanceError):
        record.sequence = 2  # type: ignore[misc]  # invalid
