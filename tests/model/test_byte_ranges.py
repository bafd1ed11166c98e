"""Byte ranges of an upload: counting does not depend on order and duplicates."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.byte_ranges import (
    MAX_PART_NUMBER,
    accepted_end,
    confirmed,
    contiguous_end,
    count_accepted,
    count_accepted_parts,
    count_bytes,
    has_numbered_parts,
    of_numbered_parts,
    part_accepted_at,
    part_number,
    part_set,
    part_size,
    read_part_set,
    sum_of_part_sizes,
    unnamed_part,
    with_confirmed,
    without_confirmed,
)
from upload_progress._model.models import ByteRange

BYTE_RANGES = st.lists(
    st.builds(
        lambda part, start, size, is_accepted: (part, start, start + size, is_accepted),
        st.sampled_from(["", "a", "b"]),
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
    shuffled = [*ranges, *generator.sample(ranges, len(ranges) // 2)]
    generator.shuffle(shuffled)
    bytes_of = set(expand(ranges))

    assert count_bytes(shuffled) == len(bytes_of)
    assert count_accepted(shuffled) == len(set(expand(each for each in ranges if each[3])))
    for part in ("", "a", "b"):
        end = contiguous_end(shuffled, part)
        assert all((part, at) in bytes_of for at in range(end))
        assert (part, end) not in bytes_of
    assert count_accepted_parts(ranges) == len(
        {part for part, _, _, accepted in ranges if part and accepted}
    )


@given(st.lists(st.sets(st.integers(1, MAX_PART_NUMBER)), max_size=3))
def test_part_that_two_workers_have_is_counted_once(workers: list[set[int]]) -> None:
    ranges = [part_set(sum(1 << each for each in numbers), 7 * len(numbers)) for numbers in workers]
    numbers = set[int]().union(*workers)

    assert count_bytes(ranges) == 7 * len(numbers)
    assert count_accepted_parts(ranges) == len(numbers)
    assert [read_part_set(each) for each in ranges] == [int(each[0][1:], 16) for each in ranges]


def test_newest_part_of_several_workers_counts() -> None:
    older, newer = part_accepted_at(1, 8, 1000), part_accepted_at(1, 3, 2000)
    other = part_accepted_at(2, 5, 1500)

    for ranges in permutations([older, newer, other, ("1", 0, 9, False)]):
        assert count_bytes(ranges) == count_accepted(ranges) == 8
        assert count_accepted_parts(ranges) == 2
        assert accepted_end(ranges) == 8
    assert has_numbered_parts([newer])
    assert of_numbered_parts([newer]) == []


def test_part_with_a_time_counts_before_those_in_a_set() -> None:
    assert count_bytes([part_set(0b110, 20), part_accepted_at(1, 3, 1000)]) == 13


def test_part_in_progress_is_counted_unless_it_was_accepted_before() -> None:
    known = part_set(1 << 2, 10)

    assert count_bytes([known, ("2", 0, 5, False)]) == 10
    assert count_bytes([known, ("3", 0, 5, False)]) == 15
    assert has_numbered_parts([known])
    assert has_numbered_parts([("a", 0, 5, False)])
    assert not has_numbered_parts([("", 0, 5, False), ("~a", 5, 5, False), (".a", 0, 1, True)])


@pytest.mark.parametrize("part", ["", "0", "01", "10001", "100000", "a", "²", "1.", "+1"])
def test_name_that_is_no_part_number(part: str) -> None:
    assert part_number(part) is None
    assert part_number("10000") == MAX_PART_NUMBER


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


def test_bytes_of_a_part_without_an_address_are_those_of_the_only_other_part() -> None:
    """A worker has stored a creation with bytes before the response told where to go on."""
    created = (unnamed_part(".x"), 0, 8, False)
    continued = (".a", 0, 16, True)

    assert count_bytes([created]) == 8
    assert count_bytes([created, continued]) == 16
    assert count_bytes([created, continued, (".b", 0, 4, True)]) == 28
