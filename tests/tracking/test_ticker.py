"""The ticker: errors of one upload affect no other, and long ticks give way to other tasks."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import Simulation
from upload_progress import UploadState
from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.ticker import PORTION

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["tick", "commit"])
async def test_error_of_one_upload_affects_no_other(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sim = Simulation()
    broken, healthy = sim.begin("broken", total=10), sim.begin("healthy", total=10)
    original = getattr(LiveUpload, method)

    def fail(upload: LiveUpload, *arguments: object) -> object:
        if upload is broken:
            raise ZeroDivisionError
        return original(upload, *arguments)

    monkeypatch.setattr(LiveUpload, method, fail)
    await sim.run(3)
    healthy.client_disconnected()
    await sim.run(3)

    assert sim.events("healthy")[-1].state is UploadState.FAILED
    assert len(caplog.records) == 1


async def test_tick_gives_way_after_each_portion() -> None:
    sim = Simulation()
    lives = [sim.begin() for _ in range(2 * PORTION + 1)]
    counts: list[int] = []

    async def count_scheduled() -> None:
        while len(counts) < 10:
            counts.append(sum((live.timer_at or 0) > sim.clock.monotonic() for live in lives))
            await checkpoint()

    sim.clock.advance(OBSERVE_SECONDS + 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_scheduled)
        await checkpoint()
        await sim.internals.background.ticker.tick()

    # Trio lets tasks run in random order: between two portions another may run twice, or not.
    assert {PORTION, 2 * PORTION} & set(counts)
    assert counts[-1] == len(lives)
