"""The timing wheel, against a list that is sorted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upload_progress._runtime.timing_wheel import TimingWheel


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3)), max_size=40), st.integers(1, 5))
def test_each_item_comes_once_and_never_early(items: list[tuple[float, float]], limit: int) -> None:
    wheel: TimingWheel[tuple[int, float]] = TimingWheel(0.1)
    now, taken = 0.0, []
    for number, (delay, step) in enumerate(items):
        wheel.add((number, now + delay), now + delay)
        now += step
        while batch := list(wheel.take(now, limit)):
            assert len(batch) <= limit
            assert all(at <= now for _, at in batch)
            taken += batch
        assert len(wheel) == number + 1 - len(taken)
    taken += wheel.take(now + 60, 1000)

    assert sorted(number for number, _ in taken) == list(range(len(items)))
    assert len(wheel) == 0


def test_item_added_while_taking_is_kept() -> None:
    wheel: TimingWheel[str] = TimingWheel(1.0)
    wheel.add("a", 5.0)
    taken = []
    for item in wheel.take(10.0, 9):
        taken.append(item)
        if len(taken) == 1:
            wheel.add("late", 1.0)
            wheel.add("later", 20.0)
    taken += wheel.take(30.0, 9)

    assert sorted(taken) == ["a", "late", "later"]
