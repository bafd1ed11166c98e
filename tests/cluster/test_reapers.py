"""Workers that find what others left behind, all at the same moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import pytest

from tests._support.connection_faults import until
from tests._support.leases import let_lease_run_out
from tests._support.namespaces import new_namespace
from tests._support.records import record
from tests._support.server_processes import ServerProcess
from upload_progress import ProgressTracker
from upload_progress._model.models import ErrorCode
from upload_progress.backends import store_from_url

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
def server(request: pytest.FixtureRequest) -> ServerProcess:
    process: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    return process


async def leave_behind(url: str, namespace: str, owner: str) -> None:
    """Write what a worker that is dead by now was receiving."""
    store = store_from_url(url, namespace=namespace)
    assert isinstance(store, AbstractAsyncContextManager)
    async with store:
        await store.save(
            [record(f"left-{number}", owner=owner, worker=owner) for number in range(UPLOADS)]
        )
        await let_lease_run_out(store, owner)


@asynccontextmanager
async def workers(url: str, namespace: str) -> AsyncIterator[list[ProgressTracker]]:
    trackers = [
        ProgressTracker.from_url(url, namespace=namespace, lease_seconds=LEASE_SECONDS)
        for _ in range(WORKERS)
    ]
    async with AsyncExitStack() as stack:
        for tracker in trackers:
            await stack.enter_async_context(tracker.lifespan())
        yield trackers


async def test_concurrent_workers_end_each_upload_once(server: ServerProcess) -> None:
    """P09 and P10: all workers were killed, and ten start at the same time."""
    namespace = await new_namespace(server)
    await leave_behind(server.url, namespace, "reaped")

    def known(name: str) -> int:
        return sum(getattr(tracker.statistics(), name) for tracker in trackers)

    async with workers(server.url, namespace) as trackers:
        await until(lambda: known("reaped") >= UPLOADS)
        # A second publication would have arrived by now.
        await anyio.sleep(1)
        ends = (await trackers[0].list(owner="reaped")).uploads
        counts = known("reaped"), known("events_published")

    # Overdue uploads cannot be claimed in Kafka: a worker that is busy for more than
    # RANK_DELAY_SECONDS is overtaken by the next one. Without ranks, each end is told ten times.
    most = 2 * UPLOADS if server.name == "kafka" else UPLOADS
    assert UPLOADS <= min(counts) <= max(counts) <= most
    assert len(ends) == UPLOADS
    assert {each.error.code for each in ends if each.error} == {ErrorCode.WORKER_LOST}
