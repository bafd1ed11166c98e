"""Timers of live uploads: each upload has one time that counts."""

from __future__ import annotations

import pytest

from tests._support.simulation import Simulation
from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._reporting.timers import TICK_SECONDS, UploadTimers
from upload_progress._tracking import outcomes

LATER = 1000.0


@pytest.fixture
def timers(sim: Simulation) -> UploadTimers:
    return UploadTimers(sim.clock)


def test_watched_upload_is_taken_within_a_second(sim: Simulation, timers: UploadTimers) -> None:
    live = sim.begin("up")
    now = sim.clock.monotonic()

    timers.watch(live)

    assert list(timers.take(now + OBSERVE_SECONDS - TICK_SECONDS, 9)) == []
    assert list(timers.take(now + OBSERVE_SECONDS + TICK_SECONDS, 9)) == [live]


def test_watch_does_not_postpone_an_earlier_time(sim: Simulation, timers: UploadTimers) -> None:
    live = sim.begin("up")
    now = sim.clock.monotonic()
    timers.schedule(live, now + 0.5)

    timers.watch(live)

    assert timers.time_of(live) == now + 0.5
    assert list(timers.take(now + LATER, 9)) == [live]


def test_ended_upload_is_not_watched(sim: Simulation, timers: UploadTimers) -> None:
    live = sim.begin("up")
    outcomes.client_disconnected(live)

    timers.watch(live)

    assert list(timers.take(sim.clock.monotonic() + LATER, 9)) == []


def test_only_the_last_scheduled_time_counts(sim: Simulation, timers: UploadTimers) -> None:
    live, other = sim.begin("up"), sim.begin("other")
    now = sim.clock.monotonic()
    timers.schedule(live, now + 1)
    timers.schedule(live, now + 5)
    timers.schedule(other, now + 1)
    timers.schedule(other, None)

    assert list(timers.take(now + 2, 9)) == [None, None]
    assert list(timers.take(now + 6, 9)) == [live]


def test_at_most_limit_uploads_are_taken(sim: Simulation, timers: UploadTimers) -> None:
    now = sim.clock.monotonic()
    for number in range(5):
        timers.schedule(sim.begin(f"up{number}"), now + 1)

    assert [len(list(timers.take(now + 2, 2))) for _ in range(4)] == [2, 2, 1, 0]
