"""Workers and a process for tasks, which go on with uploads that were handed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from attrs import define, evolve, field

from tests._support.scripted_server import ALICE
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from upload_progress import MemoryStore, ProgressTracker, Retention, UploadProgress
from upload_progress.backends import MemoryPublisher
from upload_progress.testing import FaultyStore

__all__ = ["Cluster", "both_loops", "run_cluster"]

both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@define
class Cluster:
    """Workers that share a store and a broker, in virtual time.

    Attributes:
        web: The worker that receives the uploads.
        task: The one at which tasks run; its connection to the store can fail.
        other: One that does neither.
    """

    memory: MemoryStore = field(
        factory=lambda: MemoryStore(clock=VirtualClock(), retention=Retention(ended_seconds=60))
    )
    broker: MemoryPublisher = field(factory=MemoryPublisher)
    connection: FaultyStore = field(init=False)
    web: ProgressTracker = field(init=False)
    task: ProgressTracker = field(init=False)
    other: ProgressTracker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection = FaultyStore(self.memory)
        stores = (self.memory, self.connection, self.memory)
        self.web, self.task, self.other = (
            ProgressTracker(store=store, publisher=self.broker, clock=VirtualClock())
            for store in stores
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all workers while the block runs."""
        async with AsyncExitStack() as stack:
            for tracker in (self.web, self.task, self.other):
                await stack.enter_async_context(tracker.lifespan())
            yield

    async def receive(self, size: int = 10, *, expires_seconds: float = 600.0) -> str:
        """Receive an upload of Alice at the first worker; return its token."""
        upload = self.web.track(owner=ALICE, upload_id="up", total_bytes=size)
        async with upload as receiving:
            receiving.advance(size)
            return await receiving.hand_over(expires_seconds=expires_seconds)

    async def shown(self) -> UploadProgress:
        """Return the snapshot of the upload, which two workers show, when all has been stored."""
        await anyio.sleep(0.5)
        seen, same = [await each.get("up", owner=ALICE) for each in (self.web, self.other)]
        assert evolve(same, updated_at=seen.updated_at) == seen
        return seen

    async def fail(self, token: str, error: Exception) -> None:
        """Run a task that raises *error*."""
        with pytest.raises(type(error)):
            async with self.task.resume(token):
                raise error


def run_cluster(test: Callable[[Cluster], Awaitable[None]], backend: str) -> None:
    """Run *test* with a running cluster, in virtual time."""

    async def main() -> None:
        cluster = Cluster()
        async with cluster.running():
            await test(cluster)

    run_in_virtual_time(main, backend)
