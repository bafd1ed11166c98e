"""Stages of processing: shown after the last byte, and throttled like bytes."""

from __future__ import annotations

import pytest

from tests._support.simulation import ANN, Simulation
from upload_progress import Stage, Upload, UploadState
from upload_progress._tracking import outcomes

pytestmark = pytest.mark.anyio

S = UploadState


async def test_stages_are_shown_and_throttled_while_processing(sim: Simulation) -> None:
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    live.end_body()
    upload = Upload(live)
    async with upload.stage("hashing", total=1000) as stage:
        await sim.run(0.5)
        before = len(sim.events("up"))
        for _ in range(1000):
            stage.advance()
            await sim.run(0.1) if stage.stage.done % 50 == 0 else None
        async with upload.stage("scanning"):
            await sim.run(0.2)
            assert upload.snapshot().stage == Stage("scanning", 0, None)
        await sim.run(0.2)
        assert upload.snapshot().stage == Stage("hashing", 1000, 1000)
        outcomes.finish(live, 200)
    await sim.run(0.5)
    upload.set(filename="late")
    upload.fail("late")
    upload.advance(5)
    assert not upload.claim("bob")
    assert upload.claim(ANN)
    await sim.run(0.5)

    events = sim.events("up")
    assert 10 <= len(events) - before <= 20
    assert events[-1].state is S.COMPLETED
    assert (events[-1].stage, events[-1].filename) == (None, None)


async def test_stage_without_a_total_is_reported_each_second(sim: Simulation) -> None:
    live = sim.begin("up")
    live.end_body()

    async with Upload(live).stage("scanning") as stage:
        await sim.run(1)
        for _ in range(5):
            stage.advance(3)
            await sim.run(1.3)
    done = [event.stage.done for event in sim.events("up") if event.stage]
    assert done == [0, 3, 6, 9, 12, 15]
