"""Intervals: compared with a plain set of bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.intervals import Intervals

BOUNDS = st.tuples(st.integers(0, 40), st.integers(-2, 12))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), BOUNDS), max_size=20)


@given(STEPS, BOUNDS)
def test_intervals_are_a_set_of_bytes(
    steps: list[tuple[str, tuple[int, int]]], looked_at: tuple[int, int]
) -> None:
    known, model = Intervals(), set[int]()
    for step, (start, size) in steps:
        changed = set(range(start, start + size))
        if step == "add":
            assert known.add(start, start + size) == len(changed - model)
            model |= changed
        else:
            known.remove(start, start + size)
            model -= changed
        assert known.total_bytes == len(model)

    pairs = list(known)
    assert {at for start, stop in pairs for at in range(start, stop)} == model
    assert all(left[1] < right[0] for left, right in pairwise(pairs))
    assert len(known) == len(pairs)

    start, stop = looked_at[0], looked_at[0] + looked_at[1]
    within = model & set(range(start, stop))
    assert known.count_within(start, stop) == len(within)
    cut = known.between(start, stop) if start < stop else []
    assert {at for left, right in cut for at in range(left, right)} == within
    assert known.touches(start, start) == bool({start, start - 1} & model)
    end = start
    while end in model:
        end += 1
    assert known.end_from(start) == end
