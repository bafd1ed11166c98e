"""Reading back what is received here: another worker may have ended it."""

from __future__ import annotations

import anyio
import pytest
from attrs import evolve

from tests._support.simulation import Simulation, deadline
from upload_progress import MemoryStore, ProgressTracker, UploadCancelled, UploadState
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._model.models import TransferRecord, UploadError, UploadKey
from upload_progress._model.state import ABORTED, CANCELLED, LOST
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.backends import MemoryPublisher

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


def reconciler(sim: Simulation) -> Reconciler:
    return sim.parts.background.reconciler


async def begun(sim: Simulation, upload_id: str = "up") -> LiveUpload:
    """Begin an upload that the store knows of."""
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
) -> None:
    """Write into the store what another worker would."""
    [record] = await sim.memory.load(UploadKey("ann", "up"))
    there: TransferRecord = evolve(
        record,
        state=state,
        error=error,
        attempt=attempt,
        sequence=record.sequence + 100,
        transfer_id=transfer_id or record.transfer_id,
        finished_at=None if state is S.RECEIVING else sim.clock.time(),
    )
    await sim.memory.save([there])


async def test_what_its_owner_cancelled_elsewhere_is_cut_here(sim: Simulation) -> None:
    live = await begun(sim)
    await write(sim, S.CANCELLED, error=CANCELLED, transfer_id="another")

    await reconciler(sim).everything()

    assert live.state is S.CANCELLED


async def test_what_others_took_for_dead_is_told_no_more(sim: Simulation) -> None:
    live = await begun(sim)
    await write(sim, S.FAILED, error=LOST)

    await reconciler(sim).everything()
    sim.add(live, 10)
    await sim.run(1)

    assert live.error == LOST
    assert (await sim.tracker.get("up", owner="ann")).error == LOST


async def test_another_attempt_ends_this_one(sim: Simulation) -> None:
    live = await begun(sim)
    await write(sim, S.RECEIVING, attempt=2, transfer_id="another")

    await reconciler(sim).everything()

    assert live.error == LOST


async def test_the_end_of_another_transfer_ends_nothing_here(sim: Simulation) -> None:
    live = await begun(sim)
    await write(sim, S.FAILED, error=ABORTED, transfer_id="another")

    await reconciler(sim).everything()
    assert live.state is S.RECEIVING

    live.cancel()
    await reconciler(sim).these([live])
    assert live.error == CANCELLED


async def test_what_is_not_known_to_the_store_yet_is_left_alone(sim: Simulation) -> None:
    live = sim.begin("up")
    await reconciler(sim).everything()
    assert live.state is S.RECEIVING


async def test_nothing_is_ended_while_the_store_is_away(sim: Simulation) -> None:
    live = await begun(sim)
    sim.store.fault = "raise"
    await reconciler(sim).everything()
    assert live.state is S.RECEIVING


async def test_all_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter may be lost: the post carries none here."""
    monkeypatch.setattr("upload_progress._cluster.reconciler.EVERY_SECONDS", 0.01)
    memory = MemoryStore()
    one = ProgressTracker(store=memory, publisher=MemoryPublisher())
    other = ProgressTracker(store=memory, publisher=MemoryPublisher())

    is_begun: anyio.Event

    async def receive() -> None:
        async with one.track(owner="ann", upload_id="up"):
            is_begun.set()
            await anyio.sleep_forever()

    async def cancel() -> None:
        await is_begun.wait()
        is_there = False
        while not is_there:
            await anyio.sleep(0.002)
            is_there = len(memory) > 0
        await other.cancel("up", owner="ann")

    with deadline():
        async with one.lifespan(), other.lifespan(), anyio.create_task_group() as tasks:
            is_begun = anyio.Event()
            tasks.start_soon(cancel)
            with pytest.raises(UploadCancelled):
                await receive()
