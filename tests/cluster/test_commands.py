"""Announce and cancel uploads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define

from tests._support.simulation import Simulation
from upload_progress import (
    InvalidValue,
    Limits,
    MemoryStore,
    ProgressTracker,
    QuotaExceeded,
    StoreBusy,
    UploadEnded,
    UploadNotFound,
    UploadState,
)
from upload_progress._cluster import commands
from upload_progress._cluster.messages import SupersedeRequest, pack
from upload_progress._model.models import TransferRecord
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
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

    async def begin_and_save(records: Sequence[TransferRecord]) -> None:
        lives.append(sim.begin(announced.upload_id))
        await sim.memory.save(records)

    monkeypatch.setattr(sim.store, "save", begin_and_save)
    cancelled = await sim.tracker.cancel(announced.upload_id, owner="ann")

    assert cancelled.state is S.CANCELLED
    assert lives[0].state is S.CANCELLED


async def test_only_an_older_attempt_is_superseded(sim: Simulation) -> None:
    live = sim.begin("up")
    for attempt, is_superseded in ((1, False), (2, True), (2, True)):
        request = pack(SupersedeRequest("ann", "up", attempt))
        assert await sim.internals.commands._handle_supersede(request) is None
        assert live.is_superseded is is_superseded
