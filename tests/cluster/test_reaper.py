"""The reaper: uploads that expire or lose their worker are ended exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import AsyncMock

import anyio
import pytest
from attrs import evolve

from tests._support.records import record
from tests._support.simulation import Simulation
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from upload_progress import (
    MemoryStore,
    ProgressTracker,
    StoreUnavailable,
    UploadEnded,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import ErrorCode, TransferRecord, UploadKey
from upload_progress._runtime.circuit_breaker import FIRST_OPEN_SECONDS
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


async def test_announced_upload_expires_after_a_day(
    sim: Simulation,
) -> None:
    announced = await sim.tracker.announce(owner="ann", total_bytes=5)
    subscription = sim.subscription(announced.upload_id)
    await sim.run(1)
    assert [update.progress.state for update in subscription.take()] == [S.PENDING]

    sim.clock.advance(24 * 3600 - 30)
    await sim.run(1)
    assert subscription.take() == []
    sim.clock.advance(120)
    await sim.run(2)

    [expired] = [update.progress for update in subscription.take()]
    assert expired.state is S.FAILED
    assert expired.error is not None
    assert expired.error.code is ErrorCode.EXPIRED
    assert await sim.tracker.get(announced.upload_id, owner="ann") == expired
    assert sim.events(announced.upload_id)[-1] == expired
    assert sim.tracker.statistics().reaped == 1
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel(announced.upload_id, owner="ann")


async def test_many_uploads_expire_in_portions(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test counts portions; on a busy machine one may take longer than a call is allowed to.
    monkeypatch.setattr("upload_progress._runtime.circuit_breaker.CALL_SECONDS", 60.0)
    announced = await sim.tracker.announce(owner="ann")
    [pending] = await sim.memory.load(UploadKey("ann", announced.upload_id))
    await sim.memory.save([evolve(pending, upload_id=f"u{number}") for number in range(10_000)])
    sim.clock.advance(24 * 3600 + 120)

    await sim.run(1)
    assert 0 < sim.tracker.statistics().reaped <= 2000
    await sim.run(10)

    assert sim.tracker.statistics().reaped == 10_001
    assert sim.is_at_baseline()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_upload_of_a_lost_worker_fails_within_20_seconds(backend: str) -> None:
    """P01, P04: another worker ends it, which started together with it."""

    async def main() -> tuple[float, UploadProgress]:
        clock = VirtualClock()
        memory = MemoryStore(clock=clock)
        store = FaultyStore(memory)
        lost, other = (ProgressTracker(store=each, clock=clock) for each in (store, memory))
        async with lost.lifespan(), other.lifespan(), lost.track(owner="ann", upload_id="up"):
            await anyio.sleep(1)
            store.fault, since = "raise", anyio.current_time()
            found = await other.get("up", owner="ann")
            while found.state is not S.FAILED:
                await anyio.sleep(0.1)
                found = await other.get("up", owner="ann")
            seconds = anyio.current_time() - since
            store.fault = None
        return seconds, found

    seconds, found = run_in_virtual_time(main, backend)

    assert 15 - 5 <= seconds <= 20
    assert found.error is not None
    assert found.error.code is ErrorCode.WORKER_LOST


async def outlive_lease(sim: Simulation, *others: ProgressTracker) -> None:
    """Let the lease of the simulated worker run out, while *others* renew theirs."""
    for _ in range(10):
        sim.clock.advance(2)
        for other in others:
            await internals_of(other).reaper.run_once()


async def test_upload_of_a_lost_worker_is_ended_once(sim: Simulation) -> None:
    """Whichever of several workers finds it first."""
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
    await outlive_lease(sim, *others)
    for other in others:
        await internals_of(other).flusher.flush()

    read = await others[1].get("up", owner="ann")
    assert read.error is not None
    assert read.error.code is ErrorCode.WORKER_LOST
    [lost] = subscription.take()
    assert lost.progress == read
    assert sum(other.statistics().reaped for other in others) == 1


async def last_seen(sim: Simulation) -> UploadProgress:
    """Return the last version that a watcher sees of an upload, which is not stored."""
    subscription = sim.subscription("up")
    live = sim.begin("up", total=1_000_000)
    for _ in range(50):
        sim.add(live, 10)
        await sim.run(0.1)
    [seen] = subscription.take()
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    assert stored.sequence < seen.progress.sequence
    subscription.close()
    return seen.progress


async def test_end_of_a_lost_worker_is_newer_than_all_that_its_watchers_saw(
    sim: Simulation,
) -> None:
    """They reconnect to another worker, with the highest sequence that they have seen."""
    seen = await last_seen(sim)
    other = ProgressTracker(store=sim.memory, clock=sim.clock)
    await outlive_lease(sim, other)
    ended = await other.get("up", owner="ann")

    assert ended.state is S.FAILED
    assert ended.sequence > seen.sequence


async def test_cancel_by_another_worker_is_newer_than_all_that_watchers_saw(
    sim: Simulation,
) -> None:
    """Also if the worker that receives the upload does not reply."""
    seen = await last_seen(sim)
    other = ProgressTracker(store=sim.memory, clock=sim.clock)
    cancelled = await other.cancel("up", owner="ann")

    assert cancelled.state is S.CANCELLED
    assert cancelled.sequence > seen.sequence


async def test_next_attempt_at_another_worker_is_newer_than_all_that_watchers_saw(
    sim: Simulation,
) -> None:
    """Whether the worker that received the attempt before is alive or not."""
    seen = await last_seen(sim)
    for is_dead in (False, True):
        other = ProgressTracker(store=sim.memory, clock=sim.clock)
        if is_dead:
            await outlive_lease(sim, other)
        async with other.track(owner="ann", upload_id="up"):
            await internals_of(other).flusher.flush(everything=True)
            [stored] = await sim.memory.load(UploadKey("ann", "up"))
            following = await other.get("up", owner="ann")
            assert following.attempt == seen.attempt + 1
            assert stored.sequence > seen.sequence
        seen = await other.get("up", owner="ann")


async def test_end_is_published_although_the_store_raised(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saved one of two ends before it raised."""
    await sim.memory.save([record("first"), record("second")])
    await sim.memory.renew("w", seconds=15.0)
    for _ in range(10):
        sim.clock.advance(2)
        await sim.memory.renew("alive", seconds=15.0)
    save = sim.store.save

    async def save_one_and_raise(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        await save(records[:1])
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(sim.store, "save", save_one_and_raise)
        await sim.internals.reaper.run_once()
    assert sim.publisher.events == []
    await sim.run(30)

    ends = [(each.subject, each.data.state) for each in sim.publisher.events]
    assert sorted(ends) == [("first", S.FAILED), ("second", S.FAILED)]


async def test_invalid_result_of_the_store_does_not_end_the_reaper(
    sim: Simulation, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overdue(*, limit: int) -> Sequence[TransferRecord]:
        return [object()] * limit  # type: ignore[list-item]  # not a record

    with monkeypatch.context() as patch:
        patch.setattr(sim.store, "overdue", overdue)
        await sim.internals.reaper.run_once()
    await sim.internals.reaper.run_once()

    assert caplog.messages == [
        "ending lost uploads failed (AttributeError); uploads are not affected"
    ]


async def test_end_is_not_published_if_the_upload_has_ended_otherwise(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was quicker."""
    lost = record("up")
    await sim.memory.save([evolve(lost, sequence=5, state=S.COMPLETED, finished_at=5.0)])

    async def overdue(*, limit: int) -> Sequence[TransferRecord]:
        return [lost][:limit]

    with monkeypatch.context() as patch:
        patch.setattr(sim.store, "overdue", overdue)
        await sim.internals.reaper.run_once()
    await sim.run(1)

    assert sim.publisher.events == []


async def test_store_is_compared_after_any_call_has_failed(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after that of a client, and once: a store that has restarted may have lost writes."""
    reaper, compare = sim.internals.reaper, AsyncMock()
    monkeypatch.setattr(reaper, "on_doubt", compare)
    await reaper.run_once()
    sim.store.fault = "raise"
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("up", owner="ann")
    sim.store.fault = None

    compared = list[int]()
    for _ in range(3):
        await reaper.run_once()
        compared.append(compare.await_count)
        sim.clock.advance(FIRST_OPEN_SECONDS)

    assert compared == [0, 1, 1]
