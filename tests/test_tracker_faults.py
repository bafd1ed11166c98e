"""What the whole core promises when time, stores, brokers and watchers misbehave.

Everything here is a simulation under a standing clock: see ``tests._support.simulation``.
"""

from __future__ import annotations

import gc
import logging
import random
import weakref
from collections.abc import Sequence

import anyio
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import ANN, Simulation, assert_monotonic, deadline
from upload_progress import (
    EveryBytes,
    Limits,
    ProgressTracker,
    Retention,
    StoreUnavailable,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadState,
)
from upload_progress._model.models import ErrorCode, TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._runtime import circuit_breaker as backend_module
from upload_progress._tracking import flusher as flusher_module
from upload_progress._tracking import outbox as outbox_module
from upload_progress._tracking.live_upload import LiveUpload, Moment
from upload_progress.testing import Fault
from upload_progress.throttling import Gate, ThrottlePolicy
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a hung backend be given up soon, so that the test does not wait."""
    monkeypatch.setattr(backend_module, "CALL_SECONDS", 0.01)


def end(live: LiveUpload, how: str) -> None:
    """End an upload in one of all possible ways."""
    if how in {"completed", "rejected", "failed", "processing-cancelled"}:
        live.end_body()
    if how == "failed":
        live.mark_failed("virus")
    if how in {"completed", "failed"}:
        live.finish(200)
    elif how == "rejected":
        live.finish(413)
    elif how == "raised":
        live.app_raised()
    elif how == "aborted":
        live.app_cancelled()
    elif how == "disconnected":
        live.client_disconnected()
    else:
        live.cancel()


ENDS = {
    "completed": (S.COMPLETED, None),
    "rejected": (S.FAILED, ErrorCode.REJECTED),
    "failed": (S.FAILED, ErrorCode.REJECTED),
    "raised": (S.FAILED, ErrorCode.APP_ERROR),
    "aborted": (S.CANCELLED, ErrorCode.APP_ERROR),
    "disconnected": (S.FAILED, ErrorCode.CLIENT_DISCONNECTED),
    "cancelled": (S.CANCELLED, ErrorCode.CANCELLED_BY_OWNER),
    "processing-cancelled": (S.CANCELLED, ErrorCode.CANCELLED_BY_OWNER),
}


# --- every end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDS)
async def test_each_end_is_told_once_last_and_stored(sim: Simulation, how: str) -> None:
    live = sim.begin("up", total=100)
    await sim.run(0.5)
    sim.add(live, 50)
    end(live, how)
    await sim.run(0.5)
    for late in ("disconnected", "raised", "cancelled", "completed"):
        end(live, late)
        sim.add(live, 5)
        await sim.run(0.2)

    events = sim.events("up")
    state, code = ENDS[how]
    assert_monotonic(events)
    assert events[-1].state is state
    assert (events[-1].error and events[-1].error.code) == code
    assert events[-1].bytes_transferred == 50
    assert sum(is_final(event.state) for event in events) == 1
    assert await sim.tracker.get("up", owner="ann") == events[-1]
    assert len(sim.parts.registry) == 0


async def test_a_fast_upload_is_one_event_and_one_write(sim: Simulation) -> None:
    """Thirty milliseconds: announced by no snapshot, told by the last."""
    live = sim.begin("up", total=1000)
    for _ in range(10):
        sim.clock.advance(0.003)
        sim.add(live, 100)
        await sim.parts.flusher.flush()
    live.end_body()
    live.finish(201)
    await sim.run(1)

    [event], [record] = sim.events("up"), sim.writes("up")
    assert event.state is S.COMPLETED
    assert (event.percent, record.sequence) == (100.0, 1)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("milliseconds", [0, 30, 99, 101, 500, 900, 5000])
async def test_writes_are_few(sim: Simulation, *, watched: bool, milliseconds: int) -> None:
    """At most 12 for an upload without pauses, 3 below 100 ms, one per upload and 100 ms."""
    subscription = sim.subscription() if watched else None
    started = sim.clock.monotonic()
    live = sim.begin("up", total=10_000)
    moments: list[float] = []
    for _ in range(1000):
        sim.add(live, 10)
        sim.clock.advance(milliseconds / 1_000_000)
        await sim.parts.background.ticker.tick()
        before = len(sim.writes("up"))
        await sim.parts.flusher.flush()
        moments += [sim.clock.monotonic()] * (len(sim.writes("up")) - before)
    live.end_body()
    live.finish(200)
    await sim.run(1)

    writes = sim.writes("up")
    assert len(writes) <= (3 if milliseconds < 100 else 12 + milliseconds // 1000)
    gaps = [b - a for a, b in zip([started - 1, *moments], moments, strict=False)]
    assert all(gap >= 0.0999 for gap in gaps)
    assert writes[-1].state is S.COMPLETED
    assert_monotonic(sim.events("up"))
    if subscription is not None:
        assert subscription.take()[-1].progress.state is S.COMPLETED


async def test_every_tenth_is_seen_of_a_slow_upload(sim: Simulation) -> None:
    live = sim.begin("up", total=1000)
    for _ in range(100):
        sim.add(live, 10)
        await sim.run(0.2)
    live.end_body()
    live.finish(200)
    await sim.run(0.3)

    tenths = {int(event.percent or 0) // 10 for event in sim.events("up")}
    assert tenths == set(range(11))
    assert_monotonic(sim.events("up"))


async def test_no_silence_while_bytes_come(sim: Simulation) -> None:
    """A tenth of 50 GB takes minutes: a second without news is the most, also after a pause."""
    live = sim.begin("up", total=50_000_000_000)
    for seconds_of_silence in (0, 3, 12, 0):
        await sim.run(seconds_of_silence)
        for _ in range(20):
            sim.add(live, 1000)
            before = len(sim.events("up"))
            await sim.run(1.2)
            assert len(sim.events("up")) > before


async def test_an_unknown_total_waits_for_both_a_second_and_eight_mebibytes(
    sim: Simulation,
) -> None:
    live = sim.begin("up")
    await sim.run(0.5)
    begun = len(sim.events("up"))
    for _ in range(70):
        sim.add(live, 1024 * 1024)
        await sim.run(0.5)
    events = sim.events("up")[begun:]

    assert len(events) == 70 // 8
    assert all(event.percent is None and event.total_bytes is None for event in events)


# --- stalls ---------------------------------------------------------------------------------------


async def test_a_stall_is_told_after_thirty_seconds_and_so_is_its_end(sim: Simulation) -> None:
    live = sim.begin("up", total=1000)
    sim.add(live, 10)
    await sim.run(29)
    assert not sim.events("up")[-1].stalled
    await sim.run(3)
    stalled = sim.events("up")[-1]
    assert (stalled.stalled, stalled.bytes_per_second, stalled.eta_seconds) == (True, None, None)

    await sim.run(100)
    assert sim.events("up")[-1] == stalled
    sim.add(live, 10)
    await sim.run(0.2)
    assert not sim.events("up")[-1].stalled
    assert sim.events("up")[-1].bytes_transferred == 20

    await sim.run(33)
    assert sim.events("up")[-1].stalled
    live.client_disconnected()
    await sim.run(0.2)
    assert sim.events("up")[-1].state is S.FAILED
    assert_monotonic(sim.events("up"))


async def test_one_byte_a_second_for_an_hour_is_alive_and_costs_little(sim: Simulation) -> None:
    """R04, S14: it never stalls, never expires, and the wheel holds a bounded number of it."""
    live = sim.begin("up", total=10_000)
    for _ in range(3600):
        sim.add(live, 1)
        await sim.run(1.0)
        assert len(sim.parts.flusher.timers._wheel) <= 32
    assert not any(event.stalled for event in sim.events("up"))
    assert live.snapshot().bytes_per_second == pytest.approx(1.0, abs=0.2)
    live.end_body()
    live.finish(200)
    await sim.run(40)
    assert sim.events("up")[-1].state is S.COMPLETED
    assert sim.is_at_baseline()


async def test_a_jump_of_the_wall_clock_loses_no_upload(sim: Simulation) -> None:
    """A laptop that slept, or a clock that was set: our own uploads are alive."""
    live = sim.begin("up", total=100)
    await sim.run(2)
    sim.clock.epoch_seconds += 7200

    await sim.run(10)
    sim.add(live, 100)
    live.end_body()
    live.finish(200)
    await sim.run(1)

    assert [event.state for event in sim.events("up")][-1] is S.COMPLETED
    assert not any(event.state is S.FAILED for event in sim.events("up"))
    assert sim.tracker.statistics().reaped == 0


# --- backends that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["raise", "hang"])
@pytest.mark.usefixtures("hasty")
async def test_a_store_that_fails_and_comes_back(
    sim: Simulation, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """S01, S02, S03: watchers are told meanwhile, ends are kept, little is logged, it heals."""
    subscription = sim.subscription()
    seen = []
    steady = sim.begin("steady", total=1_000_000)
    await sim.run(1)
    sim.store.fault = fault
    for number in range(40):
        live = sim.begin(f"up{number}", total=100)
        sim.add(live, 100)
        sim.add(steady, 1000)
        live.end_body()
        live.finish(200)
        await sim.run(1)
        seen += [update.progress for update in subscription.take()]
    ended = {progress.upload_id for progress in seen if is_final(progress.state)}
    assert ended == {f"up{number}" for number in range(40)}
    calls = sim.store.calls
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("unknown", owner="ann")
    assert (await sim.tracker.get("steady", owner="ann")).state is S.RECEIVING

    sim.store.fault = None
    await sim.run(10)
    assert sim.store.calls > calls
    for number in range(40):
        stored = await sim.memory.load(UploadKey("ann", f"up{number}"))
        assert [record.state for record in stored] == [S.COMPLETED]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(warnings) <= 2
    assert all("is not available" in record.message for record in warnings)
    assert len(sim.parts.registry) == 1

    again = [update.progress for update in subscription.take() if is_final(update.progress.state)]
    assert not [progress for progress in again if progress.attempt == 1]


async def test_at_the_end_all_is_written_though_the_store_was_to_rest(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "PORTION", 3)
    monkeypatch.setattr(outbox_module, "PORTION", 3)
    lives = [sim.begin(f"up{number}") for number in range(7)]
    sim.store.fault = sim.publisher.fault = "raise"
    await sim.run()
    for live in lives:
        live.end_body()
        live.finish(200)
    sim.store.fault = sim.publisher.fault = None

    await sim.parts.flusher.finish()

    assert len(sim.memory) == len(lives)
    assert sim.parts.flusher.is_idle
    assert {event.data.state for event in sim.publisher.events} == {S.COMPLETED}


@pytest.mark.parametrize("fault", ["raise", "hang"])
@pytest.mark.usefixtures("hasty")
async def test_a_publisher_that_fails_gets_the_last_of_each_upload(
    sim: Simulation, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """B01, B02: rarer, never more than one waiting per upload, and the end is not lost."""
    sim.publisher.fault = fault
    for number in range(20):
        live = sim.begin(f"up{number}", total=100)
        await sim.run(0.5)
        live.client_disconnected()
        await sim.run(0.5)
    assert len(sim.parts.flusher.outbox.waiting) == 20
    assert len(sim.parts.registry) == 0

    sim.publisher.fault = None
    await sim.run(6)

    for number in range(20):
        assert [event.state for event in sim.events(f"up{number}")] == [S.FAILED]
    assert len(caplog.records) == 1
    assert sim.parts.flusher.is_idle


@pytest.mark.usefixtures("hasty")
async def test_what_waits_for_dead_backends_is_bounded(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "MAX_UNSAVED", 50)
    monkeypatch.setattr(outbox_module, "MAX_UNPUBLISHED", 50)
    sim.store.fault = sim.publisher.fault = "raise"
    for number in range(300):
        live = sim.begin(f"named{number}" if number % 2 else None, total=100)
        live.client_disconnected()
        await sim.run(0.1)

    flusher = sim.parts.flusher
    assert len(flusher._unsaved) + len(flusher._without_prior_state) <= 51
    assert len(flusher.outbox.waiting) == 50
    assert len(sim.parts.registry) <= 51
    assert sim.tracker.statistics().ends_dropped >= 249

    sim.store.fault = sim.publisher.fault = None
    await sim.run(40)
    assert sim.is_at_baseline()


@pytest.mark.usefixtures("hasty")
async def test_ended_uploads_that_wait_for_the_store_take_nobodys_place() -> None:
    sim = Simulation(limits=Limits(tracked_per_owner=3, tracked_total=6))
    sim.store.fault = "raise"
    for _ in range(5):
        sim.begin().client_disconnected()
        await sim.run()

    open_ones = [sim.begin()]
    assert not internals_of(sim.tracker).admission.admit(
        internals_of(sim.tracker).admission.open(), ANN
    )
    assert sim.tracker.statistics().untracked == 1
    assert len(sim.parts.registry) == 5 + len(open_ones)


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "forget"]), st.integers(0, 4))))
def test_room_is_for_those_that_have_not_ended(steps: list[tuple[str, int]]) -> None:
    """However they come and go: also those that are let go before they end, and end after that."""
    sim = Simulation(limits=Limits(tracked_per_owner=3))
    registry = sim.parts.registry
    known: list[LiveUpload] = []
    for step, number in steps:
        if step == "begin":
            live = internals_of(sim.tracker).admission.open(requested_id=f"upload-{number}")
            was_room = sum(not each.is_ended for each in registry.of_owner("ann")) < 3
            assert internals_of(sim.tracker).admission.admit(live, ANN) is was_room
            known.append(live)
        for each in known[number : number + 1]:
            if step == "end":
                each.app_cancelled()
            elif step == "forget":
                registry.remove(each)

    for each in known:
        registry.remove(each)
    assert not len(registry)
    assert not registry._open


async def test_a_policy_that_raises_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """R07: whatever an application's own policy does, uploads go on and are told."""

    class Broken(ThrottlePolicy):
        def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
            raise ZeroDivisionError

    sim = Simulation(policy=Broken())
    live = sim.begin("up", total=100)
    for _ in range(10):
        await sim.run(0.5)
        sim.add(live, 10)
    live.end_body()
    live.finish(200)
    await sim.run(0.5)

    assert len(sim.events("up")) > 5
    assert sim.events("up")[-1].state is S.COMPLETED
    assert len(caplog.records) == 1


# --- watchers -------------------------------------------------------------------------------------


async def test_a_watcher_that_does_not_read_costs_one_slot_per_upload(sim: Simulation) -> None:
    """I10: the others are told in time; when it reads, it reads the last of each."""
    stuck, busy = sim.subscription(), sim.subscription()
    lives = [sim.begin(f"up{number}", total=1000) for number in range(10)]
    for _ in range(50):
        for live in lives:
            sim.add(live, 20)
        await sim.run(1.2)
        assert busy.take()
        assert len(stuck._slots) <= 10
    for live in lives:
        live.end_body()
        live.finish(200)
    await sim.run(0.5)

    last = [update.progress for update in stuck.take()]
    assert len(last) == 10
    assert {progress.state for progress in last} == {S.COMPLETED}


async def test_a_watcher_that_never_reads_is_let_go() -> None:
    """I9: what it follows may be without number; what it holds is not."""
    limits = Limits(subscriptions_per_socket=10, tracked_per_owner=10)
    sim = Simulation(limits=limits)
    stuck = sim.subscription()
    other = sim.subscription()
    for _ in range(100):
        sim.begin().client_disconnected()
        await sim.run()
        other.take()
        assert len(stuck._slots) <= 40

    assert stuck.is_closed
    assert not stuck._slots
    assert not other.is_closed
    other.close()
    assert len(internals_of(sim.tracker).hub) == 0


async def test_a_watch_that_is_merely_dropped_leaves_nothing(sim: Simulation) -> None:
    sim.begin("up")

    watch = sim.tracker.watch("up", owner="ann")
    assert (await anext(watch)).state is S.RECEIVING
    assert len(internals_of(sim.tracker).hub) == 1
    del watch
    gc.collect()
    assert len(internals_of(sim.tracker).hub) == 0


# --- attempts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.2, 100.0])
async def test_the_same_id_again_is_the_next_attempt(sim: Simulation, pause: float) -> None:
    """Whether the end before is stored by then or not; sequences go on rising."""
    subscription = sim.subscription("up")
    seen = []
    for number in range(5):
        live = sim.begin("up", total=10)
        sim.add(live, number)
        if number == 2:
            await sim.run(0.5)
        live.client_disconnected()
        if pause:
            await sim.run(pause)
        seen += [update.progress for update in subscription.take()]
    await sim.run(1)
    seen += [update.progress for update in subscription.take()]

    final = await sim.tracker.get("up", owner="ann")
    assert (final.attempt, final.bytes_transferred) == (5, 4)
    assert seen[-1].sequence == final.sequence
    assert [s.sequence for s in seen] == sorted({s.sequence for s in seen})
    assert [s.attempt for s in seen] == sorted(s.attempt for s in seen)
    assert len(sim.parts.registry) == 0


@pytest.mark.usefixtures("hasty")
async def test_an_attempt_begun_while_the_store_is_away_finds_its_number(sim: Simulation) -> None:
    for _ in range(2):
        sim.begin("up").client_disconnected()
        await sim.run(0.5)
    sim.store.fault = "raise"
    for size in (5, 7):
        live = sim.begin("up", total=10)
        sim.add(live, size)
        live.end_body()
        live.finish(200)
        await sim.run(0.5)
    sim.store.fault = None
    await sim.run(10)

    final = await sim.tracker.get("up", owner="ann")
    assert final.state is S.COMPLETED
    assert final.bytes_transferred == 7
    assert final.attempt == 3
    assert sim.parts.flusher.is_idle
    assert len(sim.parts.registry) == 0


async def test_an_id_that_is_being_received_is_not_given_twice(sim: Simulation) -> None:
    """A07: the first goes on, the second is received under an id of its own."""
    first, second = sim.begin("up", total=10), sim.begin("up", total=20)
    sim.add(first, 10)
    sim.add(second, 5)
    second.client_disconnected()
    await sim.run(0.5)

    assert second.upload_id != "up"
    assert (await sim.tracker.get("up", owner="ann")).bytes_transferred == 10
    assert (await sim.tracker.get(second.upload_id, owner="ann")).state is S.FAILED


# --- R02: back to baseline ------------------------------------------------------------------------


async def test_ten_thousand_uploads_leave_nothing_behind() -> None:
    """One after another and at once, with every end, watched and dropped and cancelled."""
    sim = Simulation(retention=Retention(ended_seconds=60, waiting_seconds=60))
    dice = random.Random(7)  # noqa: S311  # steady, not secret
    ways = list(ENDS)
    for _ in range(100):
        subscriptions = [sim.subscription() for _ in range(3)]
        lives = [
            sim.begin(f"id{dice.randrange(10**6)}" if dice.random() < 0.5 else None, total=100)
            for _ in range(100)
        ]
        if dice.random() < 0.3:
            await sim.run(0.3)
        for live in lives:
            sim.add(live, dice.randrange(100))
        if dice.random() < 0.2:
            await sim.run(1.2)
        for live in lives:
            end(live, dice.choice(ways))
        await sim.run(0.2)
        for subscription in subscriptions:
            subscription.close()
        sim.store.saved.clear()
        sim.publisher.events.clear()
    witness = weakref.ref(lives[0])
    del lives, live, subscriptions, subscription

    await sim.run(150)
    gc.collect()

    assert sim.is_at_baseline()
    assert len(sim.memory) == 0
    assert not sim.memory._buckets
    assert not internals_of(sim.tracker).hub._index._heartbeats._buckets
    assert witness() is None


# --- expiry and leases ----------------------------------------------------------------------------


async def test_what_was_announced_expires_after_a_day_and_its_watchers_are_told(
    sim: Simulation,
) -> None:
    """W06, I6: also by somebody who came long after."""
    announced = await sim.tracker.announce(owner="ann", total_bytes=5)
    subscription = sim.subscription(announced.upload_id)
    await sim.run(1)
    assert [update.progress.state for update in subscription.take()] == [S.PENDING]

    sim.clock.advance(24 * 3600 - 30)
    await sim.run(1)
    assert subscription.take() == []
    sim.clock.advance(120)
    await sim.run(2)

    [told] = [update.progress for update in subscription.take()]
    assert told.state is S.FAILED
    assert told.error is not None
    assert told.error.code is ErrorCode.EXPIRED
    assert await sim.tracker.get(announced.upload_id, owner="ann") == told
    assert sim.events(announced.upload_id)[-1] == told
    assert sim.tracker.statistics().reaped == 1
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel(announced.upload_id, owner="ann")


async def test_ten_thousand_expire_a_portion_at_a_time(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is counted are portions; a busy machine may take long for one.
    monkeypatch.setattr("upload_progress._runtime.circuit_breaker.CALL_SECONDS", 60.0)
    template = await sim.tracker.announce(owner="ann")
    [record] = await sim.memory.load(UploadKey("ann", template.upload_id))
    await sim.memory.save([evolve(record, upload_id=f"u{number}") for number in range(10_000)])
    sim.clock.advance(24 * 3600 + 120)

    await sim.run(1)
    assert 0 < sim.tracker.statistics().reaped <= 2000
    await sim.run(10)

    assert sim.tracker.statistics().reaped == 10_001
    assert sim.is_at_baseline()


async def test_a_lost_workers_upload_is_ended_once_whoever_sweeps(sim: Simulation) -> None:
    """P01, P10: another worker of the same store finds it; ten at once tell the same end."""
    live = sim.begin("up", total=100)
    sim.add(live, 10)
    await sim.run(1)
    others = [
        ProgressTracker(store=sim.memory, clock=sim.clock, publisher=sim.publisher)
        for _ in range(10)
    ]
    subscription = internals_of(others[0]).subscribe()
    subscription.add_upload("ann", "up")
    assert (await others[0].get("up", owner="ann")).state is S.RECEIVING
    sim.clock.advance(16)

    read = await others[1].get("up", owner="ann")
    for other in others:
        await internals_of(other).reaper.run_once()
        await internals_of(other).flusher.flush()

    assert read.error is not None
    assert read.error.code is ErrorCode.WORKER_LOST
    [told] = subscription.take()
    assert told.progress.state is S.FAILED
    assert sum(other.statistics().reaped for other in others) == 1


# --- cancelling -----------------------------------------------------------------------------------


async def test_a_loss_is_told_though_the_store_did_not_say_that_it_had_it(sim: Simulation) -> None:
    """It took the end, and its answer did not come; or it did not take it, and is asked again."""
    lost = [
        evolve(
            sim.begin(f"up-{number}").commit(Moment(0.0, 0.0)),
            worker="dead",
            transfer_id="t",
            sequence=7,
        )
        for number in range(2)
    ]
    for live in sim.parts.registry.everything():
        live.cancel()
    await sim.run(1)
    told = len(sim.publisher.events)
    await sim.memory.save([evolve(each, upload_id=f"lost-{each.upload_id}") for each in lost])
    await sim.memory.renew("dead", seconds=-1)
    save = sim.store.save

    async def take_one(records: Sequence[TransferRecord]) -> None:
        await save(records[:1])
        raise OSError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.store, "save", take_one)
        await sim.parts.reaper.run_once()
    assert len(sim.publisher.events) == told
    await sim.run(30)

    ends = [(each.subject, each.data.state) for each in sim.publisher.events[told:]]
    assert sorted(ends) == [("lost-up-0", S.FAILED), ("lost-up-1", S.FAILED)]


async def test_what_waits_is_cancelled_once(sim: Simulation) -> None:
    announced = await sim.tracker.announce(owner="ann")
    subscription = sim.subscription()

    first = await sim.tracker.cancel(announced.upload_id, owner="ann")
    second = await sim.tracker.cancel(announced.upload_id, owner="ann")
    await sim.run(1)

    assert first == second
    assert first.state is S.CANCELLED
    assert [update.progress for update in subscription.take()] == [first]
    with pytest.raises(UploadNotFound):
        await sim.tracker.cancel(announced.upload_id, owner="bob")


async def test_a_live_upload_is_cut_once_and_an_ended_one_never(sim: Simulation) -> None:
    cuts = []
    live, done = sim.begin("up"), sim.begin("done")
    live.on_cancel = lambda: cuts.append("up")
    done.on_cancel = lambda: cuts.append("done")
    done.end_body()
    done.finish(200)

    for _ in range(2):
        assert (await sim.tracker.cancel("up", owner="ann")).state is S.CANCELLED
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("done", owner="ann")
    await sim.run(1)
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("done", owner="ann")

    assert cuts == ["up"]


async def test_what_begins_while_it_is_cancelled_is_cancelled(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = await sim.tracker.announce(owner="ann")
    lives: list[LiveUpload] = []

    async def save_late(records: Sequence[TransferRecord]) -> None:
        lives.append(sim.begin(announced.upload_id))
        await sim.memory.save(records)

    monkeypatch.setattr(sim.store, "save", save_late)
    cancelled = await sim.tracker.cancel(announced.upload_id, owner="ann")

    assert cancelled.state is S.CANCELLED
    assert lives[0].state is S.CANCELLED


async def test_track_is_cut_by_its_owner() -> None:
    tracker = ProgressTracker()
    seen = []

    async def work() -> None:
        async with tracker.track(owner="ann", upload_id="up") as upload:
            seen.append(upload)
            await tracker.cancel("up", owner="ann")
            await anyio.sleep_forever()

    with deadline(), pytest.raises(UploadCancelled):
        await work()

    assert seen[0].state is S.CANCELLED
    assert (await tracker.get("up", owner="ann")).state is S.CANCELLED
    assert tracker.statistics().live_uploads == 0


async def test_reports_are_rare_for_many_bytes() -> None:
    """However many chunks: as many as gates are passed, and none between."""
    sim = Simulation(policy=EveryBytes(1000))
    live = sim.begin("up")
    await sim.run(0.5)
    before = len(sim.writes("up"))
    for _ in range(10):
        for _ in range(1000):
            sim.add(live, 1)
        await sim.run(0.2)

    assert len(sim.writes("up")) - before == 10
