"""Workers that find what others left behind, all at the same moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import pytest

from tests._support.connection_faults import until
from tests._support.leases import let_lease_run_out
from tests._support.records import record
from tests._support.server_processes import ServerProcess
from upload_progress import ProgressTracker
from upload_progress._model.models import ErrorCode
from upload_progress.backends import store_from_url
from upload_progress.backends.postgres.schema import migrate

pytestmark = pytest.mark.anyio

WORKERS = 10
UPLOADS = 30
LEASE_SECONDS = 3.0
"""The workers that start wait for one lease until they end what others have left."""


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(params=["redis", "postgres", "kafka"])
async def url(request: pytest.FixtureRequest) -> str:
    daemon: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    if request.param == "postgres":
        await migrate(daemon.url)
    return daemon.url


async def leave_behind(url: str, owner: str) -> None:
    """Write what a worker that is dead by now was receiving."""
    store = store_from_url(url)
    assert isinstance(store, AbstractAsyncContextManager)
    async with store:
        await store.save(
            [record(f"left-{number}", owner=owner, worker=owner) for number in range(UPLOADS)]
        )
        await let_lease_run_out(store, owner)


@asynccontextmanager
async def workers(url: str) -> AsyncIterator[list[ProgressTracker]]:
    trackers = [ProgressTracker.from_url(url, lease_seconds=LEASE_SECONDS) for _ in range(WORKERS)]
    async with AsyncExitStack() as stack:
        for tracker in trackers:
            await stack.enter_async_context(tracker.lifespan())
        yield trackers


async def test_concurrent_workers_end_each_upload_once(url: str) -> None:
    """P09 and P10: all workers were killed, and ten start at the same time."""
    await leave_behind(url, "reaped")

    def known(name: str) -> int:
        return sum(getattr(tracker.statistics(), name) for tracker in trackers)

    async with workers(url) as trackers:
        await until(lambda: known("reaped") >= UPLOADS)
        # A second publication would have arrived by now.
        await anyio.sleep(1)
        ends = (await trackers[0].list(owner="reaped")).uploads
        counts = known("reaped"), known("events_published")

    # Overdue uploads cannot be claimed in Kafka: workers that start at the same time may not know
    # each other yet, and write the same end twice.
    most = 2 * UPLOADS if url.startswith("kafka") else UPLOADS
    assert UPLOADS <= min(counts) <= max(counts) <= most
    assert len(ends) == UPLOADS
    assert {each.error.code for each in ends if each.error} == {ErrorCode.WORKER_LOST}
