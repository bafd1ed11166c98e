"""How fast, how long still: the clock is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.rate import (
    HALF_LIFE_SECONDS,
    MINIMUM_SECONDS,
    RateEstimate,
    eta_seconds,
)


def steady(rate: float, seconds: float, step: float) -> RateEstimate:
    estimate = RateEstimate(0.0)
    for number in range(1, round(seconds / step) + 1):
        estimate = estimate.observe(number * step, int(rate * number * step))
    return estimate


def test_nothing_is_claimed_before_two_seconds() -> None:
    assert steady(100, MINIMUM_SECONDS - 0.5, 0.5).bytes_per_second is None
    assert steady(100, MINIMUM_SECONDS, 0.5).bytes_per_second == pytest.approx(100)


@given(st.floats(1000, 10**9), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_a_steady_line_is_shown_as_it_is_however_often_it_is_looked_at(
    rate: float, step: float
) -> None:
    assert steady(rate, 12, step).bytes_per_second == pytest.approx(rate, rel=0.01)


def test_after_one_half_life_half_of_a_change_is_seen() -> None:
    estimate = steady(1000, 60, 1.0)
    later = estimate.observe(60 + HALF_LIFE_SECONDS, estimate.at_bytes)

    assert later.bytes_per_second == pytest.approx(500, rel=0.01)


def test_what_was_there_at_the_start_is_no_speed() -> None:
    estimate = RateEstimate(0.0, at_bytes=10**9).observe(5.0, 10**9 + 50)

    assert estimate.bytes_per_second == pytest.approx(10)


@pytest.mark.parametrize("now", [-1.0, 0.0])
def test_time_that_stands_still_changes_nothing(now: float) -> None:
    estimate = RateEstimate(0.0)

    assert estimate.observe(now, 500) is estimate


def test_eta() -> None:
    assert eta_seconds(100, 8.0) == 12.5
    assert eta_seconds(0, 8.0) == 0.0
    assert eta_seconds(-5, 8.0) == 0.0
    assert eta_seconds(None, 8.0) is None
    assert eta_seconds(100, None) is None
    assert eta_seconds(100, 0.0) is None
