"""Time and housekeeping go on, whatever fails in them; each kind of trouble is logged once."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import Simulation
from upload_progress import UploadState
from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.ticker import PORTION
from upload_progress.exceptions import MiddlewareMissing, MissingExtra

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["tick", "commit"])
async def test_an_upload_that_fails_to_be_looked_at_harms_no_other(
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


async def test_a_store_that_hands_out_nonsense_is_outlived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sim = Simulation()

    async def nonsense(*, limit: int) -> object:
        await checkpoint()
        return ["nonsense"] * (limit - limit + 1)

    monkeypatch.setattr(sim.store, "overdue", nonsense)
    await sim.run(5)

    assert len(caplog.records) == 1
    assert sim.tracker.statistics().reaped == 0


async def test_others_run_between_two_portions_of_a_tick() -> None:
    sim = Simulation()
    lives = [sim.begin() for _ in range(2 * PORTION + 1)]
    seen: list[int] = []

    async def look() -> None:
        while len(seen) < 10:
            seen.append(sum((live.timer_at or 0) > sim.clock.monotonic() for live in lives))
            await checkpoint()

    sim.clock.advance(OBSERVE_SECONDS + 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await checkpoint()
        await sim.parts.background.ticker.tick()

    # Trio lets tasks run in random order: between two portions another may run twice, or not.
    assert {PORTION, 2 * PORTION} & set(seen)
    assert seen[-1] == len(lives)


def test_errors_say_what_to_do() -> None:
    assert "UploadProgressMiddleware" in str(MiddlewareMissing())
    missing = MissingExtra("redis", "redis")
    assert "pip install 'upload-progress[redis]'" in str(missing)
    assert (missing.package, missing.extra) == ("redis", "redis")
    assert isinstance(missing, ImportError)
