"""Background tasks: started in a task group or in the event loop, and failures are logged."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import anyio
import pytest
from anyio import to_thread

from tests._support.simulation import deadline
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.interfaces import SystemClock

pytestmark = pytest.mark.anyio

set_by_caller: ContextVar[str] = ContextVar("set_by_caller")


@pytest.fixture
def spawner() -> TaskSpawner:
    return TaskSpawner(LogLimiter(SystemClock()))


async def test_failed_task_is_logged_and_ends_no_other(
    spawner: TaskSpawner, caplog: pytest.LogCaptureFixture
) -> None:
    finished = anyio.Event()

    async def fail() -> None:
        raise OSError

    async def work() -> None:
        finished.set()

    with deadline():
        async with spawner.running():
            for _ in range(5):
                assert spawner.spawn(fail)
            assert spawner.spawn(work)
            await finished.wait()

    assert caplog.messages == [
        "a background task failed (OSError); uploads are not affected",
    ]


async def test_tasks_are_refused_without_a_task_group(spawner: TaskSpawner) -> None:
    started: list[str] = []

    async def work() -> None:
        started.append("work")

    is_running = [spawner.is_running]
    assert not spawner.spawn(work)
    async with spawner.running():
        is_running.append(spawner.is_running)
        assert spawner.spawn(work)
        spawner.stop()
        is_running.append(spawner.is_running)
        assert not spawner.spawn(work)

    assert is_running == [False, True, False]
    assert started == ["work"]


async def test_task_is_started_in_the_event_loop_without_a_task_group(
    spawner: TaskSpawner, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the end nor the cancellation of the caller ends it; it has the caller's context."""
    go, finished = anyio.Event(), anyio.Event()
    seen: list[str] = []

    async def work() -> None:
        await go.wait()
        seen.append(set_by_caller.get())
        finished.set()

    async def fail() -> None:
        raise OSError

    with deadline():
        async with anyio.create_task_group() as caller:
            set_by_caller.set("value")
            spawner.start(work)
            spawner.start(fail)
            set_by_caller.set("later")
            caller.cancel_scope.cancel()
        go.set()
        await finished.wait()

    assert seen == ["value"]
    assert not spawner.is_running
    assert caplog.messages == ["a background task failed (OSError); uploads are not affected"]


async def test_task_is_started_in_the_open_task_group(spawner: TaskSpawner) -> None:
    with deadline():
        async with spawner.running() as group:
            spawner.start(anyio.sleep_forever)
            group.cancel_scope.cancel()


def test_task_needs_an_event_loop(spawner: TaskSpawner) -> None:
    with pytest.raises(RuntimeError):
        spawner.start(anyio.sleep_forever)


async def test_task_is_cancelled_with_its_group(spawner: TaskSpawner) -> None:
    with deadline():
        async with spawner.running() as group:
            assert spawner.spawn(anyio.sleep_forever)
            group.cancel_scope.cancel()

    assert not spawner.is_running


async def test_event_loop_in_another_thread_runs_its_own_tasks(spawner: TaskSpawner) -> None:
    threads: list[int] = []

    async def work() -> None:
        threads.append(threading.get_ident())

    async def start() -> None:
        assert not spawner.spawn(work)
        spawner.start(work)
        await anyio.wait_all_tasks_blocked()

    with deadline():
        async with spawner.running():
            await to_thread.run_sync(anyio.run, start)

    assert threads != [threading.get_ident()]
    assert len(threads) == 1
