"""Loops that give way to other tasks."""

from __future__ import annotations

import anyio
import pytest

from upload_progress._runtime.yielding import YIELD_EVERY, yielding

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("count", [0, 1, YIELD_EVERY, 3 * YIELD_EVERY + 1])
async def test_loop_yields_all_items(count: int) -> None:
    assert [each async for each in yielding(range(count))] == list(range(count))


async def test_other_tasks_run_after_a_few_items() -> None:
    counts: list[int] = []
    items: list[int] = []

    async def count_items() -> None:
        counts.append(len(items))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_items)
        async for item in yielding(range(2 * YIELD_EVERY)):
            items.append(item)  # noqa: PERF401  # the list is read meanwhile

    assert counts in ([YIELD_EVERY], [2 * YIELD_EVERY])
