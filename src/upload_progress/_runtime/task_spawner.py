"""Background tasks of a tracker: started in one task group while it runs.

Without the task group, tasks that must not hold up a request are started in the event loop itself.
They end by themselves within seconds, and are cancelled when the event loop ends.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import copy_context

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._runtime.log_limiter import LogLimiter

__all__ = ["TaskSpawner", "Work"]

Work = Callable[[], Coroutine[object, object, None]]
"""What a task runs."""


@define(eq=False, repr=False)
class TaskSpawner:
    """Starts tasks in a task group, or in the event loop.

    Args:
        log_limiter: Logs the failures of tasks.
    """

    log_limiter: LogLimiter
    _tasks: TaskGroup | None = field(default=None, init=False)
    _thread: int = field(default=0, init=False)
    _loop_tasks: set[asyncio.Task[None]] = field(factory=set, init=False)

    @property
    def is_running(self) -> bool:
        """Whether the task group is open."""
        return self._tasks is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TaskGroup]:
        """Accept tasks while the block runs; at its end, wait for them or for a cancel."""
        async with anyio.create_task_group() as tasks:
            self._tasks, self._thread = tasks, threading.get_ident()
            try:
                yield tasks
            finally:
                self.stop()

    def cancel_scope(self) -> anyio.CancelScope:
        """Return a new cancel scope.

        The class of scopes is that of the task group: to find it out costs as much as the scope.
        """
        return anyio.CancelScope() if self._tasks is None else type(self._tasks.cancel_scope)()

    def stop(self) -> None:
        """Accept no more tasks."""
        self._tasks = None

    def spawn(self, work: Work) -> bool:
        """Start *work* as a task whose failure is logged and ends no other task.

        Returns:
            False where no task group is open, or only in another thread: *work* was not started.
        """
        if self._tasks is None or threading.get_ident() != self._thread:
            return False
        self._tasks.start_soon(self._run, work)
        return True

    def start(self, work: Work) -> None:
        """Start *work* like ``spawn``, but in the event loop where no task group is open.

        Raises:
            RuntimeError: No event loop is running.
        """
        if self.spawn(work):
            return
        if _is_asyncio():
            task = asyncio.create_task(self._run(work))
            # The event loop keeps only weak references to its tasks.
            self._loop_tasks.add(task)
            task.add_done_callback(self._loop_tasks.discard)
        else:
            from trio.lowlevel import spawn_system_task  # noqa: PLC0415  # not a dependency

            spawn_system_task(self._run, work, context=copy_context())

    async def _run(self, work: Work) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # it is logged, and ends no other task
            self.log_limiter.log_warning("a background task failed", error)


def _is_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
