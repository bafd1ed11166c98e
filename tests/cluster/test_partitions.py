"""Lines to store and broker that break: uploads go on, and all is told once they are back."""

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
PIECES = 10


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(params=["redis", "postgres"])
async def server(request: pytest.FixtureRequest) -> ServerProcess:
    daemon: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    if request.param == "postgres":
        await migrate(daemon.url)
    return daemon


def refuse(proxy: TcpProxy) -> None:
    """As if the server were not there."""
    proxy.refuses_connections = True
    proxy.reset_connections()


def swallow(proxy: TcpProxy) -> None:
    """As if somebody had pulled the plug: the lines stay, and nobody answers."""
    proxy.drops_data = True


def dawdle(proxy: TcpProxy) -> None:
    """As slow as a server at the other end of a continent."""
    proxy.delay_seconds = 0.02


def delay(proxy: TcpProxy) -> None:
    """As slow as anybody waits."""
    proxy.delay_seconds = 1.0


def delay_more(proxy: TcpProxy) -> None:
    """Slower than anybody waits."""
    proxy.delay_seconds = 5.0


def hint(proxy: TcpProxy) -> None:
    proxy.refuses_connections = proxy.drops_data = False
    proxy.delay_seconds = 0.0
    # Of what was swallowed, nothing more will come.
    proxy.reset_connections()


@define
class Lines:
    """A tracker behind two lines that may break, and one beside it that hears everything."""

    store: TcpProxy
    events: TcpProxy
    here: ProgressTracker
    there: ProgressTracker

    def broken(self, parts: str) -> list[TcpProxy]:
        """Return the lines that are meant."""
        return [getattr(self, part) for part in parts.split()]

    async def ended(self, upload_id: str) -> UploadProgress:
        """Ask beside until the upload has ended."""
        found: UploadProgress | None = None
        while found is None or found.state is not UploadState.COMPLETED:
            await anyio.sleep(0.02)
            with suppress(UploadNotFound):
                found = await self.there.get(upload_id, owner="ann")
        return found


def urls(server: ServerProcess, proxy: TcpProxy) -> str:
    return server.url.replace(f":{server.port}", f":{proxy.port}")


@asynccontextmanager
async def lines(server: ServerProcess, proxy_to: ProxyTo) -> AsyncIterator[Lines]:
    store, events = proxy_to(server.port), proxy_to(server.port)
    here = ProgressTracker.from_url(urls(server, store), events=urls(server, events))
    with deadline(SECONDS):
        yield Lines(store, events, here, ProgressTracker.from_url(server.url))


def each_is_said_once(caplog: pytest.LogCaptureFixture) -> bool:
    """Return whether nothing was logged but that store or broker are away, once each."""
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    names = [message.partition(" is not available (")[0] for message in said]
    return len(set(names)) == len(names) and set(names) <= {
        "the session store",
        "the event publisher",
    }


@pytest.mark.parametrize("parts", ["store", "events", "store events"])
@pytest.mark.parametrize("fault", [refuse, swallow])
async def test_dead_at_the_start(
    server: ServerProcess,
    proxy_to: ProxyTo,
    caplog: pytest.LogCaptureFixture,
    parts: str,
    fault: Callable[[TcpProxy], None],
) -> None:
    """S01: the application starts, uploads are taken, and what they came to is told later."""
    upload_id = f"start-{fault.__name__}-{parts.replace(' ', '-')}"
    async with lines(server, proxy_to) as all_lines:
        for proxy in all_lines.broken(parts):
            fault(proxy)
        async with all_lines.here.lifespan(), all_lines.there.lifespan():
            async with all_lines.here.track(owner="ann", upload_id=upload_id) as upload:
                upload.advance(10)
            mine = await all_lines.here.get(upload_id, owner="ann")
            assert mine.state is UploadState.COMPLETED
            for proxy in all_lines.broken(parts):
                hint(proxy)
            assert (await all_lines.ended(upload_id)).bytes_transferred == 10

    assert each_is_said_once(caplog)


@pytest.mark.parametrize("parts", ["store", "events", "store events"])
@pytest.mark.parametrize("fault", [refuse, swallow, dawdle, delay, delay_more])
async def test_broken_in_the_middle(
    server: ServerProcess,
    proxy_to: ProxyTo,
    caplog: pytest.LogCaptureFixture,
    parts: str,
    fault: Callable[[TcpProxy], None],
) -> None:
    """S02, S03, P11: a watcher at another worker sees less for a while, and then the end."""
    upload_id = f"middle-{fault.__name__}-{parts.replace(' ', '-')}"
    seen = list[UploadProgress]()

    async def watch(tracker: ProgressTracker) -> None:
        seen.extend([each async for each in tracker.watch(upload_id, owner="ann")])

    async with lines(server, proxy_to) as all_lines:
        here, there = all_lines.here, all_lines.there
        async with here.lifespan(), there.lifespan(), anyio.create_task_group() as tasks:
            async with here.track(owner="ann", upload_id=upload_id, total_bytes=PIECES) as upload:
                upload.advance(1)
                await stored(there, upload_id)
                tasks.start_soon(watch, there)
                for proxy in all_lines.broken(parts):
                    fault(proxy)
                for _ in range(PIECES - 1):
                    upload.advance(1)
                    await anyio.lowlevel.checkpoint()
            for proxy in all_lines.broken(parts):
                hint(proxy)

    assert_monotonic(seen)
    assert (seen[-1].state, seen[-1].bytes_transferred) == (UploadState.COMPLETED, PIECES)
    assert each_is_said_once(caplog)


async def stored(tracker: ProgressTracker, upload_id: str) -> None:
    """Wait until *tracker* knows of it."""
    found: UploadProgress | None = None
    while found is None:
        await anyio.sleep(0.01)
        with suppress(UploadNotFound):
            found = await tracker.get(upload_id, owner="ann")


async def test_what_ends_last_is_stored_before_the_worker_stops(
    server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """P02: also where the store was away until a moment ago, and was not to be asked yet."""
    async with lines(server, proxy_to) as all_lines:
        async with all_lines.here.lifespan():
            async with all_lines.here.track(owner="ann", upload_id="last") as upload:
                await stored(all_lines.here, "last")
                refuse(all_lines.store)
                upload.advance(1)
            await failing(all_lines.here)
            hint(all_lines.store)
        async with all_lines.there.lifespan():
            assert (await all_lines.ended("last")).bytes_transferred == 1


async def failing(tracker: ProgressTracker) -> None:
    """Wait until its store has been found to be away."""
    has_failed = False
    while not has_failed:
        await anyio.sleep(0.01)
        has_failed = tracker.statistics().store_failures > 0


async def test_what_is_not_known_is_not_made_up(server: ServerProcess, proxy_to: ProxyTo) -> None:
    """I11: while the store is away, what is received elsewhere is not answered wrongly."""
    async with lines(server, proxy_to) as all_lines:
        refuse(all_lines.store)
        async with (
            all_lines.here.lifespan(),
            all_lines.there.lifespan(),
            all_lines.there.track(owner="ann", upload_id="elsewhere"),
        ):
            with pytest.raises(StoreUnavailable):
                await all_lines.here.get("elsewhere", owner="ann")
