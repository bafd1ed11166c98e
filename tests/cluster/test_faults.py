"""Servers that are killed, hang or are full: uploads continue, and their ends arrive afterwards."""

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
from upload_progress._runtime.log_limiter import LOG_EVERY_SECONDS
from upload_progress.exceptions import StoreUnavailable

pytestmark = pytest.mark.anyio

SECONDS = 90.0
RECOVERY_SECONDS = 30.0
"""The circuit breaker tries again after at most 5 s; the rest is for a busy machine."""
BEFORE, DURING, AFTER = (
    [f"{when}-{number}" for number in range(4)] for when in ("before", "during", "after")
)
CHUNKS = 100
SERVERS = {
    "the session store is not available": "redis",
    "the event publisher is not available": "rabbitmq",
    "RabbitPublisher: connection lost": "rabbitmq",
}
"""The server that a warning is about."""


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


def exhaust_memory(server: ServerProcess) -> None:
    """Let the server refuse all writes."""
    if server.name == "redis":
        limit_memory(server, 1)
    else:
        set_memory_alarm(server)


def restore_memory(server: ServerProcess) -> None:
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
    "full": (exhaust_memory, restore_memory),
}


@define
class Client:
    """Follows uploads to their ends at another worker."""

    tracker: ProgressTracker
    seen: dict[str, list[UploadProgress]] = field(factory=dict)

    async def add_upload(self, upload_id: str) -> None:
        seen = self.seen[upload_id] = []
        async for snapshot in self.tracker.watch(upload_id, owner="ann"):
            seen.append(snapshot)  # noqa: PERF401  # read by other tasks meanwhile

    async def wait_for_all(self, upload_ids: Sequence[str]) -> None:
        """Wait for a snapshot of each upload."""
        while not all(self.seen.get(each) for each in upload_ids):  # noqa: ASYNC110  # no event
            await anyio.sleep(0.01)

    async def wait_for(self, upload_id: str, state: UploadState) -> UploadProgress:
        """Poll until the upload is in *state*."""
        found: UploadProgress | None = None
        while found is None or found.state is not state:
            await anyio.sleep(0.01)
            with suppress(UploadNotFound, StoreUnavailable):
                found = await self.tracker.get(upload_id, owner="ann")
        return found


@asynccontextmanager
async def receiving(tracker: ProgressTracker, upload_ids: Sequence[str]) -> AsyncIterator[None]:
    """Receive the first byte of each upload, and the others at the end of the block."""
    async with AsyncExitStack() as stack:
        uploads = [
            await stack.enter_async_context(
                tracker.track(owner="ann", upload_id=each, total_bytes=CHUNKS)
            )
            for each in upload_ids
        ]
        for upload in uploads:
            upload.advance(1)
        yield
        for _ in range(CHUNKS - 1):
            for upload in uploads:
                upload.advance(1)
            await anyio.lowlevel.checkpoint()


async def wait_for_failure(tracker: ProgressTracker) -> None:
    """Wait until a call to store or broker has failed."""
    has_failed = False
    while not has_failed:
        await anyio.sleep(0.01)
        figures = tracker.statistics()
        has_failed = figures.store_failures + figures.publisher_failures > 0


def warnings(caplog: pytest.LogCaptureFixture) -> dict[str, list[float]]:
    """Return when each warning of the library was logged, by the server that it is about."""
    found = defaultdict[str, list[float]](list)
    for each in caplog.records:
        if each.name == "upload_progress" and each.levelno >= logging.WARNING:
            found[SERVERS[each.getMessage().partition(" (")[0]]].append(each.created)
    return found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("affected", ["redis", "rabbitmq"])
async def test_end_during_a_fault_arrives_after_recovery(
    redis_server: ServerProcess,
    rabbitmq_server: ServerProcess,
    caplog: pytest.LogCaptureFixture,
    affected: str,
    fault: str,
) -> None:
    """S02, S03, S05, B01, B02: the fault begins within some uploads, and before others."""
    server = redis_server if affected == "redis" else rabbitmq_server
    break_server, restore_server = (
        partial(to_thread.run_sync, act, server) for act in FAULTS[fault]
    )
    here, there = (
        ProgressTracker.from_url(redis_server.url, events=rabbitmq_server.url) for _ in range(2)
    )
    client = Client(there)
    with deadline(SECONDS):
        async with here.lifespan(), there.lifespan():
            async with anyio.create_task_group() as tasks, receiving(here, AFTER):
                async with receiving(here, BEFORE):
                    for each in (*BEFORE, *AFTER):
                        await client.wait_for(each, UploadState.RECEIVING)
                        tasks.start_soon(client.add_upload, each)
                    await client.wait_for_all([*BEFORE, *AFTER])
                    await break_server()
                async with receiving(here, DURING):
                    pass
                await wait_for_failure(here)
                await restore_server()
                restored_at = anyio.current_time()
            ends = [await client.wait_for(each, UploadState.COMPLETED) for each in DURING]
            recovery_seconds = anyio.current_time() - restored_at

    assert recovery_seconds <= RECOVERY_SECONDS
    for each in (*BEFORE, *AFTER):
        assert_monotonic(client.seen[each])
    ends += [seen[-1] for seen in client.seen.values()]
    assert {(each.state, each.bytes_transferred) for each in ends} == {("completed", CHUNKS)}
    [(server_name, times)] = warnings(caplog).items()
    assert server_name == affected
    # One line of each of the two workers.
    assert all(third - first >= LOG_EVERY_SECONDS for first, third in zip(times, times[2:]))  # noqa: B905  # one is shorter


async def test_full_store_gives_one_answer(redis_server: ServerProcess) -> None:
    """Redis that takes no writes can be read, but what it has is not shown as if it were new.

    Nothing else would decide between the two answers but the moment: each write that fails opens
    the circuit breaker, and each read closes it.
    """
    here, there = (ProgressTracker.from_url(redis_server.url) for _ in range(2))
    client, answers = Client(there), list[str]()
    with deadline(SECONDS):
        async with here.lifespan(), there.lifespan():
            async with receiving(here, ["full"]):
                await client.wait_for("full", UploadState.RECEIVING)
                await to_thread.run_sync(limit_memory, redis_server, 1)
                await wait_for_failure(there)
                stop_at = anyio.current_time() + 3
                while anyio.current_time() < stop_at:
                    answers.append(await answer(there, "full"))
                    await anyio.sleep(0.02)
                answers_here = await answer(here, "full")
                await to_thread.run_sync(limit_memory, redis_server, 0)
                restored_at = anyio.current_time()
                await client.wait_for("full", UploadState.RECEIVING)
                recovery_seconds = anyio.current_time() - restored_at
            await client.wait_for("full", UploadState.COMPLETED)

    assert set(answers) == {"unavailable"}
    assert answers_here == UploadState.RECEIVING
    assert recovery_seconds <= RECOVERY_SECONDS


async def answer(tracker: ProgressTracker, upload_id: str) -> str:
    """Return the state that is shown, or that the store is not available."""
    try:
        return (await tracker.get(upload_id, owner="ann")).state
    except StoreUnavailable:
        return "unavailable"
