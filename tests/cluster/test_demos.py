"""Several demo processes that share a store: what one receives can be followed at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests._support.cluster_clients import (
    curl_status,
    curl_upload,
    progress_client,
    socket_snapshots,
)
from tests._support.demo_process import DemoProcess, running_demo
from tests.conftest import RequireProgram
from upload_progress import UploadState
from upload_progress._model.codec import decode_progress

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The servers are tested; the client needs one event loop only."""
    return "asyncio"


SIZE = 3_000_000


@pytest.fixture(scope="module", params=["redis", "migrated_postgres", "kafka"])
def store_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="module")
def demos(store_url: str) -> Iterator[list[DemoProcess]]:
    """Run two demos that receive slowly."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_demo("--slow", "1M", "--store", store_url))
            for _ in range(2)
        ]


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large_file.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def curl(require_program: RequireProgram) -> str:
    return require_program("curl", install="get it with: apt-get install curl")


async def test_upload_is_polled_and_streamed_at_the_other_worker(
    demos: list[DemoProcess], large_file: Path, curl: str
) -> None:
    one, other = demos
    with curl_upload(curl, one.url, large_file, "followed") as upload:
        async with (
            progress_client(other.url) as client,
            progress_client(other.url, "bob") as other_user,
        ):
            await client.wait_for("followed")
            assert await other_user.poll("followed") is None
            seen = [snapshot async for snapshot in client.stream("followed")]
            last = await client.poll("followed")
        assert curl_status(upload) == "201"

    assert seen[-1].state is UploadState.COMPLETED
    assert last == seen[-1]
    assert last.bytes_transferred == SIZE
    sizes = [snapshot.bytes_transferred for snapshot in seen]
    assert sizes == sorted(sizes)
    assert len({size // (SIZE // 10) for size in sizes}) >= 5
    assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})


async def test_upload_is_followed_on_sockets_at_the_other_worker(
    demos: list[DemoProcess], large_file: Path, curl: str
) -> None:
    """On a socket for that upload, and on one for many that subscribes to it."""
    one, other = demos
    with curl_upload(curl, one.url, large_file, "subscribed") as upload:
        async with progress_client(other.url) as client:
            await client.wait_for("subscribed")
            async with client.http.websocket("/uploads/progress") as socket:
                await socket.send_text('{"type": "subscribe", "upload_id": "subscribed"}')
                seen = [snapshot async for snapshot in client.socket("subscribed")]
                received = [
                    each async for each in socket_snapshots(socket, until=UploadState.COMPLETED)
                ]
        assert curl_status(upload) == "201"

    for followed in (seen, received):
        sizes = [snapshot.bytes_transferred for snapshot in followed]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) >= 5
        assert (followed[-1].state, sizes[-1]) == (UploadState.COMPLETED, SIZE)


async def test_socket_is_subscribed_through_the_other_worker(
    demos: list[DemoProcess], large_file: Path, curl: str
) -> None:
    one, other = demos
    async with progress_client(one.url) as here, progress_client(other.url) as there:
        with curl_upload(curl, one.url, large_file, "remote"):
            async with here.http.websocket("/uploads/progress") as socket:
                client_id = json.loads(await socket.receive_text())["client_id"]
                await there.wait_for("remote")
                target = {"client_id": client_id}
                answer = await there.http.post("/uploads/remote/subscribe", json=target)
                assert answer.status_code == 204
                assert json.loads(await socket.receive_text())["type"] == "subscribed"
                message = json.loads(await socket.receive_text())
                assert message["upload"]["upload_id"] == "remote"
                answer = await there.http.delete(f"/uploads/{client_id}/unsubscribe")
                assert answer.status_code == 204
                is_off = False
                while not is_off:
                    message = json.loads(await socket.receive_text())
                    is_off = message["type"] == "unsubscribed"


async def test_upload_is_cancelled_through_the_other_worker(
    demos: list[DemoProcess], large_file: Path, curl: str
) -> None:
    one, other = demos
    async with progress_client(one.url) as here, progress_client(other.url) as there:
        with curl_upload(curl, one.url, large_file, "cancelled") as upload:
            await there.wait_for("cancelled")
            answer = await there.http.delete("/uploads/cancelled")
            assert answer.status_code == 202
            assert decode_progress(answer.content).state is UploadState.CANCELLED
            assert curl_status(upload) in {"409", "000"}
        for client in (here, there):
            last = await client.poll("cancelled")
            assert last is not None
            assert last.state is UploadState.CANCELLED
            assert 0 < last.bytes_transferred < SIZE


async def test_upload_of_a_killed_worker_fails(
    store_url: str, demos: list[DemoProcess], large_file: Path, curl: str
) -> None:
    """P04: ``kill -9``; the lease runs out, and another worker ends the upload.

    `test_upload_of_a_lost_worker_fails_within_20_seconds` has the time limit.
    """
    _, other = demos
    with (
        running_demo("--slow", "100k", "--store", store_url) as killed_demo,
        curl_upload(curl, killed_demo.url, large_file, "lost"),
    ):
        async with progress_client(other.url) as client:
            await client.wait_for("lost")
            killed_demo.process.kill()
            seen = [snapshot async for snapshot in client.stream("lost")]

    error = seen[-1].error
    assert error is not None
    assert (seen[-1].state, error.code) == (UploadState.FAILED, "worker_lost")
    assert len([each for each in seen if each.state is UploadState.FAILED]) == 1
