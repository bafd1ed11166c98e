"""Byte ranges of an upload: merging does not depend on order and duplicates."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.byte_ranges import (
    confirmed,
    contiguous_end,
    count_accepted_parts,
    count_bytes,
    merge,
    of_numbered_parts,
    part_size,
    sum_of_part_sizes,
    with_confirmed,
    without_confirmed,
)
from upload_progress._model.models import ByteRange

BYTE_RANGES = st.lists(
    st.builds(
        lambda part, start, size, is_accepted: (part, start, start + size, is_accepted),
        st.sampled_from(["", "1", "2"]),
        st.integers(0, 30),
        st.integers(1, 12),
        st.booleans(),
    ),
    max_size=12,
)


def expand(ranges: Iterable[ByteRange]) -> list[tuple[str, int]]:
    """Return each byte of *ranges*, as its part and its position."""
    return [(part, at) for part, start, stop, _ in ranges for at in range(start, stop)]


@given(BYTE_RANGES, st.randoms(use_true_random=False))
def test_byte_ranges_do_not_depend_on_order_and_duplicates(
    ranges: list[ByteRange], generator: random.Random
) -> None:
    """In any order, repeated, or merged in two steps: the result is the same."""
    shuffled = [*ranges, *generator.sample(ranges, len(ranges) // 2)]
    generator.shuffle(shuffled)
    middle = generator.randrange(len(shuffled) + 1)
    bytes_of = set(expand(ranges))

    assert merge(shuffled) == merge([*merge(shuffled[:middle]), *merge(shuffled[middle:])])
    assert merge(shuffled) == merge(ranges)
    assert count_bytes(shuffled) == len(bytes_of)
    accepted = {(part, at) for part, start, stop, yes in ranges if yes for at in range(start, stop)}
    merged = [
        (part, at, yes) for part, start, stop, yes in merge(shuffled) for at in range(start, stop)
    ]
    assert {(part, at) for part, at, yes in merged if yes} == accepted
    assert len(merged) == len(bytes_of)
    for part in ("", "1", "2"):
        end = contiguous_end(shuffled, part)
        assert all((part, at) in bytes_of for at in range(end))
        assert (part, end) not in bytes_of
    assert count_accepted_parts(ranges) == len(
        {part for part, _, _, accepted in ranges if part and accepted}
    )


def test_bytes_beside_accepted_ones_are_not_accepted() -> None:
    ranges: list[ByteRange] = [("", 0, 10, True), ("", 5, 20, False), ("", 30, 40, False)]

    assert merge(ranges) == (("", 0, 10, True), ("", 10, 20, False), ("", 30, 40, False))
    assert merge([*ranges, ("", 12, 33, True)]) == (
        *(("", 0, 10, True), ("", 10, 12, False)),
        *(("", 12, 33, True), ("", 33, 40, False)),
    )
    assert contiguous_end(ranges) == 20


def test_announced_sizes_of_parts_are_added_up() -> None:
    sizes = [part_size("1", 10), part_size("2", 20), part_size("1", 10)]

    assert sum_of_part_sizes(sizes) == 30
    assert sum_of_part_sizes([("1", 0, 5, True)]) is None
    assert count_bytes(sizes) == 0
    assert of_numbered_parts(sizes) == []


def test_confirmed_range_belongs_to_its_part() -> None:
    received: ByteRange = ("1", 0, 5, False)
    ranges = [received, confirmed("1", 8)]

    assert without_confirmed(ranges) == [received]
    assert count_bytes(with_confirmed(ranges)) == 8
    assert count_accepted_parts(with_confirmed(ranges)) == 1
