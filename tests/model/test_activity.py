"""What only time shows: stalls, the moment of the last byte, and when to look again."""

from __future__ import annotations

from upload_progress._model.activity import OBSERVE_SECONDS, Activity

STALL = 30.0


def test_a_stall_begins_once_and_ends_once() -> None:
    activity = Activity(0.0)

    assert not activity.observe(29.9, 129.9, 0, STALL)
    assert (activity.last_byte_at, activity.changed_at) == (None, 0.0)
    assert (activity.observe(30.0, 130.0, 0, STALL), activity.is_stalled) == (True, True)
    assert not activity.observe(31.0, 131.0, 0, STALL)
    assert (activity.observe(40.0, 140.0, 5, STALL), activity.is_stalled) == (True, False)
    assert (activity.last_byte_at, activity.changed_at) == (140.0, 40.0)


def test_the_time_of_a_stall_is_no_slow_speed() -> None:
    activity = Activity(0.0)
    for second in range(1, 11):
        activity.observe(second, second, second * 100, STALL)
    assert activity.estimate.bytes_per_second == 100
    activity.observe(50.0, 50.0, 1000, STALL)
    activity.observe(60.0, 60.0, 1001, STALL)

    assert [activity.estimate.bytes_per_second] == [None]
    activity.observe(62.0, 62.0, 1201, STALL)
    assert activity.estimate.bytes_per_second == 100


def test_when_to_look_again() -> None:
    activity = Activity(0.0)

    assert activity.next_observation(0.5, [9.0], STALL) == 0.5 + OBSERVE_SECONDS
    assert activity.next_observation(2.0, [9.0], STALL) == 9.0
    assert activity.next_observation(2.0, [], STALL) == STALL
    assert activity.next_observation(35.0, [], STALL) == 35.0
    activity.observe(35.0, 35.0, 0, STALL)
    assert activity.next_observation(35.0, [], STALL) is None
    assert activity.next_observation(35.0, [40.0], STALL) == 40.0


def test_who_leads_is_seen_by_who_waits() -> None:
    activity = Activity(0.0)
    assert [activity.is_led_by_client] == [False]

    activity.observe(1.0, 1.0, 10, STALL, is_waiting=True)
    activity.observe(2.0, 2.0, 20, STALL, is_waiting=False)
    assert [activity.is_led_by_client] == [True]

    activity.observe(3.0, 3.0, 30, STALL, is_waiting=False)
    activity.observe(4.0, 4.0, 30, STALL, is_waiting=True)
    assert [activity.is_led_by_client] == [False]
