"""Servers that are away for longer than a lease: no upload of a healthy worker is ended wrongly.

The outages are scaled with the lease: "20 s" means 4/3 of a lease of 15 s. The nox session
``outages`` runs them in their true lengths.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
import pytest
from anyio import to_thread
from redis import Redis

from tests._support.connection_faults import until
from tests._support.namespaces import new_namespace
from tests._support.server_processes import ServerProcess
from tests._support.simulation import deadline
from upload_progress import ProgressTracker, Upload, UploadNotFound, UploadProgress, UploadState
from upload_progress.exceptions import StoreUnavailable

pytestmark = [
    pytest.mark.anyio,
    # A connection of aiokafka that broke off while it was made may be closed by its finalizer.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WORKERS: Final = 3
UPLOADS: Final = 10
"""At each worker."""
SIZE: Final = 10_000
LEASE_SECONDS: Final = 6.0
"""As short as the timeouts and delays of clients allow, which are not scaled."""

Act = Callable[[ServerProcess], object]


def limit_memory(limit_bytes: int, server: ServerProcess) -> None:
    with Redis(port=server.port) as client:
        client.config_set("maxmemory", limit_bytes)


HUNG: Final = ServerProcess.pause, ServerProcess.resume
KILLED: Final = ServerProcess.kill, ServerProcess.start
FULL: Final = partial(limit_memory, 1), partial(limit_memory, 0)
OUTAGES: Final[dict[str, tuple[str, Act, Act]]] = {
    "redis hangs": ("redis", *HUNG),
    "redis is killed": ("redis", *KILLED),
    "redis is full": ("redis", *FULL),
    "postgres hangs": ("postgres", *HUNG),
    "postgres is killed": ("postgres", *KILLED),
    "kafka hangs": ("kafka", *HUNG),
    "kafka is killed": ("kafka", *KILLED),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the test with the outages of the command line."""
    seconds = metafunc.config.getoption("--outages").split(",")
    metafunc.parametrize("outage_seconds", [float(each) for each in seconds])


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest) -> tuple[str, Act, Act]:
    return OUTAGES[request.param]


@pytest.fixture
async def server(
    request: pytest.FixtureRequest, outage: tuple[str, Act, Act]
) -> AsyncIterator[ServerProcess]:
    process: ServerProcess = request.getfixturevalue(f"{outage[0]}_server")
    yield process
    if process.name == "redis":
        limit_memory(0, process.ensure_running())


@pytest.fixture
def lease_seconds(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("--lease-seconds") or LEASE_SECONDS)


@asynccontextmanager
async def running_workers(
    server: ServerProcess, lease_seconds: float
) -> AsyncIterator[list[ProgressTracker]]:
    namespace = await new_namespace(server)
    trackers = [
        ProgressTracker.from_url(server.url, lease_seconds=lease_seconds, namespace=namespace)
        for _ in range(WORKERS)
    ]
    async with AsyncExitStack() as stack:
        for tracker in trackers:
            await stack.enter_async_context(tracker.lifespan())
        yield trackers


@asynccontextmanager
async def receiving(tracker: ProgressTracker, upload_ids: Sequence[str]) -> AsyncIterator[None]:
    """Receive uploads while the block runs; each is completed at its end."""
    finished = anyio.Event()
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        uploads = [
            await stack.enter_async_context(
                tracker.track(owner="ann", upload_id=upload_id, total_bytes=SIZE)
            )
            for upload_id in upload_ids
        ]
        for upload in uploads:
            upload.advance(1)
        tasks.start_soon(advance, uploads, finished)
        yield
        finished.set()
        for upload in uploads:
            assert (upload.state, upload.is_cancelled) == (UploadState.RECEIVING, False)
            upload.advance(SIZE - upload.received_bytes)


async def advance(uploads: Sequence[Upload], finished: anyio.Event) -> None:
    """Let a byte of each upload arrive twice a second."""
    while not finished.is_set():
        for upload in uploads:
            upload.advance(1)
        with anyio.move_on_after(0.5):
            await finished.wait()


async def wait_for_all(
    tracker: ProgressTracker, upload_ids: Sequence[str], state: UploadState
) -> None:
    """Poll until all uploads are in *state*; none may have ended otherwise."""
    missing = set(upload_ids)
    while missing:
        for upload_id in sorted(missing):
            with suppress(UploadNotFound, StoreUnavailable):
                found = await tracker.get(upload_id, owner="ann")
                assert found.state in {UploadState.RECEIVING, UploadState.PROCESSING, state}
                missing -= {upload_id} if found.state is state else set()
        await anyio.sleep(0.05)


async def follow(tracker: ProgressTracker, upload_id: str, seen: dict[str, UploadProgress]) -> None:
    """Keep the newest snapshot that a watcher has seen, up to the end."""
    async for snapshot in tracker.watch(upload_id, owner="ann"):
        seen[upload_id] = snapshot


async def test_outage_ends_no_upload(
    server: ServerProcess,
    outage: tuple[str, Act, Act],
    lease_seconds: float,
    outage_seconds: float,
    request: pytest.FixtureRequest,
) -> None:
    """Three workers receive ten uploads each, before, during and after the outage."""
    _, break_server, restore_server = outage
    name = str(abs(hash(request.node.name)))
    ids = [[f"{name}-{worker}-{n}" for n in range(UPLOADS)] for worker in range(WORKERS)]
    everything = [upload_id for each in ids for upload_id in each]
    seen: dict[str, UploadProgress] = {}
    with deadline(60 + 10 * lease_seconds):
        async with (
            running_workers(server, lease_seconds) as trackers,
            AsyncExitStack() as stack,
        ):
            watchers = await stack.enter_async_context(anyio.create_task_group())
            async with AsyncExitStack() as uploads:
                for tracker, upload_ids in zip(trackers, ids, strict=True):
                    await uploads.enter_async_context(receiving(tracker, upload_ids))
                for number, tracker in enumerate(trackers):
                    await wait_for_all(tracker, everything, UploadState.RECEIVING)
                    for upload_id in ids[number - 1]:
                        watchers.start_soon(follow, tracker, upload_id, seen)
                await until(lambda: len(seen) == len(everything))
                await to_thread.run_sync(break_server, server)
                await anyio.sleep(outage_seconds * lease_seconds / 15)
                await to_thread.run_sync(restore_server, server)
                await anyio.sleep(1.5 * lease_seconds)
                for tracker in trackers:
                    await wait_for_all(tracker, everything, UploadState.RECEIVING)
            for tracker in trackers:
                await wait_for_all(tracker, everything, UploadState.COMPLETED)
            reaped = sum(tracker.statistics().reaped for tracker in trackers)

    assert reaped == 0
    ends = {(end.state, end.attempt, end.bytes_transferred) for end in seen.values()}
    assert ends == {(UploadState.COMPLETED, 1, SIZE)}
