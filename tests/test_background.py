"""Background work: done by ``lifespan``, or by one of the tasks that wait for updates."""

from __future__ import annotations

import anyio
import pytest

from tests._support.simulation import deadline, until
from upload_progress import ProgressTracker
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of

pytestmark = pytest.mark.anyio


async def test_lifespan_takes_over_from_waiting_tasks() -> None:
    tracker = ProgressTracker()
    background = internals_of(tracker).background
    received: list[list[Update]] = []

    def is_done_by_one_of_them() -> bool:
        is_inline = background._inline_scope is not None
        return is_inline and background._work_lock.statistics().tasks_waiting > 0

    async def wait(subscription: Subscription) -> None:
        received.append(await internals_of(tracker).wait(subscription))

    with deadline():
        async with anyio.create_task_group() as tasks:
            subscriptions = [internals_of(tracker).subscribe() for _ in range(2)]
            for subscription in subscriptions:
                subscription.add_upload("ann", "up")
                tasks.start_soon(wait, subscription)
            await until(is_done_by_one_of_them)
            async with tracker.lifespan():
                await until(lambda: background._inline_scope is None)
                async with tracker.track(owner="ann", upload_id="up"):
                    await until(lambda: len(received) == len(subscriptions))

    assert [[update.progress.upload_id for update in each] for each in received] == [["up"], ["up"]]
