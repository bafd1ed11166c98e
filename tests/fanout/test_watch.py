"""Watching one upload from Python."""

from __future__ import annotations

import gc

import anyio
import pytest

from tests._support.simulation import (
    Simulation,
    assert_monotonic,
    collect_snapshots,
    deadline,
    until,
)
from upload_progress import UploadEnded, UploadNotFound, UploadProgress, UploadState
from upload_progress._fanout.subscription import HEARTBEAT_SECONDS
from upload_progress._tracking import outcomes

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


async def test_watch_as_context_manager_is_closed_at_its_end(sim: Simulation) -> None:
    sim.begin("up")
    async with sim.tracker.watch("up", owner="ann") as watch:
        assert (await anext(watch)).state is S.RECEIVING
        assert len(sim.internals.hub) == 1
    assert len(sim.internals.hub) == 0
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    unused = sim.tracker.watch("up", owner="ann")
    await unused.aclose()
    with pytest.raises(UploadNotFound):
        await anext(sim.tracker.watch("none", owner="ann"))


async def test_dropped_watch_closes_its_subscription(sim: Simulation) -> None:
    sim.begin("up")

    watch = sim.tracker.watch("up", owner="ann")
    assert (await anext(watch)).state is S.RECEIVING
    assert len(sim.internals.hub) == 1
    del watch
    gc.collect()
    assert len(sim.internals.hub) == 0


async def test_watch_ignores_heartbeats(sim: Simulation) -> None:
    live = sim.begin("up", total=100)
    snapshots: list[UploadProgress] = []
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect_snapshots, sim.tracker, snapshots, "up")
            await until(lambda: len(snapshots) == 1)
            [subscription] = sim.internals.hub._index.everything()
            for _ in range(3):
                sim.clock.advance(HEARTBEAT_SECONDS + 1)
                sim.internals.hub.wake_for_heartbeats(sim.clock.monotonic(), 1)
                assert subscription.is_ready
                await until(lambda: not subscription.is_ready)
            outcomes.client_disconnected(live)
            # If a stall was reported just now, the next report waits for the flush interval.
            sim.clock.advance(1)

    assert_monotonic(snapshots)
    assert snapshots[-1].state is S.FAILED


async def test_drain_ends_a_watch(sim: Simulation) -> None:
    sim.begin("up")
    watch = sim.tracker.watch("up", owner="ann")
    await anext(watch)
    sim.tracker.drain()

    assert [each async for each in watch] == []


async def test_watch_of_an_ended_upload_yields_its_end(sim: Simulation) -> None:
    outcomes.client_disconnected(sim.begin("up"))
    await sim.run(1)

    assert [each.state async for each in sim.tracker.watch("up", owner="ann")] == [S.FAILED]
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("up", owner="ann")
