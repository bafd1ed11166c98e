"""Network faults before store and broker: uploads continue, and their ends arrive afterwards."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from attrs import define

from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from tests._support.simulation import assert_monotonic, deadline
from tests._support.tcp_proxy import TcpProxy
from upload_progress import ProgressTracker, UploadNotFound, UploadProgress, UploadState
from upload_progress.backends.postgres.schema import migrate
from upload_progress.exceptions import StoreUnavailable

pytestmark = pytest.mark.anyio

SECONDS = 60.0
CHUNKS = 10
WARNINGS = {
    "the session store is not available": "store",
    "the event publisher is not available": "broker",
    "RedisPublisher: connection lost": "broker",
    "PostgresPublisher: connection lost": "broker",
}


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(params=["redis", "postgres"])
async def server(request: pytest.FixtureRequest) -> ServerProcess:
    server_process: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    if request.param == "postgres":
        await migrate(server_process.url)
    return server_process


def refuse_connections(proxy: TcpProxy) -> None:
    """As if the server did not run."""
    proxy.refuses_connections = True
    proxy.reset_connections()


def drop_data(proxy: TcpProxy) -> None:
    """As if a cable were unplugged: connections stay open, and no answer comes."""
    proxy.drops_data = True


def delay_slightly(proxy: TcpProxy) -> None:
    """Like a server on another continent."""
    proxy.delay_seconds = 0.02


def delay_by_one_second(proxy: TcpProxy) -> None:
    """As long as the timeout of a call."""
    proxy.delay_seconds = 1.0


def delay_by_five_seconds(proxy: TcpProxy) -> None:
    """Longer than the timeout of a call."""
    proxy.delay_seconds = 5.0


def restore(proxy: TcpProxy) -> None:
    proxy.refuses_connections = proxy.drops_data = False
    proxy.delay_seconds = 0.0
    # Data that was dropped will not arrive.
    proxy.reset_connections()


@define
class Partition:
    """A tracker behind two proxies, and another one that reaches the server directly."""

    store: TcpProxy
    events: TcpProxy
    near: ProgressTracker
    far: ProgressTracker

    def proxies(self, parts: str) -> list[TcpProxy]:
        """Return the proxies by their names."""
        return [getattr(self, part) for part in parts.split()]

    async def wait_for_end(self, upload_id: str) -> UploadProgress:
        """Poll at the far worker until the upload has completed."""
        found: UploadProgress | None = None
        while found is None or found.state is not UploadState.COMPLETED:
            await anyio.sleep(0.02)
            with suppress(UploadNotFound):
                found = await self.far.get(upload_id, owner="ann")
        return found


def url_through(server: ServerProcess, proxy: TcpProxy) -> str:
    return server.url.replace(f":{server.port}", f":{proxy.port}")


@asynccontextmanager
async def partitioned(server: ServerProcess, proxy_to: ProxyTo) -> AsyncIterator[Partition]:
    store, events = proxy_to(server.port), proxy_to(server.port)
    near = ProgressTracker.from_url(url_through(server, store), events=url_through(server, events))
    with deadline(SECONDS):
        yield Partition(store, events, near, ProgressTracker.from_url(server.url))


def is_logged_once(caplog: pytest.LogCaptureFixture) -> bool:
    """Tell whether all warnings are that store or broker are away, at most one about each."""
    logged = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    topics = [WARNINGS.get(message.partition(" (")[0], message) for message in logged]
    return len(set(topics)) == len(topics) and set(topics) <= {"store", "broker"}


@pytest.mark.parametrize("parts", ["store", "events", "store events"])
@pytest.mark.parametrize("fault", [refuse_connections, drop_data])
async def test_fault_at_the_start(
    server: ServerProcess,
    proxy_to: ProxyTo,
    caplog: pytest.LogCaptureFixture,
    parts: str,
    fault: Callable[[TcpProxy], None],
) -> None:
    """S01: the application starts, uploads are received, and their ends arrive later."""
    upload_id = f"start-{fault.__name__}-{parts.replace(' ', '-')}"
    async with partitioned(server, proxy_to) as workers:
        for proxy in workers.proxies(parts):
            fault(proxy)
        async with workers.near.lifespan(), workers.far.lifespan():
            async with workers.near.track(owner="ann", upload_id=upload_id) as upload:
                upload.advance(10)
            near_snapshot = await workers.near.get(upload_id, owner="ann")
            assert near_snapshot.state is UploadState.COMPLETED
            for proxy in workers.proxies(parts):
                restore(proxy)
            assert (await workers.wait_for_end(upload_id)).bytes_transferred == 10

    assert is_logged_once(caplog)


@pytest.mark.parametrize("parts", ["store", "events", "store events"])
@pytest.mark.parametrize(
    "fault",
    [refuse_connections, drop_data, delay_slightly, delay_by_one_second, delay_by_five_seconds],
)
async def test_fault_in_the_middle(
    server: ServerProcess,
    proxy_to: ProxyTo,
    caplog: pytest.LogCaptureFixture,
    parts: str,
    fault: Callable[[TcpProxy], None],
) -> None:
    """S02, S03, P11: the other worker shows less for a while, and then the end."""
    upload_id = f"middle-{fault.__name__}-{parts.replace(' ', '-')}"
    seen = list[UploadProgress]()

    async def watch(tracker: ProgressTracker) -> None:
        seen.extend([each async for each in tracker.watch(upload_id, owner="ann")])

    async with partitioned(server, proxy_to) as workers:
        near, far = workers.near, workers.far
        async with near.lifespan(), far.lifespan(), anyio.create_task_group() as tasks:
            async with near.track(owner="ann", upload_id=upload_id, total_bytes=CHUNKS) as upload:
                upload.advance(1)
                await wait_until_stored(far, upload_id)
                tasks.start_soon(watch, far)
                for proxy in workers.proxies(parts):
                    fault(proxy)
                for _ in range(CHUNKS - 1):
                    upload.advance(1)
                    await anyio.lowlevel.checkpoint()
            for proxy in workers.proxies(parts):
                restore(proxy)

    assert_monotonic(seen)
    assert (seen[-1].state, seen[-1].bytes_transferred) == (UploadState.COMPLETED, CHUNKS)
    assert is_logged_once(caplog)


async def wait_until_stored(tracker: ProgressTracker, upload_id: str) -> None:
    """Wait until *tracker* finds the upload."""
    found: UploadProgress | None = None
    while found is None:
        await anyio.sleep(0.01)
        with suppress(UploadNotFound):
            found = await tracker.get(upload_id, owner="ann")


async def test_last_end_is_stored_before_the_worker_stops(
    server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """P02: also while the circuit breaker is still open, just after the store was away."""
    async with partitioned(server, proxy_to) as workers:
        async with workers.near.lifespan():
            async with workers.near.track(owner="ann", upload_id="last") as upload:
                await wait_until_stored(workers.near, "last")
                refuse_connections(workers.store)
                upload.advance(1)
            await wait_for_store_failure(workers.near)
            restore(workers.store)
        async with workers.far.lifespan():
            assert (await workers.wait_for_end("last")).bytes_transferred == 1


async def wait_for_store_failure(tracker: ProgressTracker) -> None:
    """Wait until a call to its store has failed."""
    has_failed = False
    while not has_failed:
        await anyio.sleep(0.01)
        has_failed = tracker.statistics().store_failures > 0


async def test_upload_elsewhere_is_unavailable_while_the_store_is_away(
    server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """I11: it is not reported as unknown."""
    async with partitioned(server, proxy_to) as workers:
        refuse_connections(workers.store)
        async with (
            workers.near.lifespan(),
            workers.far.lifespan(),
            workers.far.track(owner="ann", upload_id="elsewhere"),
        ):
            with pytest.raises(StoreUnavailable):
                await workers.near.get("elsewhere", owner="ann")
