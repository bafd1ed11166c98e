"""The event that resets itself."""

from __future__ import annotations

import anyio
import pytest

from upload_progress._runtime.auto_reset_event import AutoResetEvent


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
