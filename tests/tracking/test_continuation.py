"""How a live upload continues or supersedes what other workers have stored under its id."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests._support.records import record
from tests._support.simulation import Simulation
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import TransferRecord, UploadKey

pytestmark = pytest.mark.anyio

S = UploadState


def save_at_once(sim: Simulation, monkeypatch: pytest.MonkeyPatch, **changes: float) -> None:
    """Let another worker store an upload of the same id just before this one does.

    It has received 7 bytes, and has begun now, unless *changes* say otherwise.
    """
    now = sim.clock.time()
    times = {"created_at": now, "started_at": now, "updated_at": now}
    other = record("up", received_bytes=7, **{**times, **changes})

    async def save(records: Sequence[TransferRecord]) -> None:
        await sim.memory.save([other])
        monkeypatch.undo()
        await sim.memory.save(records)

    monkeypatch.setattr(sim.store, "save", save)


async def shown(sim: Simulation) -> UploadProgress:
    return await sim.tracker.get("up", owner="ann")


async def test_newer_of_two_uploads_that_begin_at_once_is_the_next_attempt(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    sim.add(live, 4)
    save_at_once(sim, monkeypatch, started_at=sim.clock.time() - 5)
    await sim.run(0.5)

    assert not live.is_superseded
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred, now.total_bytes) == (2, 4, 10)
    assert [each.transfer_id for each in await sim.memory.load(UploadKey("ann", "up"))] == [
        live.transfer_id
    ]


async def test_older_of_two_uploads_that_begin_at_once_is_not_reported(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    sim.add(live, 4)
    save_at_once(sim, monkeypatch, started_at=sim.clock.time() + 5)
    await sim.run(0.5)
    live.end_body()
    live.finish(200)
    await sim.run(1)

    assert live.is_superseded
    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.RECEIVING, 7)


async def test_upload_of_which_another_worker_has_the_next_attempt_is_not_reported(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    save_at_once(sim, monkeypatch, attempt=2)
    await sim.run(0.5)

    assert live.is_superseded
    assert (await shown(sim)).attempt == 2
