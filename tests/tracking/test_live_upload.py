"""A live upload by itself: what comes too early or too late changes nothing."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import ANN, Simulation
from upload_progress import UploadState
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._tracking.live_upload import arrival_of
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


def test_what_was_cancelled_before_its_first_byte_does_not_begin(sim: Simulation) -> None:
    live = sim.tracker.open(claimed_id="up")
    assert sim.tracker.admit(live, ANN)
    live.cancel()
    live.begin()

    assert live.state is UploadState.CANCELLED
    assert live.started_at is None


def test_nothing_is_chosen_after_the_end(sim: Simulation) -> None:
    live = sim.begin("up")
    live.choose("filename", "early")
    live.disconnected()
    live.choose("filename", "late")

    assert live.filename == "early"


def test_what_has_not_begun_has_not_arrived(sim: Simulation) -> None:
    assert arrival_of(sim.tracker.open()) is None


async def test_two_that_ask_the_store_at_once_settle_it_once(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sequence of the attempt before would be added twice."""
    sim.begin("up").disconnected()
    await sim.run(1)
    [before] = await sim.memory.load(UploadKey("ann", "up"))
    asking: list[UploadKey] = []

    async def load(_store: FaultyStore, *keys: UploadKey) -> list[TransferRecord]:
        asking.extend(keys)
        while len(asking) < 2:
            await checkpoint()
        return await sim.memory.load(*keys)

    monkeypatch.setattr(FaultyStore, "load", load)
    live = sim.begin("up")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(lambda: sim.tracker.get("up", owner="ann"))

    assert len(asking) == 2
    assert (live.attempt, live.sequence) == (2, before.sequence + 1)
