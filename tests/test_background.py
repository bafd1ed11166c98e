"""Background work: done by ``lifespan``, or by one of the tasks that wait for updates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest

from tests._support.simulation import deadline, until
from upload_progress import (
    MemoryStore,
    ProgressTracker,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress.backends import MemoryPublisher

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


def two_workers(store: MemoryStore) -> list[ProgressTracker]:
    """Return trackers for two processes whose server runs no lifespan."""
    return [ProgressTracker(store=store, publisher=MemoryPublisher()) for _ in range(2)]


async def wait_for(tracker: ProgressTracker, upload_id: str, size: int) -> UploadProgress:
    """Poll until the upload has that many bytes."""
    found: UploadProgress | None = None
    while found is None or found.bytes_transferred < size:
        await anyio.sleep(0.01)
        with suppress(UploadNotFound):
            found = await tracker.get(upload_id, owner="ann")
    return found


async def test_shared_store_is_kept_up_to_date_without_lifespan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also the lease is renewed: else other workers would end an upload that takes long."""
    monkeypatch.setattr("upload_progress._background.IDLE_SECONDS", 0.01)
    store = MemoryStore()
    one, other = two_workers(store)
    internals = internals_of(one)
    with deadline():
        async with one.track(owner="ann", upload_id="up", total_bytes=20) as upload:
            upload.advance(7)
            await wait_for(other, "up", 7)
            await until_slept(lambda: one.worker in store._leases)
            assert internals.background._is_kept_running
            async with one.track(owner="ann", upload_id="second"):
                upload.advance(13)
        await until_slept(lambda: not internals.background._is_kept_running)
        end = await other.get("up", owner="ann")

    assert (end.state, end.bytes_transferred) == (UploadState.COMPLETED, 20)
    assert not internals.reaper.lease.has_run_out(0)


async def test_short_upload_keeps_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is stored by its own task. A lease that has run out would delay later events."""
    monkeypatch.setattr("upload_progress._background.IDLE_SECONDS", 0.01)
    store = MemoryStore()
    one, other = two_workers(store)
    background = internals_of(one).background
    with deadline():
        async with one.track(owner="ann", upload_id="up"):
            background.work_while_receiving()
        assert (await other.get("up", owner="ann")).state is UploadState.COMPLETED
        await until(lambda: background._is_kept_running)
        await until_slept(lambda: not background._is_kept_running)

    assert internals_of(one).reaper.lease.due


async def test_lifespan_takes_over_from_the_task_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upload_progress._background.IDLE_SECONDS", 0.01)
    store = MemoryStore()
    one, other = two_workers(store)
    internals = internals_of(one)
    with deadline():
        async with one.track(owner="ann", upload_id="up") as upload:
            await until(lambda: internals.background._inline_scope is not None)
            internals.background.work_while_receiving()
            async with one.lifespan():
                await until(lambda: internals.background._inline_scope is None)
                upload.advance(7)
                await wait_for(other, "up", 7)
        await until_slept(lambda: not internals.background._is_kept_running)


async def until_slept(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, while time passes."""
    while not condition():  # noqa: ASYNC110  # no event
        await anyio.sleep(0.01)
