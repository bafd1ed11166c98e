"""Activity: silence, stalls, rate, the next observation, and how the body arrived."""

from __future__ import annotations

import pytest

from upload_progress._model.activity import (
    BUFFERED_BYTES,
    BUFFERED_BYTES_PER_SECOND,
    OBSERVE_SECONDS,
    STREAM_SECONDS,
    WAITED_SECONDS,
    Activity,
    judge_arrival,
)
from upload_progress._model.models import Arrival
from upload_progress._model.rate import SILENT_SECONDS

STALL = 30.0
BUFFERED_SECONDS = BUFFERED_BYTES / BUFFERED_BYTES_PER_SECOND


def test_silence_and_stall_begin_and_end_once() -> None:
    activity = Activity(0.0)

    assert not activity.observe(2.9, 102.9, 0, STALL)
    assert (activity.observe(3.0, 103.0, 0, STALL), activity.is_silent) == (True, True)
    assert not activity.observe(29.9, 129.9, 0, STALL)
    assert (activity.last_byte_at, activity.changed_at) == (None, 0.0)
    assert (activity.observe(30.0, 130.0, 0, STALL), activity.is_stalled) == (True, True)
    assert not activity.observe(31.0, 131.0, 0, STALL)
    assert activity.observe(40.0, 140.0, 5, STALL)
    assert (activity.is_silent, activity.is_stalled) == (False, False)
    assert (activity.last_byte_at, activity.changed_at) == (140.0, 40.0)


def receive(activity: Activity, now: float, received_bytes: int, stall: float = STALL) -> None:
    activity.observe(now, now, received_bytes, stall)
    activity.update_rate(now)


@pytest.mark.parametrize(("idle_seconds", "stall"), [(3.0, STALL), (50.0, STALL), (1.5, 1.0)])
def test_rate_is_unknown_while_no_byte_arrives_and_starts_anew_after_it(
    idle_seconds: float, stall: float
) -> None:
    activity = Activity(0.0)
    for second in range(1, 11):
        receive(activity, second, second * 100, stall)
    assert activity.bytes_per_second == 100
    end = 10 + idle_seconds
    receive(activity, end, 1000, stall)
    assert [activity.bytes_per_second] == [None]

    receive(activity, end + 1, 1001, stall)
    assert [activity.bytes_per_second] == [None]
    receive(activity, end + 3, 1201, stall)
    assert activity.bytes_per_second == 100


def test_rate_does_not_fall_before_it_is_unknown() -> None:
    activity = Activity(0.0)
    for second in range(1, 11):
        receive(activity, second, second * 100)
    receive(activity, 12.9, 1000)

    assert activity.bytes_per_second == 100
    receive(activity, 12.95, 1295)
    assert activity.bytes_per_second == pytest.approx(100, rel=0.01)


def test_time_of_the_next_observation() -> None:
    activity = Activity(0.0)

    assert activity.next_observation(0.5, [9.0], STALL) == 0.5 + OBSERVE_SECONDS
    assert activity.next_observation(0.5, [0.7], STALL) == 0.7
    assert activity.next_observation(2.0, [9.0], STALL) == SILENT_SECONDS
    activity.observe(3.0, 3.0, 0, STALL)
    assert activity.next_observation(3.0, [9.0], STALL) == 9.0
    assert activity.next_observation(3.0, [], STALL) == STALL
    assert activity.next_observation(35.0, [], STALL) == 35.0
    activity.observe(35.0, 35.0, 0, STALL)
    assert activity.next_observation(35.0, [], STALL) is None
    assert activity.next_observation(35.0, [40.0], STALL) == 40.0


def test_client_determines_the_speed_if_the_application_mostly_waits() -> None:
    activity = Activity(0.0)
    assert [activity.is_led_by_client] == [False]

    activity.observe(1.0, 1.0, 10, STALL, is_waiting=True)
    activity.observe(2.0, 2.0, 20, STALL, is_waiting=False)
    assert [activity.is_led_by_client] == [True]

    activity.observe(3.0, 3.0, 30, STALL, is_waiting=False)
    activity.observe(4.0, 4.0, 30, STALL, is_waiting=True)
    assert [activity.is_led_by_client] == [False]


@pytest.mark.parametrize(
    ("size", "seconds", "waited", "proxied", "led", "expected"),
    [
        (1, STREAM_SECONDS, 0.0, False, True, Arrival.STREAMED),
        (BUFFERED_BYTES, STREAM_SECONDS, 9.0, True, True, Arrival.STREAMED),
        (BUFFERED_BYTES, STREAM_SECONDS, 9.0, True, False, None),
        (BUFFERED_BYTES, BUFFERED_SECONDS, 0.0, True, False, Arrival.BUFFERED),
        (BUFFERED_BYTES, BUFFERED_SECONDS, WAITED_SECONDS, False, True, Arrival.BUFFERED),
        (BUFFERED_BYTES, BUFFERED_SECONDS, 0.0, False, True, None),
        (BUFFERED_BYTES - 1, 0.0, 9.0, True, True, None),
        (BUFFERED_BYTES, BUFFERED_SECONDS + 0.001, 9.0, True, True, None),
    ],
)
def test_arrival_is_judged_by_two_observations(
    *, size: int, seconds: float, waited: float, proxied: bool, led: bool, expected: Arrival | None
) -> None:
    assert expected == judge_arrival(
        received_bytes=size,
        body_seconds=seconds,
        waited_seconds=waited,
        is_proxied=proxied,
        is_led_by_client=led,
    )
