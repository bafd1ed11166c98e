"""The background work of a tracker: flusher, ticker, reaper, and the connection to other workers.

In a server that runs ``lifespan``, one task group does the work from start to stop. Without, the
tasks that wait for updates do it while they wait: one of them holds the work lock, and another
takes over when that one leaves. With a store of several workers, a task of the event loop does it
while uploads are received: else other workers would take this one for dead. With a store in memory,
a short task after each request stores the end of its upload, so that no request waits for it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from threading import Lock
from typing import Final

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import RunVar, checkpoint
from attrs import define, field

from upload_progress._cluster.follower import Follower
from upload_progress._cluster.reaper import Reaper
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import DirectSender, Subscription
from upload_progress._fanout.update import Update
from upload_progress._reporting.flusher import Flusher
from upload_progress._reporting.ticker import Ticker
from upload_progress._resources import ManagedResources
from upload_progress._runtime.circuit_breaker import LoopLag
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.exceptions import TrackerInUse

__all__ = ["FINISH_SECONDS", "IDLE_SECONDS", "Background", "ThreadPortal"]

FINISH_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 1.0
"""How often a task that works without lifespan looks whether uploads are still received."""


@define(eq=False, repr=False)
class ThreadPortal:
    """Lets threads call the event loop of a tracker, or one that is started for them."""

    _serving: BlockingPortal | None = field(default=None, init=False)
    _started: ExitStack = field(factory=ExitStack, init=False)
    _callers: int = field(default=0, init=False)
    _lock: Lock = field(factory=Lock, init=False)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Accept calls in this event loop while the block runs; at its end, cancel what runs."""
        async with BlockingPortal() as portal:
            self._serving = portal
            try:
                yield
            finally:
                self._serving = None
                await portal.stop(cancel_remaining=True)

    @contextmanager
    def open(
        self, running: Callable[[], AbstractAsyncContextManager[None]]
    ) -> Iterator[BlockingPortal]:
        """Return what calls the event loop from this thread while the block runs.

        Args:
            running: Entered in a new event loop if none accepts calls, and left after the last
                block. It calls ``serving``.
        """
        portal = None if self._callers else self._serving
        if portal is not None:
            yield portal
            return
        with self._lock:
            if not self._callers:
                self._start(running)
            self._callers += 1
            portal = self._serving
        assert portal is not None  # noqa: S101  # it was started
        try:
            yield portal
        finally:
            with self._lock:
                self._callers -= 1
                if not self._callers:
                    self._started.close()

    def _start(self, running: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(running()))
            self._started = stack.pop_all()


@define(eq=False, repr=False, kw_only=True)
class Background:
    """Runs the parts of a tracker that work in the background."""

    hub: Hub
    flusher: Flusher
    ticker: Ticker
    reaper: Reaper
    follower: Follower
    reconciler: Reconciler
    rpc: RpcEndpoint
    resources: ManagedResources
    tasks: TaskSpawner
    lag: LoopLag
    threads: ThreadPortal = field(factory=ThreadPortal, init=False)
    _is_entered: bool = field(default=False, init=False)
    _lock: RunVar[anyio.Lock] = field(factory=lambda: RunVar("work_lock"), init=False)
    _is_kept_running: bool = field(default=False, init=False)
    _inline_scope: anyio.CancelScope | None = field(default=None, init=False)

    @property
    def _work_lock(self) -> anyio.Lock:
        """The lock of the running event loop: a tracker may be used on several."""
        lock = self._lock.get(None)
        if lock is None:
            lock = anyio.Lock()
            self._lock.set(lock)
        return lock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do the work while the block runs; at its end, write what is due, close subscriptions.

        Raises:
            TrackerInUse: The tracker is running already.
        """
        if self._is_entered:
            raise TrackerInUse
        self._is_entered, failures = True, list[Exception]()
        try:
            async with self.resources.open(), self._working(), self.threads.serving():
                try:
                    yield
                except Exception as error:  # noqa: BLE001  # raised again, outside of the groups
                    failures.append(error)
        finally:
            self._is_entered = False
        for failure in failures:
            raise failure

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        async with self.tasks.running() as group:
            group.start_soon(self._take_over)
            try:
                yield
            finally:
                self.tasks.stop()
                with anyio.move_on_after(FINISH_SECONDS, shield=True):
                    await self.flusher.finish()
                self.hub.close()
                group.cancel_scope.cancel()

    async def _take_over(self) -> None:
        if self._inline_scope is not None:
            self._inline_scope.cancel()
        async with self._work_lock:
            await self._work()

    async def _work(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.flusher.run)
            group.start_soon(self.ticker.run)
            group.start_soon(self.reaper.run)
            group.start_soon(self.follower.run)
            group.start_soon(self.reconciler.run, lambda: self.rpc.is_open)
            group.start_soon(self.rpc.run)
            group.start_soon(self.lag.run)

    async def wait(
        self, subscription: Subscription, direct_sender: DirectSender | None = None
    ) -> list[Update]:
        """Wait for updates of *subscription*, doing the work meanwhile if no other task does.

        Args:
            subscription: The subscription.
            direct_sender: Sends updates while this call waits; see ``Subscription.wait``.

        Returns:
            The newest update of each upload; none when a heartbeat is due or it is closed.
        """
        if subscription.is_ready:
            await checkpoint()
        elif self.tasks.is_running:
            await subscription.wait(direct_sender)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(self._work_inline)
                await subscription.wait(direct_sender)
                group.cancel_scope.cancel()
        # Taken after the last point at which this task can be cancelled, so that nothing is lost.
        return subscription.take()

    async def _work_inline(self) -> None:
        """Do the work while no other task does; tasks queue for the lock."""
        while True:
            async with self._work_lock:
                await self._work_until_taken_over()

    async def _work_until_taken_over(self) -> None:
        if self.tasks.is_running:
            return
        with anyio.CancelScope() as self._inline_scope:
            await self._work()
        self._inline_scope = None

    def work_while_receiving(self) -> None:
        """Let a task do the work while uploads are received, if no lifespan does it.

        It ends when there are none, and is called again with each report of an upload.

        Raises:
            RuntimeError: No event loop is running.
        """
        if self.tasks.is_running or self._is_kept_running or self.flusher.is_single_worker:
            return
        self.tasks.start(self._work_while_receiving)

    async def _work_while_receiving(self) -> None:
        if self._is_kept_running:
            return
        self._is_kept_running = True
        try:
            # Most uploads are over by then.
            await anyio.sleep(IDLE_SECONDS)
            if not self._is_idle:
                await self._work_until_idle()
        finally:
            self._is_kept_running = False

    async def _work_until_idle(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._work_inline)
            while not self._is_idle:  # noqa: ASYNC110  # nothing else tells it
                await anyio.sleep(IDLE_SECONDS)
            group.cancel_scope.cancel()

    @property
    def _is_idle(self) -> bool:
        """Whether no upload is received, and all that is due is stored and published."""
        return self.flusher.is_idle and not len(self.flusher.registry)

    async def run_once(self) -> None:
        """Do once what no other task will do, at the end of an upload; never raises.

        The event loop may end before a task that works in it has stored the end.
        """
        if self.tasks.is_running or (self._work_lock.locked() and not self._is_kept_running):
            return
        with anyio.CancelScope(shield=True):
            await self.flusher.flush(ends=True)
            if not self._work_lock.locked():
                await self.ticker.tick()
                await self.reaper.run_if_due()
                # No task renews it: when it has run out, that says nothing about this worker.
                self.reaper.lease.give_up()
