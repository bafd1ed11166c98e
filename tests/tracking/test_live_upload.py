"""A live upload by itself: what comes too early or too late changes nothing."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import ANN, Simulation
from upload_progress import UploadState
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.testing import FaultyStore
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


def test_what_was_cancelled_before_its_first_byte_does_not_begin(sim: Simulation) -> None:
    live = internals_of(sim.tracker).admission.open(requested_id="up")
    assert internals_of(sim.tracker).admission.admit(live, ANN)
    live.cancel()
    live.begin()

    assert live.state is UploadState.CANCELLED
    assert live.started_at is None


def test_nothing_is_chosen_after_the_end(sim: Simulation) -> None:
    live = sim.begin("up")
    live.set_attribute("filename", "early")
    live.client_disconnected()
    live.set_attribute("filename", "late")

    assert live.filename == "early"


def test_an_upload_that_has_not_begun_has_no_arrival(sim: Simulation) -> None:
    assert internals_of(sim.tracker).admission.open()._judge_arrival(0.0) is None


async def test_two_that_ask_the_store_at_once_settle_it_once(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sequence of the attempt before would be added twice."""
    sim.begin("up").client_disconnected()
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
