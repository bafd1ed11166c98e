"""Throttling: when a report is due by each policy and their combinations, and the meter."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress.exceptions import InvalidValue
from upload_progress.throttling import (
    DEFAULT_POLICY,
    NEVER,
    ByTotal,
    EveryBytes,
    EveryInterval,
    EveryPercent,
    Gate,
    Meter,
    ThrottlePolicy,
)

policies = st.recursive(
    st.builds(EveryPercent, st.integers(1, 100) | st.floats(0.5, 100))
    | st.builds(EveryBytes, st.integers(1, 10**6))
    | st.builds(EveryInterval, st.floats(0.1, 10)),
    lambda inner: (
        st.builds(lambda a, b: a | b, inner, inner)
        | st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(ByTotal, known=inner, unknown=inner)
    ),
    max_leaves=4,
)
totals = st.none() | st.integers(0, 10**7)


def is_due(gates: tuple[Gate, ...], received: int, seconds: float) -> bool:
    return any(received >= gate.at_bytes and seconds >= gate.after_seconds for gate in gates)


@given(policies, policies, st.integers(0, 10**6), totals, st.integers(0, 10**7), st.floats(0, 20))
def test_combined_policy_is_due_if_any_or_all_are(  # noqa: PLR0917  # drawn by hypothesis
    left: ThrottlePolicy,
    right: ThrottlePolicy,
    at: int,
    total: int | None,
    received: int,
    seconds: float,
) -> None:
    a = is_due(left.gates(at, total), received, seconds)
    b = is_due(right.gates(at, total), received, seconds)

    assert is_due((left | right).gates(at, total), received, seconds) == (a or b)
    assert is_due((left & right).gates(at, total), received, seconds) == (a and b)


@given(policies, totals, st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 3)), max_size=30))
def test_meter_is_due_exactly_when_a_gate_is_reached(
    policy: ThrottlePolicy, total: int | None, steps: list[tuple[int, float]]
) -> None:
    meter = Meter(policy, total)
    meter.rearm()
    gates, silent_seconds = policy.gates(0, total), 0.0
    for size, seconds in steps:
        silent_seconds += seconds
        by_time = meter.elapse(silent_seconds)
        assert by_time == is_due(gates, meter.received_bytes, silent_seconds)
        due = meter.add(size)
        assert due == is_due(gates, meter.received_bytes, silent_seconds)
        assert all(moment > silent_seconds for moment in meter.later_than(silent_seconds))
        if due:
            meter.rearm()
            gates, silent_seconds = policy.gates(meter.received_bytes, total), 0.0
            assert not meter.add(0)


@given(policies, totals, st.floats(0.1, 30), st.integers(1, 10**7))
def test_no_report_is_due_before_the_least_interval(
    policy: ThrottlePolicy, total: int | None, least_seconds: float, size: int
) -> None:
    meter = Meter(policy, total)
    meter.rearm(least_seconds)
    meter.await_next_byte()

    assert not meter.add(size)
    assert not meter.elapse(least_seconds * 0.99)
    assert min(meter.later_than(0)) >= least_seconds
    assert meter.elapse(least_seconds)
    meter.rearm()
    meter.await_next_byte()
    assert meter.add(1)


@given(st.integers(1, 10**12), st.lists(st.integers(1, 10**12), max_size=30))
def test_every_tenth_is_reported_at_its_first_byte(total: int, sizes: list[int]) -> None:
    """A step over several tenths is one report."""
    meter = Meter(EveryPercent(10), total)
    meter.rearm()
    tenth = 0
    for size in [*sizes, total]:
        due = meter.add(min(size % (total // 7 + 2), total - meter.received_bytes))
        reached = meter.received_bytes * 10 // total
        assert due == (reached > tenth)
        tenth = reached
        if due:
            meter.rearm()
    assert (meter.gate_bytes == NEVER) == (meter.received_bytes == total)


@pytest.mark.parametrize("total", [1, 3, 7, 10, 999, 1000, 10**17 + 1])
def test_tenths_are_computed_without_rounding_errors(total: int) -> None:
    policy, at, marks = EveryPercent(10), 0, []
    while gates := policy.gates(at, total):
        at = gates[0].at_bytes
        marks.append(at)

    assert marks == sorted({-(-total * tenth // 10) for tenth in range(1, 11)})


def test_percent_policy_has_no_gate_without_a_total() -> None:
    assert EveryPercent(10).gates(5, None) == ()
    assert EveryPercent(10).gates(0, 0) == ()
    assert EveryPercent(10).gates(11, 10) == ()


def test_default_policy() -> None:
    assert DEFAULT_POLICY.gates(0, 1000) == (Gate(100), Gate(1, 1.0))
    assert DEFAULT_POLICY.gates(0, None) == (Gate(8 * 1024 * 1024, 1.0), Gate(1, 5.0))


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "10", None])
@pytest.mark.parametrize("policy", [EveryPercent, EveryBytes, EveryInterval])
def test_policy_needs_a_positive_number(
    policy: type[EveryPercent | EveryBytes | EveryInterval], value: object
) -> None:
    with pytest.raises(InvalidValue, match=policy.__name__):
        policy(value)  # type: ignore[arg-type]  # invalid


def test_custom_policy_can_be_combined() -> None:
    class AtThousand(ThrottlePolicy):
        def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
            return (Gate(1000),) if received_bytes < 1000 else ()

    assert (AtThousand() | EveryBytes(10)).gates(0, None) == (Gate(1000), Gate(10))
    assert (EveryBytes(10) & AtThousand()).gates(0, None) == (Gate(1000),)
    assert isinstance(AtThousand(), ThrottlePolicy)
