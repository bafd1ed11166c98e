"""Background tasks of a tracker: started in one task group while it runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._runtime.log_limiter import LogLimiter

__all__ = ["TaskSpawner"]


@define(eq=False, repr=False)
class TaskSpawner:
    """Starts tasks in a task group; without one it refuses them.

    Args:
        log_limiter: Logs the failures of tasks.
    """

    log_limiter: LogLimiter
    _tasks: TaskGroup | None = field(default=None, init=False)

    @property
    def is_running(self) -> bool:
        """Whether tasks can be started."""
        return self._tasks is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TaskGroup]:
        """Accept tasks while the block runs; at its end, wait for them or for a cancel."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield tasks
            finally:
                self.stop()

    def stop(self) -> None:
        """Accept no more tasks."""
        self._tasks = None

    def spawn(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Start *work* as a task whose failure is logged and ends no other task.

        Returns:
            False where no task group is open: *work* was not started.
        """
        if self._tasks is None:
            return False
        self._tasks.start_soon(self._run, work)
        return True

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # it is logged, and ends no other task
            self.log_limiter.log_warning("a background task failed", error)
