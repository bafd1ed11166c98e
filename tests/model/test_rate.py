"""The smoothed rate, and the remaining time."""

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


def observe_constant_rate(rate: float, seconds: float, step: float) -> RateEstimate:
    estimate = RateEstimate(0.0)
    for number in range(1, round(seconds / step) + 1):
        estimate = estimate.observe(number * step, int(rate * number * step))
    return estimate


def test_rate_is_unknown_in_the_first_two_seconds() -> None:
    assert observe_constant_rate(100, MINIMUM_SECONDS - 0.5, 0.5).bytes_per_second is None
    assert observe_constant_rate(100, MINIMUM_SECONDS, 0.5).bytes_per_second == pytest.approx(100)


@given(st.floats(1000, 10**9), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_constant_rate_is_exact_at_any_interval(rate: float, step: float) -> None:
    assert observe_constant_rate(rate, 12, step).bytes_per_second == pytest.approx(rate, rel=0.01)


def test_half_of_a_change_is_shown_after_one_half_life() -> None:
    estimate = observe_constant_rate(1000, 60, 1.0)
    later = estimate.observe(60 + HALF_LIFE_SECONDS, estimate.at_bytes)

    assert later.bytes_per_second == pytest.approx(500, rel=0.01)


def test_bytes_received_before_the_start_do_not_count() -> None:
    estimate = RateEstimate(0.0, at_bytes=10**9).observe(5.0, 10**9 + 50)

    assert estimate.bytes_per_second == pytest.approx(10)


@pytest.mark.parametrize("now", [-1.0, 0.0])
def test_observation_at_the_same_time_changes_nothing(now: float) -> None:
    estimate = RateEstimate(0.0)

    assert estimate.observe(now, 500) is estimate


def test_remaining_time() -> None:
    assert eta_seconds(100, 8.0) == 12.5
    assert eta_seconds(0, 8.0) == 0.0
    assert eta_seconds(-5, 8.0) == 0.0
    assert eta_seconds(None, 8.0) is None
    assert eta_seconds(100, None) is None
    assert eta_seconds(100, 0.0) is None
