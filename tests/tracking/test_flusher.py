"""Passes of the flusher: one that fails is not the last, two that overlap lose nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import Simulation, deadline
from upload_progress import UploadState
from upload_progress._model.models import UploadKey
from upload_progress.testing import Fault, FaultyPublisher, FaultyStore
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio


async def test_a_pass_that_fails_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sim = Simulation()
    live = sim.begin("up", total=10)
    with monkeypatch.context() as patch:
        patch.setattr(type(internals_of(sim.tracker).hub), "deliver", lambda *_: 1 / 0)
        await sim.run(1)
        assert caplog.messages == [
            "a pass of the flusher failed (ZeroDivisionError); uploads are not affected"
        ]
        assert sim.events("up") == []
    live.client_disconnected()
    await sim.run(1)

    assert sim.events("up")[-1].state is UploadState.FAILED
    assert (await sim.tracker.get("up", owner="ann")).state is UploadState.FAILED
    assert sim.is_at_baseline()


def first_waits(
    original: Callable[..., Awaitable[None]], calls: list[object], held: anyio.Event
) -> Callable[..., Awaitable[None]]:
    """Return *original*, whose first call lasts until *held* is set."""

    async def call(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            await held.wait()
        await original(*arguments)

    return call


@pytest.mark.parametrize("fault", [None, "raise"])
async def test_passes_that_overlap_keep_what_is_newest(
    fault: Fault | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without ``lifespan`` the end of each request makes a pass, also while another waits.

    What the second could not bring out must not be taken for done when the first is through.
    """
    sim, held = Simulation(), anyio.Event()
    saves: list[object] = []
    sendings: list[object] = []
    monkeypatch.setattr(FaultyStore, "save", first_waits(FaultyStore.save, saves, held))
    monkeypatch.setattr(
        FaultyPublisher, "publish", first_waits(FaultyPublisher.publish, sendings, held)
    )
    live = sim.begin("up", total=10)
    sim.clock.advance(1)
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(internals_of(sim.tracker).background.run_once)
            while not (saves and sendings):
                await checkpoint()
            live.client_disconnected()
            sim.store.fault = sim.publisher.fault = fault
            await internals_of(sim.tracker).background.run_once()
            sim.store.fault = sim.publisher.fault = None
            assert len(sim.parts.registry) == (0 if fault is None else 1)
            held.set()
    await sim.run(1)

    assert len(saves) == len(sendings) == (2 if fault is None else 3)
    assert sorted(event.sequence for event in sim.events("up")) == [1, 2]
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    assert stored.state is UploadState.FAILED
    assert sim.is_at_baseline()
    assert not [message for message in caplog.messages if "pass" in message]
