"""Backoff: delays grow to a maximum, are jittered, and start over after a reset."""

from __future__ import annotations

import pytest

from upload_progress._runtime.backoff import Backoff
from upload_progress.exceptions import InvalidValue


def without_jitter() -> float:
    """Return the number that leaves delays as they are."""
    return 1.0


def test_delay_doubles_up_to_maximum() -> None:
    """Each delay is twice the one before, and none exceeds the maximum."""
    backoff = Backoff(first_seconds=0.25, maximum_seconds=3.0, random=without_jitter)

    delays = [backoff.next_delay_seconds() for _ in range(6)]

    assert delays == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_reset_starts_with_first_delay() -> None:
    """After a success the next failure waits as little as the first one."""
    backoff = Backoff(first_seconds=0.25, maximum_seconds=3.0, random=without_jitter)
    has_failed = [backoff.has_failed]
    backoff.next_delay_seconds()
    backoff.next_delay_seconds()
    has_failed.append(backoff.has_failed)

    backoff.reset()

    assert [*has_failed, backoff.has_failed] == [False, True, False]
    assert backoff.next_delay_seconds() == 0.25


@pytest.mark.parametrize(("number", "delay_seconds"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_shortens_delay_by_half_at_most(number: float, delay_seconds: float) -> None:
    """The random factor is between 0.5 and 1.0."""
    backoff = Backoff(first_seconds=1.0, maximum_seconds=3.0, random=lambda: number)

    assert backoff.next_delay_seconds() == delay_seconds


def test_jitter_does_not_accumulate() -> None:
    """The next delay is computed from the delay before jitter."""
    backoff = Backoff(first_seconds=1.0, maximum_seconds=8.0, random=lambda: 0.0)

    assert [backoff.next_delay_seconds() for _ in range(4)] == [0.5, 1.0, 2.0, 4.0]


def test_default_jitter_is_random() -> None:
    """Two workers that fail together do not wait equally long."""
    delays = {
        Backoff(first_seconds=1.0, maximum_seconds=1.0).next_delay_seconds() for _ in range(20)
    }

    assert len(delays) > 1
    assert all(0.5 <= delay_seconds <= 1.0 for delay_seconds in delays)


def test_first_delay_above_maximum_is_reduced_to_it() -> None:
    """The maximum holds for every delay."""
    backoff = Backoff(first_seconds=9.0, maximum_seconds=2.0, random=without_jitter)

    assert backoff.next_delay_seconds() == 2.0


@pytest.mark.parametrize(("first", "maximum"), [(0.0, 1.0), (1.0, -1.0)])
def test_delay_that_is_not_positive_is_rejected(first: float, maximum: float) -> None:
    """A loop without a delay would use all of a processor."""
    with pytest.raises(InvalidValue, match="must be greater than 0"):
        Backoff(first_seconds=first, maximum_seconds=maximum)
