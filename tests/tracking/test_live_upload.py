"""A live upload: its end, silence, stalls, attempts, and calls at the wrong time."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from tests._support.simulation import ANN, ENDINGS, Simulation, assert_monotonic, end_upload
from upload_progress import EveryPercent, ProgressTracker, UploadProgress, UploadState
from upload_progress._fanout.subscription import Subscription
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_record import current_snapshot
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.interfaces import RecordPage
from upload_progress.testing import FakeClock, FaultyStore

pytestmark = pytest.mark.anyio

S = UploadState


def test_upload_cancelled_before_its_first_byte_does_not_begin(sim: Simulation) -> None:
    live = sim.internals.admission.open(requested_id="up")
    assert sim.internals.admission.admit(live, ANN)
    live.cancel()
    live.begin()

    assert live.state is UploadState.CANCELLED
    assert live.started_at is None


def test_attribute_set_after_the_end_is_ignored(sim: Simulation) -> None:
    live = sim.begin("up")
    live.set_attribute("filename", "early")
    outcomes.client_disconnected(live)
    live.set_attribute("filename", "late")

    assert live.filename == "early"


def test_upload_that_has_not_begun_has_no_arrival(sim: Simulation) -> None:
    assert sim.internals.admission.open()._judge_arrival(0.0) is None


def test_repr_shows_no_owner_and_no_file_name(sim: Simulation) -> None:
    live = sim.begin("up")
    live.set_attribute("filename", "secret.pdf")

    assert repr(live) == "<Upload up receiving 0 bytes>"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_end_is_reported_once_as_the_last_event_and_stored(
    sim: Simulation, ending: str
) -> None:
    live = sim.begin("up", total=100)
    await sim.run(0.5)
    sim.add(live, 50)
    end_upload(live, ending)
    await sim.run(0.5)
    for late in ("disconnected", "raised", "cancelled", "completed"):
        end_upload(live, late)
        sim.add(live, 5)
        await sim.run(0.2)

    events = sim.events("up")
    state, code = ENDINGS[ending]
    assert_monotonic(events)
    assert events[-1].state is state
    assert (events[-1].error and events[-1].error.code) == code
    assert events[-1].bytes_transferred == 50
    assert sum(is_final(event.state) for event in events) == 1
    assert await sim.tracker.get("up", owner="ann") == events[-1]
    assert len(sim.internals.registry) == 0


# --- silence and stalls ---------------------------------------------------------------------------


async def receive_steadily(sim: Simulation, live: LiveUpload, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        sim.add(live, 1000)
        await sim.run(0.1)


def rate_and_time(progress: UploadProgress) -> tuple[float | None, float | None]:
    return (progress.bytes_per_second, progress.eta_seconds)


async def stored_at_another_worker(sim: Simulation) -> UploadProgress:
    other = ProgressTracker(store=sim.memory, clock=sim.clock)
    return await other.get("up", owner="ann")


async def shown_everywhere(sim: Simulation, subscription: Subscription) -> set[object]:
    """Return rate and time of a watcher, a get, a list, and a get at another worker."""
    here = await sim.tracker.get("up", owner="ann")
    (listed,) = (await sim.tracker.list(owner="ann")).uploads
    elsewhere = await stored_at_another_worker(sim)
    updates = subscription.take()
    watched = updates[-1].progress if updates else sim.events("up")[-1]
    return {rate_and_time(each) for each in (watched, here, listed, elsewhere)}


@pytest.mark.parametrize("total", [1_000_000, None])
async def test_silence_is_reported_once_and_everywhere_alike(
    sim: Simulation, total: int | None
) -> None:
    live = sim.begin("up", total=total)
    subscription = sim.subscription("up")
    await receive_steadily(sim, live, 6)
    await sim.run(1.5)
    (before,) = await shown_everywhere(sim, subscription)
    assert before != (None, None)

    shown = set[object]()
    for _ in range(14):
        await sim.run(0.1)
        shown |= await shown_everywhere(sim, subscription)
    assert shown == {before}

    await sim.run(1)
    reports = len(sim.events("up"))
    assert await shown_everywhere(sim, subscription) == {(None, None)}
    await sim.run(25)
    assert await shown_everywhere(sim, subscription) == {(None, None)}
    assert (len(sim.events("up")), sim.events("up")[-1].stalled) == (reports, False)

    sim.add(live, 1000)
    await sim.run(0.1)
    assert len(sim.events("up")) == reports + 1
    assert sim.events("up")[-1].bytes_transferred == 61_000
    await receive_steadily(sim, live, 4)
    progress = await sim.tracker.get("up", owner="ann")
    assert progress.bytes_per_second == pytest.approx(10_000, rel=0.1)


async def test_get_does_not_change_the_rate_between_reports(sim: Simulation) -> None:
    live = sim.begin("up", total=1_000_000)
    await receive_steadily(sim, live, 5)
    for size in (0, 50_000, 0, 0):
        sim.add(live, size)
        sim.clock.advance(0.1)
        here = await sim.tracker.get("up", owner="ann")
        assert here.bytes_transferred == live.meter.received_bytes
        assert here.bytes_per_second == sim.events("up")[-1].bytes_per_second


async def test_get_shows_a_new_rate_if_reports_are_rare() -> None:
    sim = Simulation(policy=EveryPercent(50))
    live = sim.begin("up", total=1_000_000)
    await receive_steadily(sim, live, 5)

    assert len(sim.events("up")) == 1
    assert current_snapshot(live).bytes_per_second == pytest.approx(10_000, rel=0.1)


async def test_stall_and_its_end_are_reported(sim: Simulation) -> None:
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
    outcomes.client_disconnected(live)
    await sim.run(0.2)
    assert sim.events("up")[-1].state is S.FAILED
    assert_monotonic(sim.events("up"))


async def test_one_byte_per_second_never_stalls(sim: Simulation) -> None:
    """An hour of it keeps the timing wheel small, too."""
    live = sim.begin("up", total=10_000)
    for _ in range(3600):
        sim.add(live, 1)
        await sim.run(1.0)
        assert len(sim.internals.flusher.timers._wheel) <= 32
    assert not any(event.stalled for event in sim.events("up"))
    assert current_snapshot(live).bytes_per_second == pytest.approx(1.0, abs=0.2)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(40)
    assert sim.events("up")[-1].state is S.COMPLETED
    assert sim.is_at_baseline()


async def test_jump_of_the_wall_clock_does_not_end_a_live_upload(sim: Simulation) -> None:
    """The computer was suspended, or its clock was set."""
    live = sim.begin("up", total=100)
    await sim.run(2)
    sim.clock.epoch_seconds += 7200

    await sim.run(10)
    sim.add(live, 100)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)

    assert [event.state for event in sim.events("up")][-1] is S.COMPLETED
    assert not any(event.state is S.FAILED for event in sim.events("up"))
    assert sim.tracker.statistics().reaped == 0


@pytest.mark.parametrize("step", [-7200.0, 30 * 86_400.0])
async def test_step_of_the_wall_clock_changes_no_rate_and_hides_no_upload(
    sim: Simulation, step: float
) -> None:
    """Rate, remaining time, lists and expiry are those of the monotonic clock."""
    announced = await sim.tracker.announce(owner="ann", filename="later")
    done = sim.begin("done", total=1)
    sim.add(done, 1)
    done.end_body()
    outcomes.finish(done, 200)
    live = sim.begin("up", total=1000)
    for second in range(8):
        if second == 4:
            sim.clock.step_wall_clock(step)
        sim.add(live, 100)
        await sim.run(1)

    snapshot = current_snapshot(live)
    assert snapshot.bytes_per_second == pytest.approx(100, abs=5)
    assert snapshot.eta_seconds == pytest.approx(2, abs=0.3)
    page = await sim.tracker.list(owner="ann")
    assert {each.upload_id for each in page.uploads} == {announced.upload_id, "done", "up"}
    await sim.run(20)
    assert sim.tracker.statistics().reaped == 0
    assert (await sim.tracker.get(announced.upload_id, owner="ann")).state is S.PENDING


@define(eq=False)
class SkewedStore(FaultyStore):
    """A store as a worker sees it whose clock differs by *skew* seconds from that of the others."""

    skew: float = field(kw_only=True)

    def _adjusted(self, records: Iterable[TransferRecord]) -> list[TransferRecord]:
        return [
            evolve(each, lease_until=each.lease_until and each.lease_until + self.skew)
            for each in records
        ]

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        return self._adjusted(await super().load(*keys))

    async def list(self, owner: str, **options: object) -> RecordPage:
        page = await super().list(owner, **options)  # type: ignore[arg-type]  # any options
        uploads = tuple(tuple(self._adjusted(each)) for each in page.uploads)
        return evolve(page, uploads=uploads)


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_worker_with_another_clock_shows_rate_and_recent_end(
    sim: Simulation, skew: float
) -> None:
    """What is compared are times of the store, and not those of two workers."""
    done = sim.begin("done", total=1)
    sim.add(done, 1)
    done.end_body()
    outcomes.finish(done, 200)
    live = sim.begin("up", total=1000)
    for _ in range(5):
        sim.add(live, 100)
        await sim.run(1)
    clock = FakeClock(sim.clock.monotonic(), sim.clock.time() + skew)
    other = ProgressTracker(store=SkewedStore(sim.memory, skew=skew), clock=clock)

    page = await other.list(owner="ann")

    assert {each.upload_id for each in page.uploads} == {"done", "up"}
    assert (await other.get("up", owner="ann")).bytes_per_second == pytest.approx(100, abs=20)
    await internals_of(other).reaper.run_once()
    assert other.statistics().reaped == 0


# --- attempts -------------------------------------------------------------------------------------


async def test_attributes_of_the_application_take_precedence_over_an_announcement(
    sim: Simulation,
) -> None:
    announced = await sim.tracker.announce(
        owner="ann", filename="announced", group="g", total_bytes=10
    )
    live = sim.begin(announced.upload_id, total=20)
    live.set_attribute("filename", "chosen")
    await sim.run(1)

    snapshot = current_snapshot(live)
    assert (snapshot.filename, snapshot.group, snapshot.total_bytes) == ("chosen", "g", 20)


@pytest.mark.parametrize("pause_seconds", [0.0, 0.2, 100.0])
async def test_reused_id_starts_the_next_attempt(sim: Simulation, pause_seconds: float) -> None:
    """Whether the previous end is stored or not, sequences keep rising."""
    subscription = sim.subscription("up")
    snapshots = []
    for number in range(5):
        live = sim.begin("up", total=10)
        sim.add(live, number)
        if number == 2:
            await sim.run(0.5)
        outcomes.client_disconnected(live)
        if pause_seconds:
            await sim.run(pause_seconds)
        snapshots += [update.progress for update in subscription.take()]
    await sim.run(1)
    snapshots += [update.progress for update in subscription.take()]

    final = await sim.tracker.get("up", owner="ann")
    assert (final.attempt, final.bytes_transferred) == (5, 4)
    assert snapshots[-1].sequence == final.sequence
    assert [s.sequence for s in snapshots] == sorted({s.sequence for s in snapshots})
    assert [s.attempt for s in snapshots] == sorted(s.attempt for s in snapshots)
    assert len(sim.internals.registry) == 0


@pytest.mark.usefixtures("short_call_timeout")
async def test_attempt_that_starts_during_a_store_outage_gets_its_number_afterwards(
    sim: Simulation,
) -> None:
    for _ in range(2):
        outcomes.client_disconnected(sim.begin("up"))
        await sim.run(0.5)
    sim.store.fault = "raise"
    for size in (5, 7):
        live = sim.begin("up", total=10)
        sim.add(live, size)
        live.end_body()
        outcomes.finish(live, 200)
        await sim.run(0.5)
    sim.store.fault = None
    await sim.run(10)

    final = await sim.tracker.get("up", owner="ann")
    assert final.state is S.COMPLETED
    assert final.bytes_transferred == 7
    assert final.attempt == 3
    assert sim.internals.flusher.is_idle
    assert len(sim.internals.registry) == 0


async def test_prior_state_that_two_tasks_load_is_applied_once(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the sequence of the previous attempt would be added twice."""
    outcomes.client_disconnected(sim.begin("up"))
    await sim.run(1)
    [before] = await sim.memory.load(UploadKey("ann", "up"))
    loaded_keys: list[UploadKey] = []

    async def load(_store: FaultyStore, *keys: UploadKey) -> list[TransferRecord]:
        loaded_keys.extend(keys)
        while len(loaded_keys) < 2:
            await checkpoint()
        return await sim.memory.load(*keys)

    monkeypatch.setattr(FaultyStore, "load", load)
    live = sim.begin("up")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: sim.tracker.get("up", owner="ann"))
            tasks.start_soon(sim.internals.flusher.load_prior_state, [live])

    assert len(loaded_keys) == 2
    assert (live.attempt, live.sequence) == (2, before.sequence + 1)
