"""Background tasks: their failures are logged, and they need a task group."""

from __future__ import annotations

import anyio
import pytest

from tests._support.simulation import (
    deadline,
)
from upload_progress import (
    ProgressTracker,
)
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio


async def test_failed_task_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = ProgressTracker()
    done = anyio.Event()

    async def fail() -> None:
        raise OSError

    async def work() -> None:
        done.set()

    assert not internals_of(tracker).tasks.spawn(work)
    with deadline():
        async with tracker.lifespan():
            for _ in range(5):
                assert internals_of(tracker).tasks.spawn(fail)
            assert internals_of(tracker).tasks.spawn(work)
            await done.wait()
    assert len(caplog.records) == 1
