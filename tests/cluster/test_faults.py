"""Real servers that are killed, hang, or are full: uploads go on, and their ends are told after."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread
from attrs import define, field
from redis import Redis

from tests._support.rabbitmq_alarms import clear_memory_alarm, set_memory_alarm
from tests._support.server_processes import ServerProcess
from tests._support.simulation import assert_monotonic, deadline
from upload_progress import ProgressTracker, UploadNotFound, UploadProgress, UploadState
from upload_progress._runtime.log_limiter import EVERY_SECONDS
from upload_progress.exceptions import StoreUnavailable

pytestmark = pytest.mark.anyio

SECONDS = 90.0
HEALED_SECONDS = 10.0
BEFORE, MEANWHILE, AFTER = (
    [f"{when}-{number}" for number in range(4)] for when in ("before", "meanwhile", "after")
)
PIECES = 100


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


def fill(server: ServerProcess) -> None:
    """Let it take nothing more."""
    if server.name == "redis":
        limit_memory(server, 1)
    else:
        set_memory_alarm(server)


def drain(server: ServerProcess) -> None:
    if server.name == "redis":
        limit_memory(server, 0)
    else:
        clear_memory_alarm(server)


def limit_memory(server: ServerProcess, limit_bytes: int) -> None:
    with Redis(port=server.port) as client:
        client.config_set("maxmemory", limit_bytes)


FAULTS = {
    "killed": (ServerProcess.kill, ServerProcess.start),
    "hung": (ServerProcess.pause, ServerProcess.resume),
    "full": (fill, drain),
}


@define
class Subscription:
    """Somebody at another worker, who follows uploads to their ends."""

    tracker: ProgressTracker
    seen: dict[str, list[UploadProgress]] = field(factory=dict)

    async def follow(self, upload_id: str) -> None:
        seen = self.seen[upload_id] = []
        async for snapshot in self.tracker.watch(upload_id, owner="ann"):
            seen.append(snapshot)  # noqa: PERF401  # others look at it meanwhile

    async def sees(self, upload_ids: Sequence[str]) -> None:
        """Wait until something has come of each."""
        while not all(self.seen.get(each) for each in upload_ids):  # noqa: ASYNC110  # no event
            await anyio.sleep(0.01)

    async def finds(self, upload_id: str, state: UploadState) -> UploadProgress:
        """Ask until it is in that state."""
        found: UploadProgress | None = None
        while found is None or found.state is not state:
            await anyio.sleep(0.01)
            with suppress(UploadNotFound, StoreUnavailable):
                found = await self.tracker.get(upload_id, owner="ann")
        return found


@asynccontextmanager
async def receiving(tracker: ProgressTracker, upload_ids: Sequence[str]) -> AsyncIterator[None]:
    """Receive those uploads, to the end of the block; most of them then, in many pieces."""
    async with AsyncExitStack() as stack:
        uploads = [
            await stack.enter_async_context(
                tracker.track(owner="ann", upload_id=each, total_bytes=PIECES)
            )
            for each in upload_ids
        ]
        for upload in uploads:
            upload.advance(1)
        yield
        for _ in range(PIECES - 1):
            for upload in uploads:
                upload.advance(1)
            await anyio.lowlevel.checkpoint()


async def noticed(tracker: ProgressTracker) -> None:
    """Wait until something has failed."""
    has_failed = False
    while not has_failed:
        await anyio.sleep(0.01)
        figures = tracker.statistics()
        has_failed = figures.store_failures + figures.publisher_failures > 0


def warnings(caplog: pytest.LogCaptureFixture) -> dict[str, list[float]]:
    """Return when each warning was logged, by what it says; what drivers log is theirs."""
    found = defaultdict[str, list[float]](list)
    for each in caplog.records:
        if each.name == "upload_progress" and each.levelno >= logging.WARNING:
            found[each.getMessage().partition(" (")[0]].append(each.created)
    return found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("broken", ["redis", "rabbitmq"])
async def test_what_ends_while_a_server_is_away_is_told_when_it_is_back(
    redis_server: ServerProcess,
    rabbitmq_server: ServerProcess,
    caplog: pytest.LogCaptureFixture,
    broken: str,
    fault: str,
) -> None:
    """S02, S03, S05, B01, B02: it breaks in the middle of some uploads, and before others."""
    server = redis_server if broken == "redis" else rabbitmq_server
    smash, hint = (partial(to_thread.run_sync, act, server) for act in FAULTS[fault])
    here, there = (
        ProgressTracker.from_url(redis_server.url, events=rabbitmq_server.url) for _ in range(2)
    )
    watcher = Subscription(there)
    with deadline(SECONDS):
        async with here.lifespan(), there.lifespan():
            async with anyio.create_task_group() as tasks, receiving(here, AFTER):
                async with receiving(here, BEFORE):
                    for each in (*BEFORE, *AFTER):
                        await watcher.finds(each, UploadState.RECEIVING)
                        tasks.start_soon(watcher.follow, each)
                    await watcher.sees([*BEFORE, *AFTER])
                    await smash()
                async with receiving(here, MEANWHILE):
                    pass
                await noticed(here)
                await hint()
                mended_at = anyio.current_time()
            ends = [await watcher.finds(each, UploadState.COMPLETED) for each in MEANWHILE]
            lasted = anyio.current_time() - mended_at

    assert lasted <= HEALED_SECONDS
    for each in (*BEFORE, *AFTER):
        assert_monotonic(watcher.seen[each])
    ends += [seen[-1] for seen in watcher.seen.values()]
    assert {(each.state, each.bytes_transferred) for each in ends} == {("completed", PIECES)}
    [(said, times)] = warnings(caplog).items()
    assert said.startswith("the session store" if broken == "redis" else "the event publisher")
    # Of two workers, one line each.
    assert all(third - first >= EVERY_SECONDS for first, third in zip(times, times[2:]))  # noqa: B905  # one is shorter
