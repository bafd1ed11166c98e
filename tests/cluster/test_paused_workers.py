"""Worker processes that stand still for longer than their lease, and run without lifespan."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import anyio
import httpx2
import pytest

from tests._support.cluster_clients import ProgressClient
from tests._support.paths import ROOT
from tests._support.server_processes import ServerProcess, free_port, new_folder, responds_to
from tests._support.simulation import deadline
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import ErrorCode
from upload_progress._model.state import is_final

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 2.0
SIZE = 300
HALF = 100

S = UploadState


@pytest.fixture
def anyio_backend() -> str:
    """The servers are tested; the client needs one event loop only."""
    return "asyncio"


def worker_process(store_url: str, *options: str) -> ServerProcess:
    port = free_port()
    app = ["-m", "uvicorn", "--factory", "tests.servers.worker_app:create_app"]
    return ServerProcess(
        name="uvicorn",
        url=f"http://127.0.0.1:{port}",
        port=port,
        folder=new_folder("uvicorn"),
        command=[sys.executable, *app, "--port", str(port), *options],
        environment={
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "STORE_URL": store_url,
            "LEASE_SECONDS": str(LEASE_SECONDS),
        },
        is_ready=lambda: responds_to(port, b"GET /worker HTTP/1.1\r\nHost: x\r\n\r\n"),
    )


@pytest.fixture(params=["redis", "migrated_postgres", "kafka"])
def store_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def workers(store_url: str) -> Iterator[list[ServerProcess]]:
    with ExitStack() as stack:
        yield [started(worker_process(store_url), stack) for _ in range(2)]


@pytest.fixture(params=["redis", "migrated_postgres"])
def workers_without_lifespan(request: pytest.FixtureRequest) -> Iterator[list[ServerProcess]]:
    url = str(request.getfixturevalue(f"{request.param}_url"))
    with ExitStack() as stack:
        yield [started(worker_process(url, "--lifespan", "off"), stack) for _ in range(2)]


def started(process: ServerProcess, stack: ExitStack) -> ServerProcess:
    stack.callback(process.stop)
    return process.start()


@asynccontextmanager
async def client_of(process: ServerProcess) -> AsyncIterator[ProgressClient]:
    async with httpx2.AsyncClient(base_url=process.url, timeout=30) as http:
        yield ProgressClient(http)


class SlowUpload:
    """The client of an upload that sends a part of it, and the rest when it is told to."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.upload_id = secrets.token_urlsafe(16)
        self.may_finish = anyio.Event()
        self.status = 0

    async def send(self) -> None:
        headers = {"Upload-Id": self.upload_id, "Content-Length": str(SIZE)}
        async with client_of(self.process) as client:
            answer = await client.http.put("/files/f", content=self._body(), headers=headers)
            self.status = answer.status_code

    async def _body(self) -> AsyncIterator[bytes]:
        yield bytes(HALF)
        await self.may_finish.wait()
        yield bytes(SIZE - HALF)


async def wait_for(
    client: ProgressClient, upload_id: str, state: UploadState, attempt: int = 1
) -> UploadProgress:
    """Poll until the upload is in *state*, in that attempt."""
    found: UploadProgress | None = None
    while found is None or (found.state, found.attempt) != (state, attempt):
        await anyio.sleep(0.05)
        found = await client.poll(upload_id)
    return found


@pytest.mark.parametrize("ends_at_once", [False, True])
async def test_worker_that_stood_still_tells_one_story(
    workers: list[ServerProcess], ends_at_once: bool
) -> None:
    """The upload goes on as its next attempt; its end is the same in store, streams and polls."""
    still, other = workers
    upload, streamed = SlowUpload(still), list[UploadProgress]()
    with deadline(60):
        async with client_of(other) as there, client_of(still) as here:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload.send)
                await there.wait_for(upload.upload_id)

                async def stream() -> None:
                    streamed.extend([each async for each in there.stream(upload.upload_id)])

                tasks.start_soon(stream)
                still.pause()
                if ends_at_once:
                    upload.may_finish.set()
                lost = await wait_for(there, upload.upload_id, S.FAILED)
                still.resume()
                if not ends_at_once:
                    await wait_for(there, upload.upload_id, S.RECEIVING, attempt=2)
                    upload.may_finish.set()
                end = await wait_for(there, upload.upload_id, S.COMPLETED, attempt=2)
            assert await here.poll(upload.upload_id) == end

    assert upload.status == 200
    assert lost.error is not None
    assert lost.error.code is ErrorCode.WORKER_LOST
    assert streamed[-1] == end
    assert end.bytes_transferred == SIZE
    sequences = [each.sequence for each in streamed]
    assert sequences == sorted(set(sequences))
    attempts = [each.attempt for each in streamed if is_final(each.state)]
    assert attempts == [1, 2]


async def test_worker_without_lifespan_is_not_taken_for_dead(
    workers_without_lifespan: list[ServerProcess],
) -> None:
    """Its uploads last longer than a lease, and others end beside them."""
    one, other = workers_without_lifespan
    upload, short = SlowUpload(one), SlowUpload(other)
    short.may_finish.set()
    with deadline(60):
        async with client_of(other) as there, anyio.create_task_group() as tasks:
            tasks.start_soon(upload.send)
            await there.wait_for(upload.upload_id)
            for _ in range(3):
                await anyio.sleep(LEASE_SECONDS)
                await short.send()
                found = await there.poll(upload.upload_id)
                assert found is not None
                assert found.state is S.RECEIVING
            upload.may_finish.set()
            end = await wait_for(there, upload.upload_id, S.COMPLETED)

    assert (end.attempt, end.bytes_transferred, upload.status) == (1, SIZE, 200)
