"""Comparing the uploads that are received here with the store."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from attrs import evolve

from tests._support.simulation import Simulation, deadline
from upload_progress import MemoryStore, ProgressTracker, UploadCancelled, UploadState
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._model.models import ErrorCode, TransferRecord, UploadError, UploadKey
from upload_progress._model.state import ABORTED, CANCELLED, LOST
from upload_progress._reading.record_loader import Loaded
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import TransferPhase
from upload_progress.backends import MemoryPublisher
from upload_progress.exceptions import StoreUnavailable

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


def reconciler(sim: Simulation) -> Reconciler:
    return sim.internals.background.reconciler


async def begin(sim: Simulation, upload_id: str = "up") -> LiveUpload:
    """Begin an upload, and wait until it is stored."""
    live = sim.begin(upload_id, total=100)
    await sim.run(0.5)
    sim.add(live, 10)
    await sim.run(0.5)
    return live


async def write(
    sim: Simulation,
    state: UploadState,
    *,
    attempt: int = 1,
    error: UploadError | None = None,
    transfer_id: str | None = None,
    **changes: Any,  # noqa: ANN401  # any field
) -> None:
    """Write a record to the store as another worker would."""
    [record] = await sim.memory.load(UploadKey("ann", "up"))
    written: TransferRecord = evolve(
        record,
        state=state,
        error=error,
        attempt=attempt,
        sequence=record.sequence + 100,
        transfer_id=transfer_id or record.transfer_id,
        started_at=None if state is S.CANCELLED else record.started_at,
        finished_at=None if state is S.RECEIVING else sim.clock.time(),
    )
    await sim.memory.save([evolve(written, **changes)])


@pytest.mark.parametrize("transfer_id", [None, "another"])
async def test_upload_that_was_cancelled_elsewhere_is_cut(
    sim: Simulation, transfer_id: str | None
) -> None:
    live = await begin(sim)
    await write(sim, S.CANCELLED, error=CANCELLED, transfer_id=transfer_id)

    await reconciler(sim).check_all()

    assert live.state is S.CANCELLED


async def test_upload_in_a_part_of_the_store_that_is_away_is_not_compared(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing record says nothing, if the part of the store that may have it does not answer."""
    live = await begin(sim)
    loader = sim.internals.flusher.loader
    await write(sim, S.CANCELLED, error=CANCELLED, transfer_id="another")

    async def load_nothing(_keys: object) -> Loaded:
        return Loaded({}, {"ann": StoreUnavailable()})

    with monkeypatch.context() as patch:
        patch.setattr(type(loader), "load_available", lambda _self, keys: load_nothing(keys))
        await reconciler(sim).check([live])
    states = [live.state]
    await reconciler(sim).check([live])

    assert [*states, live.state] == [S.RECEIVING, S.CANCELLED]


async def test_end_that_another_worker_has_stored_is_the_only_one(sim: Simulation) -> None:
    """The worker that receives the upload neither stores nor publishes a second one."""
    live = await begin(sim)
    subscription = sim.subscription("up")
    await sim.run(1)
    subscription.take()
    await write(sim, S.CANCELLED, error=CANCELLED, transfer_id="another")
    [stored, other] = sorted(
        await sim.memory.load(UploadKey("ann", "up")), key=lambda each: each.sequence
    )
    sim.publisher.events.clear()

    await reconciler(sim).check_all()
    shown = [await sim.tracker.get("up", owner="ann")]
    await sim.run(2)
    shown.append(await sim.tracker.get("up", owner="ann"))

    ends = {(each.state, each.sequence) for each in shown}
    assert ends == {(S.CANCELLED, stored.sequence + other.sequence)}
    assert live.error == CANCELLED
    assert sim.publisher.events == []
    assert [update.progress for update in subscription.take()] == [shown[0]]
    assert sim.internals.flusher.is_idle


async def test_cancel_elsewhere_is_too_late_once_the_response_is_sent(sim: Simulation) -> None:
    live = await begin(sim)
    live.end_body()
    live.opened_by.phase = TransferPhase.RESPONDING
    await write(sim, S.CANCELLED, error=CANCELLED, transfer_id="another")

    await reconciler(sim).check_all()

    assert (live.state, live.attempt, live.has_ended_elsewhere) == (S.PROCESSING, 2, False)


async def test_upload_that_others_ended_as_lost_goes_on_as_the_next_attempt(
    sim: Simulation,
) -> None:
    """They were wrong: the worker is alive. Nothing follows the end of an attempt."""
    live = await begin(sim)
    await write(sim, S.FAILED, error=LOST)
    ended = await ProgressTracker(store=sim.memory, clock=sim.clock).get("up", owner="ann")

    await reconciler(sim).check_all()
    sim.add(live, 10)
    await sim.run(2)

    assert live.error is None
    shown = await sim.tracker.get("up", owner="ann")
    assert (shown.state, shown.attempt, shown.bytes_transferred) == (S.RECEIVING, 2, 20)
    assert shown.sequence > ended.sequence
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    assert (stored.attempt, stored.state) == (2, S.RECEIVING)
    assert {event.data.attempt for event in sim.publisher.events} == {1, 2}


async def test_newer_attempt_supersedes_this_one(sim: Simulation) -> None:
    live = await begin(sim)
    names = (live.transfer_id,)
    await write(sim, S.RECEIVING, attempt=2, transfer_id="another", former_sessions=names)

    await reconciler(sim).check_all()
    outcomes.client_disconnected(live)
    await sim.run(1)

    assert live.is_superseded
    shown = await sim.tracker.get("up", owner="ann")
    assert (shown.attempt, shown.state) == (2, S.RECEIVING)


async def test_older_upload_with_a_higher_attempt_supersedes_nothing(sim: Simulation) -> None:
    """Its worker has counted attempts without this one."""
    live = await begin(sim)
    begun_at = sim.clock.time() - 30
    await write(sim, S.RECEIVING, transfer_id="another", attempt=4, started_at=begun_at)

    await reconciler(sim).check_all()
    await sim.run(1)

    assert not live.is_superseded
    shown = await sim.tracker.get("up", owner="ann")
    assert (shown.attempt, shown.bytes_transferred) == (5, live.received_bytes)


async def test_end_of_another_transfer_changes_nothing(sim: Simulation) -> None:
    live = await begin(sim)
    await write(sim, S.FAILED, error=ABORTED, transfer_id="another")

    await reconciler(sim).check_all()
    assert live.state is S.RECEIVING

    live.cancel()
    await reconciler(sim).check([live])
    assert live.error == CANCELLED


async def test_upload_that_is_not_stored_yet_is_left_alone(sim: Simulation) -> None:
    live = sim.begin("up")
    await reconciler(sim).check_all()
    assert live.state is S.RECEIVING


async def test_nothing_changes_while_the_store_is_away(sim: Simulation) -> None:
    live = await begin(sim)
    sim.store.fault = "raise"
    await reconciler(sim).check_all()
    assert live.state is S.RECEIVING


@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize("is_reachable", [True, False])
async def test_all_uploads_are_checked_periodically(
    monkeypatch: pytest.MonkeyPatch, has_lifespan: bool, is_reachable: bool
) -> None:
    """A message may be lost: here the workers have no common transport.

    More often if no message arrives, because there is no broker, or no lifespan connects to it.
    """
    monkeypatch.setattr("upload_progress._cluster.reconciler.UNREACHABLE_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._background.IDLE_SECONDS", 0.01)
    if is_reachable:
        monkeypatch.setattr("upload_progress._cluster.reconciler.INTERVAL_SECONDS", 0.02)
    else:
        monkeypatch.setattr(RpcEndpoint, "is_open", False)
    memory = MemoryStore()
    receiving = ProgressTracker(store=memory, publisher=MemoryPublisher())
    other = ProgressTracker(store=memory, publisher=MemoryPublisher())

    is_begun: anyio.Event

    async def receive() -> None:
        async with receiving.track(owner="ann", upload_id="up"):
            is_begun.set()
            await anyio.sleep_forever()

    async def cancel() -> None:
        await is_begun.wait()
        is_stored = False
        while not is_stored:
            await anyio.sleep(0.002)
            is_stored = len(memory) > 0
        await other.cancel("up", owner="ann")

    with deadline():
        lifespan = receiving.lifespan() if has_lifespan else nullcontext()
        async with lifespan, anyio.create_task_group() as tasks:
            is_begun = anyio.Event()
            tasks.start_soon(cancel)
            with pytest.raises(UploadCancelled):
                await receive()


async def test_announcement_that_expired_meanwhile_does_not_end_its_upload(sim: Simulation) -> None:
    live = await begin(sim)
    [record] = await sim.memory.load(UploadKey("ann", "up"))
    expired = evolve(
        record,
        transfer_id="announcement",
        state=S.FAILED,
        error=UploadError(ErrorCode.EXPIRED, "No byte arrived for too long."),
        started_at=None,
        finished_at=sim.clock.time(),
    )
    await sim.memory.save([expired])

    await reconciler(sim).check_all()

    assert live.state is S.RECEIVING
