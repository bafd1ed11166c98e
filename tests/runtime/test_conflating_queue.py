"""The queue that keeps the newest item of each key."""

from __future__ import annotations

import anyio
import pytest

from upload_progress._runtime.conflating_queue import ConflatingQueue

pytestmark = pytest.mark.anyio


async def test_newest_item_of_each_key_is_taken_in_order_of_keys() -> None:
    queue = ConflatingQueue[str, int](3)
    for key, item in [("a", 1), ("b", 2), ("a", 3)]:
        assert queue.put(key, item)

    assert len(queue) == 2
    assert (queue.peek("a"), queue.peek("c")) == (3, None)
    assert [await anext(queue), await anext(queue)] == [3, 2]


async def test_oldest_item_is_dropped_beyond_the_capacity() -> None:
    queue = ConflatingQueue[str, int](2)

    assert [queue.put(key, item) for item, key in enumerate("aba")] == [True] * 3
    assert not queue.put("c", 3)
    assert [await anext(queue), await anext(queue)] == [1, 3]


async def test_urgent_item_is_taken_first_and_only_the_newest() -> None:
    queue = ConflatingQueue[str, int](2)
    queue.put("a", 1)
    queue.put_urgent(8)
    queue.put_urgent(9)

    assert [await anext(queue), await anext(queue)] == [9, 1]


@pytest.mark.parametrize("is_urgent", [False, True])
async def test_task_that_waits_is_woken(is_urgent: bool) -> None:
    queue, taken = ConflatingQueue[str, int](1), list[int]()

    async def take() -> None:
        taken.append(await anext(queue))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        if is_urgent:
            queue.put_urgent(1)
        else:
            queue.put("a", 1)

    assert taken == [1]
