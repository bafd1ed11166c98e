"""Tasks in processes of their own, one of which is killed, on each store outside of a process."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from anyio import to_thread

from tests._support.simulation import deadline
from upload_progress import ErrorCode, ProgressTracker, UploadProgress, UploadState

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.5
S = UploadState


@contextmanager
def task_process(url: str, token: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process with a task, which goes on with the upload of *token*."""
    command = [sys.executable, "-m", "tests.servers.task_process", url, str(LEASE_SECONDS), token]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that *process* prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def end_of(tracker: ProgressTracker, upload_id: str) -> UploadProgress:
    """Return the last snapshot that the owner sees."""
    return [each async for each in tracker.watch(upload_id, owner="ann")][-1]


async def snapshot_of_attempt(tracker: ProgressTracker, upload_id: str, attempt: int) -> object:
    """Return state and bytes of an attempt, as soon as this process has read it twice."""
    seen: list[UploadProgress] = []
    while sum(each.attempt == attempt for each in seen) < 2:
        await anyio.sleep(0.05)
        seen.append(await tracker.get(upload_id, owner="ann"))
    return seen[-1].attempt, seen[-1].state, seen[-1].bytes_transferred


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("store", ["redis_url", "migrated_postgres_url", "kafka_url"])
async def test_killed_task_fails_and_the_next_one_completes(
    store: str, request: pytest.FixtureRequest
) -> None:
    url, upload_id = request.getfixturevalue(store), secrets.token_hex(8)
    tracker = ProgressTracker.from_url(url, lease_seconds=LEASE_SECONDS)
    with deadline(60):
        async with tracker.lifespan():
            async with tracker.track(owner="ann", upload_id=upload_id, total_bytes=3) as upload:
                upload.advance(3)
                token = await upload.hand_over()
            with task_process(url, token) as killed:
                assert await to_thread.run_sync(next_line, killed) == "1"
            killed_at = time.monotonic()
            lost = await end_of(tracker, upload_id)
            seconds = time.monotonic() - killed_at
            with task_process(url, token) as again:
                assert await to_thread.run_sync(next_line, again) == "2"
                seen = await snapshot_of_attempt(tracker, upload_id, 2)
                await to_thread.run_sync(again.communicate)
            end = await end_of(tracker, upload_id)

    assert lost.error is not None
    assert (lost.attempt, lost.state, lost.error.code) == (1, S.FAILED, ErrorCode.WORKER_LOST)
    assert seconds < 20
    assert seen == (2, S.PROCESSING, 3)
    assert (end.attempt, end.state, end.bytes_transferred) == (2, S.COMPLETED, 3)
