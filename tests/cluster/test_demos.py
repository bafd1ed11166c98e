"""Several processes that share nothing but a store: what one receives is known to all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from tests._support.cluster_clients import ended, looking, sending, told_on
from tests._support.demo_process import DemoProcess, running_demo
from tests.conftest import RequireProgram
from upload_progress import UploadState
from upload_progress._model.codec import decode_progress

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is tested are servers: who asks them does not matter."""
    return "asyncio"


SIZE = 3_000_000


@pytest.fixture(scope="module", params=["redis", "migrated_postgres", "kafka"])
def store_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="module")
def demos(store_url: str) -> Iterator[list[DemoProcess]]:
    """Run two demos, the first of which takes its time."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_demo("--slow", "1M", "--store", store_url))
            for _ in range(2)
        ]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def curl(require_program: RequireProgram) -> str:
    return require_program("curl", install="get it with: apt-get install curl")


async def test_what_one_receives_is_polled_and_streamed_at_the_other(
    demos: list[DemoProcess], big: Path, curl: str
) -> None:
    one, other = demos
    with sending(curl, one.url, big, "followed") as upload:
        async with looking(other.url) as looker, looking(other.url, "bob") as stranger:
            await looker.found("followed")
            assert await stranger.poll("followed") is None
            seen = [snapshot async for snapshot in looker.stream("followed")]
            last = await looker.poll("followed")
        assert ended(upload) == "201"

    assert seen[-1].state is UploadState.COMPLETED
    assert last == seen[-1]
    assert last.bytes_transferred == SIZE
    sizes = [snapshot.bytes_transferred for snapshot in seen]
    assert sizes == sorted(sizes)
    assert len({size // (SIZE // 10) for size in sizes}) >= 5
    assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})


async def test_what_one_receives_is_followed_on_sockets_at_the_other(
    demos: list[DemoProcess], big: Path, curl: str
) -> None:
    """By a socket for that upload, and by one for many that asks for it in words."""
    one, other = demos
    with sending(curl, one.url, big, "spoken-of") as upload:
        async with looking(other.url) as looker:
            await looker.found("spoken-of")
            async with looker.http.websocket("/uploads/progress") as socket:
                await socket.send_text('{"type": "subscribe", "upload_id": "spoken-of"}')
                seen = [snapshot async for snapshot in looker.socket("spoken-of")]
                told = [each async for each in told_on(socket, until=UploadState.COMPLETED)]
        assert ended(upload) == "201"

    for followed in (seen, told):
        sizes = [snapshot.bytes_transferred for snapshot in followed]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) >= 5
        assert (followed[-1].state, sizes[-1]) == (UploadState.COMPLETED, SIZE)


async def test_a_socket_at_one_is_spoken_on_from_the_other(
    demos: list[DemoProcess], big: Path, curl: str
) -> None:
    one, other = demos
    async with looking(one.url) as here, looking(other.url) as there:
        with sending(curl, one.url, big, "spoken"):
            async with here.http.websocket("/uploads/progress") as socket:
                client_id = json.loads(await socket.receive_text())["client_id"]
                await there.found("spoken")
                target = {"client_id": client_id}
                answer = await there.http.post("/uploads/spoken/subscribe", json=target)
                assert answer.status_code == 204
                assert json.loads(await socket.receive_text())["type"] == "subscribed"
                told = json.loads(await socket.receive_text())
                assert told["upload"]["upload_id"] == "spoken"
                answer = await there.http.delete(f"/uploads/{client_id}/unsubscribe")
                assert answer.status_code == 204
                is_off = False
                while not is_off:
                    told = json.loads(await socket.receive_text())
                    is_off = told["type"] == "unsubscribed"


async def test_what_one_receives_is_cancelled_through_the_other(
    demos: list[DemoProcess], big: Path, curl: str
) -> None:
    one, other = demos
    async with looking(one.url) as here, looking(other.url) as there:
        with sending(curl, one.url, big, "cancelled") as upload:
            await there.found("cancelled")
            answer = await there.http.delete("/uploads/cancelled")
            assert answer.status_code == 202
            assert decode_progress(answer.content).state is UploadState.CANCELLED
            assert ended(upload) in {"409", "000"}
        for looker in (here, there):
            last = await looker.poll("cancelled")
            assert last is not None
            assert last.state is UploadState.CANCELLED
            assert 0 < last.bytes_transferred < SIZE


async def test_what_a_killed_worker_received_is_lost_in_time(
    store_url: str, demos: list[DemoProcess], big: Path, curl: str
) -> None:
    """P04: ``kill -9``; the lease runs out, and some other worker says so."""
    _, other = demos
    with (
        running_demo("--slow", "100k", "--store", store_url) as doomed,
        sending(curl, doomed.url, big, "lost"),
    ):
        async with looking(other.url) as looker:
            await looker.found("lost")
            doomed.process.kill()
            killed_at = anyio.current_time()
            seen = [snapshot async for snapshot in looker.stream("lost")]
            lasted = anyio.current_time() - killed_at

    error = seen[-1].error
    assert error is not None
    assert (seen[-1].state, error.code) == (UploadState.FAILED, "worker_lost")
    assert lasted <= 20
    assert len([each for each in seen if each.state is UploadState.FAILED]) == 1
