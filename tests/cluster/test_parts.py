"""Parts of one upload at two workers with a common store: both report the same sum."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import pytest

from tests._support.protocol_apps import S3App, TusApp, send_request
from tests._support.scripted_server import ALICE, body_messages
from upload_progress import ProgressTracker, UploadNotFound, UploadProgress, UploadState

pytestmark = pytest.mark.anyio

S = UploadState
SECONDS = 30.0
STORES = ["redis_url", "migrated_postgres_url", "kafka_url"]


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture(params=STORES)
async def workers(request: pytest.FixtureRequest) -> AsyncIterator[list[ProgressTracker]]:
    """Return the trackers of two workers."""
    url: str = request.getfixturevalue(request.param)
    trackers = [ProgressTracker.from_url(url) for _ in range(2)]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        yield trackers


async def wait_for_agreement(
    workers: list[ProgressTracker], upload_id: str, state: UploadState, received: int
) -> UploadProgress:
    """Wait until both workers report *state* and *received* bytes; return the snapshot."""
    shown: list[UploadProgress] = []
    with anyio.fail_after(SECONDS):
        while {(each.state, each.bytes_transferred) for each in shown} != {(state, received)}:
            await anyio.sleep(0.05)
            with suppress(UploadNotFound):
                shown = [await worker.get(upload_id, owner=ALICE) for worker in workers]
    return shown[0]


async def test_parallel_parts_are_added_up(workers: list[ProgressTracker]) -> None:
    server, headers_of_upload = S3App(), {"upload-id": secrets.token_urlsafe(16)}
    address = f"/bucket/{headers_of_upload['upload-id']}?uploadId=a"
    async with anyio.create_task_group() as tasks:
        for number in range(1, 11):

            async def put(number: int) -> None:
                worker, path = workers[number % 2], f"{address}&partNumber={number}"
                await send_request(
                    server, worker, "PUT", path, headers=headers_of_upload, content=b"x" * 100
                )

            tasks.start_soon(put, number)
    again = f"{address}&partNumber=3"
    await send_request(
        server, workers[0], "PUT", again, headers=headers_of_upload, content=b"y" * 100
    )
    shown = await wait_for_agreement(workers, headers_of_upload["upload-id"], S.PAUSED, 1000)
    assert (shown.retransmitted_bytes, shown.total_bytes) == (100, None)

    await send_request(
        server,
        workers[1],
        "POST",
        address,
        headers={**headers_of_upload, "content-type": "application/xml"},
        content=b"<xml/>",
    )

    done = await wait_for_agreement(workers, headers_of_upload["upload-id"], S.COMPLETED, 1000)
    assert (done.total_bytes, done.percent) == (1000, 100.0)
    assert done.parts
    assert (done.parts.received, done.parts.total) == (10, 10)


async def test_upload_that_breaks_at_one_worker_resumes_at_the_other(
    workers: list[ProgressTracker],
) -> None:
    server, headers_of_upload = TusApp(), {"upload-id": secrets.token_urlsafe(16)}
    headers = {"tus-resumable": "1.0.0", **headers_of_upload}
    length = {"upload-length": "30"}
    await send_request(server, workers[0], "POST", "/files", headers=headers | length)
    octets = {"content-type": "application/offset+octet-stream", **headers}
    messages = [*body_messages(b"x" * 12)[:1], {"type": "http.disconnect"}]
    at = {"upload-offset": "0"}
    await send_request(
        server, workers[0], "PATCH", "/files/0", headers=octets | at, messages=messages
    )
    await wait_for_agreement(workers, headers_of_upload["upload-id"], S.PAUSED, 12)

    at = {"upload-offset": "10"}
    del server.files["/files/0"][10:]
    await send_request(
        server, workers[1], "PATCH", "/files/0", headers=octets | at, content=b"y" * 20
    )

    done = await wait_for_agreement(workers, headers_of_upload["upload-id"], S.COMPLETED, 30)
    assert (done.attempt, done.retransmitted_bytes) == (1, 2)
