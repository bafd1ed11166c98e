"""Announce and cancel uploads."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import AsyncMock

import pytest
from attrs import define, evolve

from tests._support.simulation import Simulation
from upload_progress import (
    InvalidValue,
    Limits,
    MemoryStore,
    ProgressTracker,
    QuotaExceeded,
    StoreBusy,
    Upload,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadState,
)
from upload_progress._cluster import commands
from upload_progress._cluster.messages import SupersedeRequest, pack
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import CANCELLED
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import TransferPhase
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


async def test_request_continues_its_announcement(sim: Simulation) -> None:
    announced = await sim.tracker.announce(
        owner="ann",
        filename="a.bin",
        total_bytes=10,
        content_type="x/y",
        group="g",
        metadata={"k": 1},
    )
    assert announced.state is S.PENDING
    await sim.run(5)
    live = sim.begin(announced.upload_id)
    sim.add(live, 5)
    early = await sim.tracker.get(announced.upload_id, owner="ann")
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)
    final = await sim.tracker.get(announced.upload_id, owner="ann")

    for each in (early, final):
        assert (each.filename, each.total_bytes, each.group) == ("a.bin", 10, "g")
        assert (each.content_type, each.metadata, each.attempt) == ("x/y", {"k": 1}, 1)
        assert each.created_at == announced.created_at
        assert each.sequence > announced.sequence
    assert (final.state, final.percent) == (S.COMPLETED, 50.0)


async def test_announcements_are_limited_and_validated() -> None:
    sim = Simulation(limits=Limits(announced_per_owner=3))
    for _ in range(3):
        await sim.tracker.announce(owner="ann")
    with pytest.raises(QuotaExceeded, match="announced_per_owner") as caught:
        await sim.tracker.announce(owner="ann")
    assert caught.value.retry_after_seconds > 0
    await sim.tracker.announce(owner="bob")
    for invalid in ({"total_bytes": -1}, {"metadata": {"k": "x" * 5000}}, {"group": "x" * 999}):
        with pytest.raises(InvalidValue, match=r"body\."):
            await sim.tracker.announce(owner="bob", **invalid)
    with pytest.raises(InvalidValue):
        await sim.tracker.announce(owner="")


@define(eq=False)
class BusyStore(FaultyStore):
    """A store that has no free connection for the first *busy_calls* announcements."""

    busy_calls: int = 3

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        self.busy_calls -= 1
        if self.busy_calls >= 0:
            raise StoreBusy
        return await super().announce(record, limit=limit)


async def test_announcement_waits_for_a_busy_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while: then it is refused, and that is no failure of the store."""
    monkeypatch.setattr(commands, "_FIRST_RETRY_SECONDS", 0.001)
    store = BusyStore(MemoryStore())
    tracker = ProgressTracker(store=store)

    assert (await tracker.announce(owner="ann")).state is S.PENDING
    assert store.busy_calls == -1

    store.busy_calls = 10**6
    monkeypatch.setattr(commands, "WRITE_SECONDS", 0.02)
    with pytest.raises(StoreBusy):
        await tracker.announce(owner="ann")
    assert tracker.statistics().store_failures == 0


async def test_announced_upload_is_cancelled_once(sim: Simulation) -> None:
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


async def test_live_upload_is_stopped_once_and_an_ended_one_never(sim: Simulation) -> None:
    stopped = []
    live, done = sim.begin("up"), sim.begin("done")
    live.opened_by.on_cancel = lambda: stopped.append("up")
    done.opened_by.on_cancel = lambda: stopped.append("done")
    done.end_body()
    outcomes.finish(done, 200)

    for _ in range(2):
        assert (await sim.tracker.cancel("up", owner="ann")).state is S.CANCELLED
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("done", owner="ann")
    await sim.run(1)
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("done", owner="ann")

    assert stopped == ["up"]


async def test_upload_that_begins_during_its_cancel_is_cancelled(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = await sim.tracker.announce(owner="ann")
    lives: list[LiveUpload] = []

    async def begin_and_save(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        lives.append(sim.begin(announced.upload_id))
        return await sim.memory.save(records)

    monkeypatch.setattr(sim.store, "save", begin_and_save)
    cancelled = await sim.tracker.cancel(announced.upload_id, owner="ann")

    assert cancelled.state is S.CANCELLED
    assert lives[0].state is S.CANCELLED


async def test_only_an_older_attempt_is_superseded(sim: Simulation) -> None:
    live = sim.begin("up")
    own = live.transfer_id
    for attempt, name, is_superseded in (
        (1, own, False),
        (2, "of one before", False),
        (2, own, True),
        (2, own, True),
    ):
        request = pack(SupersedeRequest("ann", "up", attempt, (name,)))
        assert await sim.internals.commands._handle_supersede(request) is None
        assert live.is_superseded is is_superseded


def worker_beside(sim: Simulation) -> ProgressTracker:
    """Return another worker, which shares the store and no broker."""
    return ProgressTracker(store=sim.memory, clock=sim.clock)


async def stored(sim: Simulation) -> TransferRecord:
    [record] = await sim.memory.load(UploadKey("ann", "up"))
    return record


@pytest.mark.parametrize("is_watched", [True, False])
async def test_nothing_follows_a_cancel_of_which_the_receiving_worker_does_not_know(
    sim: Simulation, is_watched: bool
) -> None:
    """The store refuses its next version, and it stops the transfer."""
    subscription, stopped = sim.subscription("up"), list[str]()
    live = sim.begin("up", total=100)
    live.opened_by.on_cancel = lambda: stopped.append("up")
    sim.add(live, 10)
    await sim.run(2)
    if not is_watched:
        subscription.close()
    sim.publisher.events.clear()
    subscription.take()

    end = await worker_beside(sim).cancel("up", owner="ann")
    record = await stored(sim)
    for _ in range(30):
        sim.add(live, 1)
        await sim.run()

    assert (end.state, end.bytes_transferred) == (S.CANCELLED, 10)
    assert await sim.tracker.get("up", owner="ann") == end
    assert await stored(sim) == record
    assert (stopped, live.error) == (["up"], CANCELLED)
    assert not any(event.data.sequence > end.sequence for event in sim.publisher.events)
    assert not any(event.data.state is S.CANCELLED for event in sim.publisher.events)
    assert [each.progress for each in subscription.take()] == [end] * is_watched
    assert sim.is_at_baseline() or is_watched


@pytest.mark.parametrize("phase", [TransferPhase.RECEIVED, TransferPhase.RESPONDING])
async def test_upload_that_is_accepted_before_its_worker_knows_of_the_cancel(
    sim: Simulation, phase: TransferPhase
) -> None:
    """The application has the file: it is the next attempt, as nothing follows an end."""
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    live.end_body()
    live.opened_by.phase = phase
    await sim.run(2)
    end = await worker_beside(sim).cancel("up", owner="ann")
    if phase is TransferPhase.RESPONDING:
        # Its stage ends. It is too late to stop the transfer.
        live.mark_due()
        await sim.run(2)
        shown = await sim.tracker.get("up", owner="ann")
        assert (shown.state, shown.attempt) == (S.PROCESSING, 2)

    outcomes.finish(live, 200)
    await sim.run(2)

    shown = await sim.tracker.get("up", owner="ann")
    assert (end.state, end.attempt) == (S.CANCELLED, 1)
    assert (shown.state, shown.attempt, shown.bytes_transferred) == (S.COMPLETED, 2, 10)
    assert shown.sequence > end.sequence
    assert (await stored(sim)).attempt == 2


async def test_upload_that_is_handed_over_before_its_worker_knows_of_the_cancel(
    sim: Simulation,
) -> None:
    """Its task never begins."""
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    live.end_body()
    await sim.run(2)
    end = await worker_beside(sim).cancel("up", owner="ann")

    token = await Upload(live).hand_over()
    outcomes.finish(live, 202)
    await sim.run(2)

    assert await sim.tracker.get("up", owner="ann") == end
    with pytest.raises(UploadCancelled):
        await sim.internals.hand_overs.resume(token)
    assert sim.is_at_baseline()


async def test_end_of_the_upload_precedes_its_cancel_in_the_store(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiving worker stores the end after the cancel has read the records."""
    live = sim.begin("up", total=10)
    await sim.run(2)
    other, save = worker_beside(sim), sim.memory.save

    async def save_end_first(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        monkeypatch.undo()
        live.end_body()
        outcomes.finish(live, 200)
        await sim.run()
        return await save(records)

    monkeypatch.setattr(MemoryStore, "save", lambda _store, records: save_end_first(records))
    with pytest.raises(UploadEnded):
        await other.cancel("up", owner="ann")

    assert (await stored(sim)).state is S.COMPLETED


@pytest.mark.parametrize("has_next_attempt", [True, False])
async def test_upload_has_gone_during_its_cancel(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch, has_next_attempt: bool
) -> None:
    """It was deleted, or replaced by the next attempt: then the client tries again."""
    sim.begin("up", total=10)
    await sim.run(2)
    other, record = worker_beside(sim), await stored(sim)

    async def save_other(_store: MemoryStore, _records: object) -> Sequence[TransferRecord]:
        monkeypatch.undo()
        if has_next_attempt:
            return await sim.memory.save([evolve(record, attempt=2, transfer_id="another")])
        monkeypatch.setattr(MemoryStore, "load", AsyncMock(return_value=[]))
        return []

    monkeypatch.setattr(MemoryStore, "save", save_other)
    with pytest.raises(StoreBusy if has_next_attempt else UploadNotFound):
        await other.cancel("up", owner="ann")
