"""Validation of descriptions: what a store cannot keep is truncated or rejected."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import JSON_VALUES, TEXTS
from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.validation import (
    MAX_COUNT,
    MAX_METADATA_DEPTH,
    MAX_TEXT_CHARACTERS,
    validate_count,
    validate_description,
    validate_metadata,
)
from upload_progress.exceptions import InvalidValue


@given(st.dictionaries(TEXTS, JSON_VALUES, max_size=4))
def test_valid_metadata_is_unchanged(metadata: dict[str, object]) -> None:
    kept = validate_metadata(metadata, "set.metadata", 10**6)

    assert kept == metadata
    record = TransferRecord("a", "u", "t", 1, 1, UploadState.PENDING, metadata=kept)
    assert unpack_record("a", "u", pack_record(record)) == record


def test_values_that_equal_their_json_are_kept() -> None:
    class Color(StrEnum):
        RED = "red"

    metadata = MappingProxyType({"color": Color.RED, "pair": (1, 2.5), "none": None})

    assert validate_metadata(metadata, "set.metadata", 4096) == {
        "color": "red",
        "pair": [1, 2.5],
        "none": None,
    }


class Text(str):
    __slots__ = ()


REFUSED = [
    ({"a": math.nan}, r"set\.metadata\.a: .*nan.*use None"),
    ({"a": {"b": [0, -math.inf]}}, r"set\.metadata\.a\.b\[1\]: .*inf.*use None"),
    ({"a": b"x"}, r"set\.metadata\.a: .*bytes.*Base64"),
    ({"a": bytearray(b"x")}, r"set\.metadata\.a: .*bytearray.*Base64"),
    ({"a": {1}}, r"set\.metadata\.a: .*set.*use a list"),
    ({"a": frozenset({1})}, r"set\.metadata\.a: .*frozenset.*use a list"),
    ({1: "x"}, r"set\.metadata: .*key 1.*use '1'"),
    ({"a": {None: 1}}, r"set\.metadata\.a: .*key None.*use 'None'"),
    ({"a": datetime.now(UTC)}, r"set\.metadata\.a: .*datetime.*isoformat"),
    ({"a": UUID(int=1)}, r"set\.metadata\.a: .*UUID.*use str\(\)"),
    ({"a": Decimal("1.5")}, r"set\.metadata\.a: .*Decimal.*use str\(\) or float\(\)"),
    ({"a": Text("x")}, r"set\.metadata\.a: .*Text.*use str\(\)"),
    ({"a": MappingProxyType({})}, r"set\.metadata\.a: .*mappingproxy.*use dict\(\)"),
    ({"a": object()}, r"set\.metadata\.a: .*object.*use a str"),
    ({"a": 1 << 64}, r"set\.metadata\.a: .*64 bits: use a str"),
    ({"a": "\ud800"}, r"set\.metadata\.a: .*surrogate"),
    ({"\ud800": 1}, r"set\.metadata: .*surrogate"),
    ({"k" * 500: math.nan}, r"^set\.metadata\.k{64}: "),
]


@pytest.mark.parametrize(("metadata", "message"), REFUSED)
def test_error_names_the_key_and_the_fix(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        validate_metadata(metadata, "set.metadata", 4096)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_bytes", -1),
        ("total_bytes", MAX_COUNT + 1),
        ("total_bytes", 1.5),
        ("filename", 5),
        ("content_type", b"text/plain"),
        ("group", ""),
        ("group", "x" * 129),
        ("group", "\ud800"),
        ("metadata", {"k": "x" * 5000}),
    ],
)
def test_invalid_description_is_rejected_with_its_place(name: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=rf"^body\.{name}: "):
        validate_description("body", 4096, {name: value})  # type: ignore[misc]  # invalid


@given(TEXTS)
def test_names_are_truncated(text: str) -> None:
    description = validate_description(
        "body", 4096, {"filename": text * 50, "content_type": text, "group": None}
    )

    assert description["filename"] == (text * 50)[:MAX_TEXT_CHARACTERS]
    assert description["content_type"] == text
    assert (description["group"], description["total_bytes"]) == (None, None)


@given(st.integers(0, MAX_COUNT) | st.booleans())
def test_valid_count_is_a_plain_int(value: int) -> None:
    assert validate_count("size", value) == value
    assert type(validate_count("size", value)) is int
