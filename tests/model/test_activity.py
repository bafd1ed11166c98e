"""What only time shows: stalls, the moment of the last byte, and when to look again."""

from __future__ import annotations

from upload_progress._model.activity import LOOK_SECONDS, Pulse

STALL = 30.0


def test_a_stall_begins_once_and_ends_once() -> None:
    pulse = Pulse(0.0)

    assert not pulse.look(29.9, 129.9, 0, STALL)
    assert (pulse.last_byte_at, pulse.changed_at) == (None, 0.0)
    assert (pulse.look(30.0, 130.0, 0, STALL), pulse.is_stalled) == (True, True)
    assert not pulse.look(31.0, 131.0, 0, STALL)
    assert (pulse.look(40.0, 140.0, 5, STALL), pulse.is_stalled) == (True, False)
    assert (pulse.last_byte_at, pulse.changed_at) == (140.0, 40.0)


def test_the_time_of_a_stall_is_no_slow_speed() -> None:
    pulse = Pulse(0.0)
    for second in range(1, 11):
        pulse.look(second, second, second * 100, STALL)
    assert pulse.estimate.bytes_per_second == 100
    pulse.look(50.0, 50.0, 1000, STALL)
    pulse.look(60.0, 60.0, 1001, STALL)

    assert [pulse.estimate.bytes_per_second] == [None]
    pulse.look(62.0, 62.0, 1201, STALL)
    assert pulse.estimate.bytes_per_second == 100


def test_when_to_look_again() -> None:
    pulse = Pulse(0.0)

    assert pulse.next_look(0.5, [9.0], STALL) == 0.5 + LOOK_SECONDS
    assert pulse.next_look(2.0, [9.0], STALL) == 9.0
    assert pulse.next_look(2.0, [], STALL) == STALL
    assert pulse.next_look(35.0, [], STALL) == 35.0
    pulse.look(35.0, 35.0, 0, STALL)
    assert pulse.next_look(35.0, [], STALL) is None
    assert pulse.next_look(35.0, [40.0], STALL) == 40.0


def test_who_leads_is_seen_by_who_waits() -> None:
    pulse = Pulse(0.0)
    assert [pulse.is_led_by_client] == [False]

    pulse.look(1.0, 1.0, 10, STALL, is_waiting=True)
    pulse.look(2.0, 2.0, 20, STALL, is_waiting=False)
    assert [pulse.is_led_by_client] == [True]

    pulse.look(3.0, 3.0, 30, STALL, is_waiting=False)
    pulse.look(4.0, 4.0, 30, STALL, is_waiting=True)
    assert [pulse.is_led_by_client] == [False]
