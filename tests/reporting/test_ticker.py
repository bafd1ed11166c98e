"""The ticker: reports of watched uploads, errors of one upload, and long ticks."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import Simulation
from upload_progress import EveryPercent, UploadState
from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._reporting.ticker import PORTION
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["tick", "begin_version"])
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
    outcomes.client_disconnected(healthy)
    await sim.run(3)

    assert sim.events("healthy")[-1].state is UploadState.FAILED
    assert len(caplog.records) == 1


async def test_tick_gives_way_after_each_portion() -> None:
    sim = Simulation()
    lives = [sim.begin() for _ in range(2 * PORTION + 1)]
    counts: list[int] = []
    timers = sim.internals.flusher.timers
    for live in lives:
        timers.watch(live)

    async def count_scheduled() -> None:
        while len(counts) < 10:
            times = [timers.time_of(live) or 0 for live in lives]
            counts.append(sum(at > sim.clock.monotonic() for at in times))
            await checkpoint()

    sim.clock.advance(OBSERVE_SECONDS + 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_scheduled)
        await checkpoint()
        await sim.internals.background.ticker.tick()

    # Trio lets tasks run in random order: between two portions another may run twice, or not.
    assert {PORTION, 2 * PORTION} & set(counts)
    assert counts[-1] == len(lives)


async def reports_in(sim: Simulation, seconds: float, *lives: LiveUpload) -> list[int]:
    """Return how many reports each upload gets while bytes of all arrive."""
    before = [live.sequence for live in lives]
    for _ in range(round(seconds * 10)):
        for live in lives:
            sim.add(live, 10)
        await sim.run(0.1)
    return [live.sequence - count for live, count in zip(lives, before, strict=True)]


@pytest.mark.parametrize("total", [10_000_000, None])
async def test_watched_upload_is_reported_up_to_four_times_a_second(total: int | None) -> None:
    sim = Simulation()
    by_id, by_group, unwatched = (sim.begin(name, total=total) for name in ("up", "in", "other"))
    by_group.group = "release"
    few = range(1, 4) if total is None else range(8, 11)
    assert (await reports_in(sim, 10, unwatched))[0] in few

    subscription = sim.subscription("up")
    subscription.add_group("ann", "release")
    watched = await reports_in(sim, 10, by_id, by_group, unwatched)
    assert [count in range(25, 41) for count in watched] == [True, True, False]
    assert watched[2] in few

    subscription.add_owner("ann")
    subscription.add_owner("ann")
    subscription.remove_upload("ann", "up")
    subscription.remove_group("ann", "release")
    assert all(count in range(25, 41) for count in await reports_in(sim, 10, by_id, unwatched))
    subscription.close()
    await sim.run(1)
    assert (await reports_in(sim, 10, by_id))[0] in few


async def test_watched_upload_without_bytes_is_not_reported() -> None:
    sim = Simulation()
    live = sim.begin("up", total=1000)
    subscription = sim.subscription("up")
    await reports_in(sim, 2, live)
    await sim.run(0.5)
    count = len(sim.events("up"))
    await sim.run(2)

    assert len(sim.events("up")) == count
    subscription.close()


async def test_interval_of_watched_uploads_can_be_set() -> None:
    sim = Simulation(watched_interval_seconds=2.5, policy=EveryPercent(50))
    live = sim.begin("up", total=1_000_000)
    subscription = sim.subscription("up")
    assert (await reports_in(sim, 10, live))[0] in range(3, 6)
    subscription.close()


async def test_uploads_that_nobody_watches_are_not_scanned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = Simulation()
    silent = [sim.begin() for _ in range(500)]
    watched = sim.begin("up", total=1_000_000)
    subscription = sim.subscription("up")
    await sim.run(40)
    ticked: list[LiveUpload] = []
    original = LiveUpload.tick

    def count(upload: LiveUpload) -> float | None:
        ticked.append(upload)
        return original(upload)

    monkeypatch.setattr(LiveUpload, "tick", count)
    assert (await reports_in(sim, 5, watched))[0] in range(12, 21)
    assert not set(ticked) & set(silent)
    assert len(ticked) <= 60
    subscription.close()
