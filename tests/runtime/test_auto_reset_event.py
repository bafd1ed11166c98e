"""The event that resets itself."""

from __future__ import annotations

import threading

import anyio
import pytest

from upload_progress._runtime.auto_reset_event import AutoResetEvent, LoopEvent


@pytest.mark.anyio
async def test_wait_returns_once_for_several_changes() -> None:
    event, returns = AutoResetEvent(), list[int]()

    async def wait() -> None:
        await event.wait()
        returns.append(1)
        await event.wait()
        returns.append(2)

    async with anyio.create_task_group() as tasks:
        event.set()
        event.set()
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert returns == [1]
        event.set()

    assert returns == [1, 2]


def test_event_is_used_on_several_event_loops() -> None:
    event = AutoResetEvent()

    async def wait_and_set() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(event.wait)
            await anyio.wait_all_tasks_blocked()
            event.set()

    for _ in range(2):
        anyio.run(wait_and_set)
    event.set()
    anyio.run(event.wait)


@pytest.mark.anyio
async def test_event_is_set_by_another_thread() -> None:
    event = LoopEvent()
    setter = threading.Thread(target=event.set)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(event.wait)
            await anyio.wait_all_tasks_blocked()
            setter.start()

    await anyio.to_thread.run_sync(setter.join)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_setting_an_event_of_a_loop_that_has_ended_does_nothing(backend: str) -> None:
    async def make() -> LoopEvent:
        return LoopEvent()

    event = anyio.run(make, backend=backend)
    other = threading.Thread(target=event.set)
    other.start()
    other.join()
    event.set()
