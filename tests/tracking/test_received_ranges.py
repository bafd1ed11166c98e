"""Received and accepted bytes, compared with plain sets of bytes."""

from __future__ import annotations

import cProfile
from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.byte_ranges import (
    count_accepted,
    count_bytes,
    part_accepted_at,
    with_confirmed,
)
from upload_progress._model.models import ByteRange
from upload_progress._tracking.requests import received_ranges as module
from upload_progress._tracking.requests.received_ranges import ReceivedRanges

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["accept", "receive", "confirm", "accept_until", "store", "size"]),
        st.sampled_from(["", ".a"]),
        st.integers(0, 40),
        st.integers(0, 12),
    ),
    max_size=15,
)


@define
class Model:
    """The bytes of one part, one by one."""

    received: set[int] = field(factory=set)
    accepted: set[int] = field(factory=set)
    confirmed: int = 0
    end: int | None = None

    @property
    def known(self) -> set[int]:
        return self.received | set(range(self.confirmed))


def end_of(known: set[int]) -> int:
    return next(at for at in range(100) if at not in known)


@given(STEPS)
def test_ranges_are_sets_of_bytes(steps: list[tuple[str, str, int, int]]) -> None:
    ranges, models = ReceivedRanges(), {"": Model(), ".a": Model()}
    sizes = dict[str, int]()
    for step, part, start, size in steps:
        model, stop = models[part], start + size
        if step in {"accept", "receive"}:
            changed = set(range(start, stop))
            is_accepted = step == "accept"
            gained = ranges.add(part, start, stop, is_accepted=is_accepted)
            assert gained == len(changed - model.received)
            model.received |= changed
            model.accepted |= changed if is_accepted else set()
        elif step == "confirm":
            ranges.confirm(part, start)
            model.confirmed = max(model.confirmed, start)
        elif step == "accept_until":
            ranges.accept_until(part, start)
            model.received &= set(range(start))
            model.accepted &= set(range(start))
            model.confirmed = min(model.confirmed, start)
        elif step == "size":
            ranges.add_part_size(part, start)
            sizes[part] = start
        else:
            stored = ReceivedRanges()
            stored.load(ranges.entries(), ranges.confirmed_bytes)
            assert stored.entries() == ranges.entries()
            ranges = stored

    assert ranges.total_bytes == sum(len(model.known) for model in models.values())
    accepted = [model.accepted | set(range(model.confirmed)) for model in models.values()]
    assert ranges.accepted_bytes == sum(map(len, accepted))
    assert ranges.sum_of_part_sizes == (sum(sizes.values()) if sizes else None)
    assert dict(ranges.part_sizes()) == sizes
    for (part, model), known in zip(models.items(), accepted, strict=True):
        assert ranges.end_of(part) == end_of(model.known)
        assert ranges.accepted_end_of(part) == end_of(known)
    entries = with_confirmed([*ranges.entries(), ("", 0, ranges.confirmed_bytes, True)])
    assert count_bytes(entries) == ranges.total_bytes
    assert count_accepted(entries) == ranges.accepted_bytes
    arriving: list[ByteRange] = [("", 5, 20, False), ("", 18, 30, False), ("new", 0, 5, False)]
    assert ranges.count_with(arriving) == count_bytes([*entries, *arriving])


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 50), st.booleans())))
def test_numbered_part_that_is_sent_again_replaces_the_earlier_one(
    parts: list[tuple[int, int, bool]],
) -> None:
    ranges, sizes = ReceivedRanges(), dict[int, int]()
    for number, size, is_accepted in parts:
        ranges.add(str(number), 0, size, is_accepted=is_accepted)
        if is_accepted:
            sizes[number] = size
    assert ranges.total_bytes == ranges.accepted_bytes == sum(sizes.values())
    assert all(ranges.has_number(str(number)) for number in sizes)
    assert bool(ranges) is bool(sizes)

    stored = ReceivedRanges()
    stored.load(ranges.entries(), 0)
    assert count_bytes(stored.entries()) == sum(sizes.values())
    for number, size in sizes.items():
        stored.add(str(number), 0, size, is_accepted=True)
    assert count_bytes(stored.entries()) == sum(sizes.values())


@pytest.mark.parametrize("single_parts", [0, 50])
@pytest.mark.parametrize("is_loaded_first", [True, False])
def test_part_that_is_sent_again_replaces_the_stored_one(
    single_parts: int, is_loaded_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SINGLE_PARTS", single_parts)
    stored, ranges = ReceivedRanges(), ReceivedRanges()
    for number in (1, 2):
        stored.add(str(number), 0, 10, is_accepted=True)
    if is_loaded_first:
        ranges.load(stored.entries(), 0)
    ranges.add("1", 0, 80, is_accepted=True)
    if not is_loaded_first:
        ranges.load(stored.entries(), 0)

    assert ranges.total_bytes == ranges.accepted_bytes == count_bytes(ranges.entries()) == 90


@pytest.mark.parametrize("single_parts", [1, 50])
def test_part_that_was_accepted_before_replaces_none(
    single_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SINGLE_PARTS", single_parts)
    ranges, stored = ReceivedRanges(), ReceivedRanges()
    assert ranges.add("1", 0, 10, is_accepted=True, microseconds=2000) == 10
    assert ranges.add("1", 0, 80, is_accepted=True, microseconds=1000) == 0
    assert ranges.add("2", 0, 5, is_accepted=True, microseconds=3000) == 5
    stored.load(ranges.entries(), 0)
    stored.load([part_accepted_at(2, 70, 2500), part_accepted_at(2, 6, 3500)], 0)

    assert ranges.total_bytes == count_bytes(ranges.entries()) == 15
    assert stored.total_bytes == count_bytes(stored.entries()) == 16


def test_older_responses_do_not_remove_bytes() -> None:
    ranges = ReceivedRanges()
    ranges.accept_until("", 5)
    ranges.forget_ends()
    ranges.load([("", 0, 9, True)], 0)

    assert ranges.entries() == (("", 0, 9, True),)


def test_confirmed_part_has_at_least_that_size() -> None:
    ranges = ReceivedRanges()
    ranges.add("1", 0, 5, is_accepted=True)
    ranges.confirm("1", 20)
    ranges.confirm("1", 10)

    assert ranges.total_bytes == 20
    assert ranges.count_with([("1", 0, 30, False), ("2", 0, 7, False)]) == 27


def test_bytes_to_be_dropped_may_be_loaded_later() -> None:
    ranges = ReceivedRanges()
    ranges.accept_until("", 5)
    ranges.load([("", 0, 9, False)], 0)

    assert ranges.entries() == (("", 0, 5, False),)


def test_number_of_ranges_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RANGES", 10)
    ranges = ReceivedRanges()
    for number in range(30):
        ranges.add("", 10 * number, 10 * number + 5, is_accepted=True)
        ranges.add(f".{number}", 0, 5, is_accepted=True)
        ranges.confirm(f".more-{number}", 5)
        ranges.add_part_size(f".size-{number}", 5)
    assert len(ranges.entries()) <= 11

    # What touches a known range is counted.
    assert ranges.add("", 0, 8, is_accepted=True) == 3


def count_calls(work: Callable[[], object]) -> int:
    """Return how many Python functions *work* calls."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize(
    ("part", "distance"), [("", 10), ("", 20), (".a", 10), (None, 10)], ids=str
)
def test_ten_thousandth_piece_costs_as_much_as_the_first(part: str | None, distance: int) -> None:
    """Also with gaps between the pieces, and for numbered parts."""
    ranges = ReceivedRanges()

    def add(number: int) -> None:
        start = distance * number if part is not None else 0
        name = part if part is not None else str(number)
        ranges.add(name, start, start + 10, is_accepted=True)
        ranges.count_with([(name, start, start + 10, False)])

    add(1)
    second = count_calls(lambda: add(2))
    for number in range(3, 10_000):
        add(number)
    last = count_calls(lambda: add(10_000))
    assert last <= second + 5
    assert sum(len(entry[0]) for entry in ranges.entries()) < 3000
