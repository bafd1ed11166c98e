"""The background work of a tracker, and who does it.

In a server that runs ``lifespan`` it is done by one task group from start to stop. Without,
it is done by whoever waits for news, while they wait: one of them at a time has the seat,
and another takes it over when that one leaves. Nothing runs outside a task group, so nothing
is left behind.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._cluster.follower import Follower
from upload_progress._cluster.reaper import Reaper
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._resources import ManagedResources
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.flusher import Flusher
from upload_progress._tracking.ticker import Ticker
from upload_progress.exceptions import TrackerInUse

__all__ = [
    "FINISH_SECONDS",
    "Background",
]

FINISH_SECONDS: Final = 5.0


@define(eq=False, repr=False)
class Background:
    """Runs flusher, ticker, keeper, and what connects this worker with the others."""

    hub: Hub
    flusher: Flusher
    ticker: Ticker
    reaper: Reaper
    follower: Follower
    reconciler: Reconciler
    rpc: RpcEndpoint
    resources: ManagedResources
    log_limiter: LogLimiter
    _is_entered: bool = field(default=False, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _only_seat: anyio.Lock | None = field(default=None, init=False)
    _sitting: anyio.CancelScope | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Let the hub's courier run here."""
        self.hub.broadcaster.spawn = self.spawn

    @property
    def _seat(self) -> anyio.Lock:
        """The lock, made where it is used: a tracker may be made on another event loop."""
        if self._only_seat is None:
            self._only_seat = anyio.Lock()
        return self._only_seat

    @property
    def is_running(self) -> bool:
        """Whether somebody has entered ``lifespan``."""
        return self._tasks is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do the work while the block runs; at its end, write what is due and end watchers.

        Raises:
            TrackerInUse: It runs already.
        """
        if self._is_entered:
            raise TrackerInUse
        self._is_entered, failures = True, list[Exception]()
        try:
            async with self.resources.held(), self._busy():
                try:
                    yield
                except Exception as error:  # noqa: BLE001  # raised again, outside of the groups
                    failures.append(error)
        finally:
            self._is_entered = False
        for failure in failures:
            raise failure

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._take_over)
            try:
                yield
            finally:
                self._tasks = None
                with anyio.move_on_after(FINISH_SECONDS, shield=True):
                    await self.flusher.finish()
                self.hub.close()
                tasks.cancel_scope.cancel()

    async def _take_over(self) -> None:
        if self._sitting is not None:
            self._sitting.cancel()
        async with self._seat:
            await self._work()

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.flusher.run)
            tasks.start_soon(self.ticker.run)
            tasks.start_soon(self.reaper.run)
            tasks.start_soon(self.follower.run)
            tasks.start_soon(self.reconciler.run)
            tasks.start_soon(self.rpc.run)

    def spawn(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run *work* beside the rest; return False where nothing runs that could."""
        if self._tasks is None:
            return False
        self._tasks.start_soon(_alone, work, self.log_limiter)
        return True

    async def wait(self, watcher: Subscription) -> list[Update]:
        """Wait for news for *watcher*, doing the work meanwhile if nobody else does."""
        if watcher.is_ready:
            await checkpoint()
        elif self.is_running:
            await watcher.ready()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._sit)
                await watcher.ready()
                tasks.cancel_scope.cancel()
        # Taken after the last moment at which this task may be cancelled: nothing is lost.
        return watcher.take()

    async def _sit(self) -> None:
        """Do the work while nobody else does: the seat has one holder, and a queue."""
        while True:
            async with self._seat:
                await self._sit_down()

    async def _sit_down(self) -> None:
        if self.is_running:
            return
        with anyio.CancelScope() as self._sitting:
            await self._work()
        self._sitting = None

    async def run_once(self) -> None:
        """Do once what nobody else will do: called at the end of an upload, never raises."""
        if self.is_running or self._seat.locked():
            return
        with anyio.CancelScope(shield=True):
            await self.flusher.flush(ends=True)
            await self.ticker.tick()
            await self.reaper.run_if_due()


async def _alone(work: Callable[[], Awaitable[None]], log_limiter: LogLimiter) -> None:
    """Run *work* so that its failure ends nothing else."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
        log_limiter.say("background work failed", error)
