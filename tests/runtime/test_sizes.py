from __future__ import annotations

import pytest

from upload_progress._runtime.sizes import format_size, parse_size
from upload_progress.exceptions import InvalidValue


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("500k", 500_000), ("2M", 2_000_000), ("1.5G", 1_500_000_000), (" 64KB ", 64_000)],
)
def test_units_are_decimal(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.0001k", "-1", "2 M", "2T", "M", "1e3", "٣", "nan"])
def test_invalid_size_is_rejected(text: str) -> None:
    with pytest.raises(InvalidValue, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_000_000, "2.0 MB"), (5e12, "5000.0 GB")],
)
def test_size_has_a_unit_and_one_decimal(size: float, text: str) -> None:
    assert format_size(size) == text
