"""Several trackers: an upload that one receives is followed and cancelled at the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from attrs import define, field

from tests._support.simulation import assert_monotonic, deadline, until
from upload_progress import (
    MemoryStore,
    ProgressTracker,
    UploadCancelled,
    UploadEnded,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress.backends import MemoryPublisher
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio

S = UploadState


@define
class Workers:
    """Trackers that share a store and a broker."""

    memory: MemoryStore = field(factory=MemoryStore)
    broker: MemoryPublisher = field(factory=MemoryPublisher)

    @asynccontextmanager
    async def running(self, count: int = 2) -> AsyncIterator[list[ProgressTracker]]:
        """Run *count* trackers while the block runs."""
        trackers = [ProgressTracker(store=self.memory, publisher=self.broker) for _ in range(count)]
        async with AsyncExitStack() as stack:
            for tracker in trackers:
                await stack.enter_async_context(tracker.lifespan())
            with deadline():
                yield trackers


async def wait_until_stored(store: MemoryStore, count: int = 1) -> None:
    """Wait until *count* uploads are in the store."""
    is_done = False
    while not is_done:
        await anyio.sleep(0.005)
        is_done = len(store) >= count


async def test_upload_is_watched_at_the_other_worker() -> None:
    workers, seen = Workers(), list[UploadProgress]()
    async with workers.running() as [one, other]:
        async with one.track(owner="ann", upload_id="up", total_bytes=100) as upload:
            await wait_until_stored(workers.memory)
            watch = other.watch("up", owner="ann")
            for part in range(10):
                upload.advance(10)
                is_done = False
                while not is_done:
                    seen.append(await anext(watch))
                    is_done = seen[-1].bytes_transferred >= 10 * part
        seen += [snapshot async for snapshot in watch]

    assert_monotonic(seen)
    assert (seen[-1].state, seen[-1].bytes_transferred) == (S.COMPLETED, 100)


async def test_cancel_cuts_the_transfer_on_the_worker_that_receives_it() -> None:
    workers = Workers()
    async with workers.running() as [one, other]:
        cancelled = list[UploadProgress]()

        async def receive(tracker: ProgressTracker) -> None:
            metadata = {"k": "v" * 4000}
            async with tracker.track(
                owner="ann", upload_id="up", filename="name", metadata=metadata
            ) as upload:
                upload.advance(5)
                await anyio.sleep_forever()

        async def cancel() -> None:
            await wait_until_stored(workers.memory)
            cancelled.append(await other.cancel("up", owner="ann"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            with pytest.raises(UploadCancelled):
                await receive(one)

        [answer] = cancelled
        assert answer.state is S.CANCELLED
        assert (answer.bytes_transferred, answer.filename) == (5, "name")
        assert answer.metadata == {"k": "v" * 4000}
        [end] = [snapshot async for snapshot in other.watch("up", owner="ann")]
        assert end.sequence >= answer.sequence
        assert (await other.cancel("up", owner="ann")).state is S.CANCELLED


async def test_cancel_is_confirmed_although_the_receiving_worker_cannot_store_it() -> None:
    memory, broker = MemoryStore(), MemoryPublisher()
    store = FaultyStore(memory)
    one = ProgressTracker(store=store, publisher=broker)
    other = ProgressTracker(store=memory, publisher=broker)
    answers, begun = list[UploadProgress](), anyio.Event()

    async def receive() -> None:
        async with one.track(owner="ann", upload_id="up", filename="name") as upload:
            upload.advance(5)
            await wait_until_stored(memory)
            store.fault = "raise"
            begun.set()
            await anyio.sleep_forever()

    async def cancel() -> None:
        await begun.wait()
        answers.append(await other.cancel("up", owner="ann"))

    async with one.lifespan(), other.lifespan():
        with deadline():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                with pytest.raises(UploadCancelled):
                    await receive()
        store.fault = None

    [answer] = answers
    assert (answer.state, answer.bytes_transferred) == (S.CANCELLED, 5)
    assert answer.filename == "name"
    # Only its worker has written the end, before it stopped.
    [record] = await memory.load(UploadKey("ann", "up"))
    assert record.state is S.CANCELLED


async def test_pending_upload_is_cancelled_by_any_worker() -> None:
    workers = Workers()
    async with workers.running() as [one, other]:
        pending = await one.announce(owner="ann")
        watch = one.watch(pending.upload_id, owner="ann")
        assert (await anext(watch)).state is S.PENDING

        await other.cancel(pending.upload_id, owner="ann")

        assert [each.state async for each in watch] == [S.CANCELLED]
        [record] = await workers.memory.load(UploadKey("ann", pending.upload_id))
        assert record.state is S.CANCELLED


async def test_upload_that_has_ended_elsewhere_is_not_cancelled() -> None:
    workers = Workers()
    async with workers.running() as [one, other]:
        async with one.track(owner="ann", upload_id="up"):
            await wait_until_stored(workers.memory)
        async for _snapshot in other.watch("up", owner="ann"):
            pass
        with pytest.raises(UploadEnded):
            await other.cancel("up", owner="ann")


async def test_newer_upload_supersedes_that_of_another_worker() -> None:
    workers = Workers()
    async with workers.running() as [one, other]:
        async with one.track(owner="ann", upload_id="up", total_bytes=100) as older:
            older.advance(60)
            await wait_until_stored(workers.memory)
            async with other.track(owner="ann", upload_id="up", total_bytes=10) as newer:
                newer.advance(4)
                # Long before the reconciler reads the store.
                await until(lambda: internals_of(one).registry.find("ann", "up") is None)
                older.advance(40)
                shown = await one.get("up", owner="ann")

                assert (shown.attempt, shown.bytes_transferred, shown.total_bytes) == (2, 4, 10)
                newer.advance(6)
        *_, end = [snapshot async for snapshot in one.watch("up", owner="ann")]

    assert (end.state, end.attempt, end.bytes_transferred) == (S.COMPLETED, 2, 10)
    [record] = await workers.memory.load(UploadKey("ann", "up"))
    assert (record.attempt, record.received_bytes) == (2, 10)
