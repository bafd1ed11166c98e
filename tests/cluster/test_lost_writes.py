"""A server that restarts without its last writes, which it had acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest
from anyio import to_thread
from redis import Redis

from tests._support.server_processes import ServerProcess
from tests._support.simulation import deadline
from upload_progress import ProgressTracker, UploadNotFound, UploadProgress, UploadState
from upload_progress.exceptions import StoreUnavailable

pytestmark = [
    pytest.mark.anyio,
    # A connection of redis-py that broke off while it was made may be closed by its finalizer.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LEASE_SECONDS = 3.0


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture
def server(redis_server: ServerProcess) -> Iterator[ServerProcess]:
    """Redis, which loads at its start what was saved last."""
    yield redis_server
    with Redis(port=redis_server.port) as client:
        client.flushall()
    (redis_server.folder / "dump.rdb").unlink(missing_ok=True)


def save(server: ServerProcess) -> None:
    with Redis(port=server.port) as client:
        client.save()


async def wait_for(tracker: ProgressTracker, upload_id: str, state: UploadState) -> UploadProgress:
    """Poll until the upload is in *state*."""
    found: UploadProgress | None = None
    while found is None or found.state is not state:
        await anyio.sleep(0.02)
        with suppress(UploadNotFound, StoreUnavailable):
            found = await tracker.get(upload_id, owner="ann")
    return found


async def test_ends_are_written_again(server: ServerProcess) -> None:
    """One of an upload that Redis has as running, and one of which it has nothing."""
    here, there = (
        ProgressTracker.from_url(server.url, lease_seconds=LEASE_SECONDS) for _ in range(2)
    )
    with deadline(60):
        async with here.lifespan(), there.lifespan():
            async with here.track(owner="ann", upload_id="goes-on") as going_on:
                async with here.track(owner="ann", upload_id="zombie") as upload:
                    upload.advance(5)
                    await wait_for(there, "zombie", UploadState.RECEIVING)
                    await wait_for(there, "goes-on", UploadState.RECEIVING)
                    await to_thread.run_sync(save, server)
                async with here.track(owner="ann", upload_id="unknown"):
                    pass
                ends = [
                    await wait_for(there, each, UploadState.COMPLETED)
                    for each in ("zombie", "unknown")
                ]
                await to_thread.run_sync(server.kill)
                await anyio.sleep(1.5)
                await to_thread.run_sync(server.start)
                again = [
                    await wait_for(there, each, UploadState.COMPLETED)
                    for each in ("zombie", "unknown")
                ]
                assert (await wait_for(there, "goes-on", UploadState.RECEIVING)).attempt == 1
                going_on.advance(3)
            end = await wait_for(there, "goes-on", UploadState.COMPLETED)

    assert again == ends
    assert (end.attempt, end.bytes_transferred) == (1, 3)
