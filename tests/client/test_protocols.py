"""Forms, streams and tus: with a real server, and with one that fails."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from attrs import define, field
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tests._support.asgi_servers import run_app
from tests._support.protocol_apps import ResponseHead, TusApp
from tests._support.recording_server import (
    URL,
    RecordingServer,
    Reply,
    client_for,
    json_reply,
    make_snapshot,
    problem_reply,
    status_reply,
)
from upload_progress import UploadState
from upload_progress._model.models import ErrorCode, UploadError
from upload_progress.client import AsyncProgressClient, Resumption, Retry
from upload_progress.exceptions import (
    InvalidValue,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadRejected,
)
from upload_progress.starlette import upload_progress_app

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
SIZE = 300_000
BODY = bytes(range(10))
LOST = httpx2.WriteError("lost")
ACCEPTED = status_reply(201, b"accepted")
LOST_BY_SERVER = make_snapshot(
    UploadState.FAILED, error=UploadError(ErrorCode.CLIENT_DISCONNECTED, "It has left.", None)
)


@define(eq=False)
class LockedTusApp(TusApp):
    """The first request that appends stores the first message, and is answered with 423."""

    offsets: list[str] = field(factory=list)

    async def respond(self, scope: Any, receive: Any) -> ResponseHead:  # noqa: ANN401  # as ASGI has it
        if scope["method"] != "PATCH":
            status, headers = await super().respond(scope, receive)
            origin = "http://example.org"
            return status, {name: text.removeprefix(origin) for name, text in headers.items()}
        self.offsets.append(dict(scope["headers"])[b"upload-offset"].decode())
        if len(self.offsets) == 1:
            message = await receive()
            self.files[scope["path"]] += message["body"]
            return 423, {}
        return await super().respond(scope, receive)


async def receive_form(request: Request) -> Response:
    async with request.form() as form:
        file = form["file"]
        assert isinstance(file, UploadFile)
        content = await file.read()
    found = {"name": file.filename, "type": file.content_type, "size": len(content)}
    return JSONResponse(found | {"header": request.headers.get("x-region")})


async def receive_stream(request: Request) -> Response:
    size = sum([len(chunk) async for chunk in request.stream()])
    return JSONResponse({"size": size, "encoding": request.headers.get("transfer-encoding")})


@pytest.fixture(scope="module")
def tus() -> LockedTusApp:
    return LockedTusApp()


@pytest.fixture(scope="module")
def url(tus: LockedTusApp) -> Iterator[str]:
    app = Starlette(
        routes=[
            Route("/form", receive_form, methods=["POST"]),
            Route("/streams/{name}", receive_stream, methods=["PUT"]),
            Mount("/files", tus),
        ]
    )
    with run_app(upload_progress_app(app, authenticate=lambda _connection: "ann")) as url:
        yield url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'a "b".txt'
    path.write_bytes(bytes(SIZE))
    return path


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_file_is_sent_as_a_form(url: str, path: Path) -> None:
    async with AsyncProgressClient(url, headers={"x-region": "eu"}) as client:
        with anyio.fail_after(DEADLINE_SECONDS):
            result = await client.put(path, f"{url}/form", form="file")

    found = httpx2.Response(200, content=result.content).json()
    name = "a %22b%22.txt"
    assert found == {"name": name, "type": "text/plain", "size": SIZE, "header": "eu"}
    assert result.progress is not None
    assert result.progress.bytes_transferred > SIZE


@pytest.mark.parametrize("raw", [True, False])
async def test_stream_is_sent_without_a_size(url: str, path: Path, *, raw: bool) -> None:
    stream = io.FileIO(path) if raw else io.BytesIO(bytes(SIZE))
    async with AsyncProgressClient(url) as client:
        with anyio.fail_after(DEADLINE_SECONDS), stream:
            result = await client.put(stream, f"{url}/streams/x")

    assert httpx2.Response(200, content=result.content).json() == {
        "size": SIZE,
        "encoding": "chunked",
    }


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_stream_is_sent_as_a_form(url: str) -> None:
    async with AsyncProgressClient(url) as client:
        with anyio.fail_after(DEADLINE_SECONDS):
            result = await client.put(io.BytesIO(bytes(SIZE)), f"{url}/form", form="file")

    found = httpx2.Response(200, content=result.content).json()
    assert (found["name"], found["size"]) == ("stream", SIZE)


async def test_pipe_is_sent_as_it_is_written(url: str) -> None:
    reading, writing = os.pipe()
    sent = anyio.Event()
    results = []

    async def send(client: AsyncProgressClient) -> None:
        with io.FileIO(reading) as stream:
            found = await client.put(
                stream, f"{url}/streams/x", on_sent=lambda _size: sent.set(), form=None
            )
        results.append(found.content)

    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(send, client)
            os.write(writing, b"abc")
            await sent.wait()
            os.write(writing, b"de")
            os.close(writing)

    assert b'"size":5' in results[0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_tus_continues_where_the_server_stopped(
    url: str, tus: LockedTusApp, path: Path
) -> None:
    retries, resumptions = list[Retry](), list[Resumption]()
    async with AsyncProgressClient(url, first_delay_seconds=0.001) as client:
        with anyio.fail_after(DEADLINE_SECONDS):
            result = await client.put(
                path,
                f"{url}/files/",
                tus=True,
                chunk_bytes=200_000,
                on_retry=retries.append,
                on_resume=resumptions.append,
            )

    [resumption], kept = resumptions, int(tus.offsets[1])
    assert [type(each.error) for each in retries] == [ServerBusy]
    assert 0 < kept == resumption.offset_bytes < SIZE
    assert tus.offsets[0] == "0"
    assert [bytes(file) for file in tus.files.values()] == [bytes(SIZE)]
    assert result.progress is not None
    assert (result.progress.state, result.progress.bytes_transferred) == ("completed", SIZE)


@define
class TusServer:
    """A simulated server of tus; its requests fail as the test says.

    Attributes:
        creations: The replies to ``POST``, one after the other.
        appends: The replies to ``PATCH``.
        offsets: The replies to ``HEAD``.
    """

    creations: list[Reply]
    appends: list[Reply]
    offsets: list[Reply] = field(factory=list)
    bodies: list[bytes] = field(factory=list)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        replies = {"POST": self.creations, "PATCH": self.appends, "HEAD": self.offsets}
        if request.method not in replies:
            return _call(problem_reply(404, "not_found"), request)
        if request.method == "PATCH":
            self.bodies.append(await request.aread())
        return _call(replies[request.method].pop(0), request)


def _call(reply: Reply, request: httpx2.Request) -> httpx2.Response:
    if isinstance(reply, Exception):
        raise reply
    return reply(request)


CREATED = status_reply(201, location="/files/1")
NOTHING_KEPT = status_reply(200, upload_offset="0")
APPENDED = status_reply(204, upload_offset="10")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    path.write_bytes(BODY)
    return path


async def put_by_tus(server: TusServer, path: Path) -> int | None:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    client = AsyncProgressClient(URL, http=http, first_delay_seconds=0.001, retries=3)
    with anyio.fail_after(DEADLINE_SECONDS):
        return (await client.put(path, f"{URL}/files/", tus=True)).status


@pytest.mark.parametrize(
    ("creations", "appends", "offsets", "bodies"),
    [
        ([CREATED], [LOST, APPENDED], [status_reply(200, upload_offset="4")], [BODY, BODY[4:]]),
        ([CREATED, CREATED], [LOST, APPENDED], [status_reply(404)], [BODY, BODY]),
        # A proxy that answers while the server starts does not make the client begin again.
        (
            [CREATED],
            [LOST, APPENDED],
            [status_reply(502), status_reply(200, upload_offset="4")],
            [BODY, BODY[4:]],
        ),
        ([LOST, CREATED], [APPENDED], [], [BODY]),
        ([CREATED], [LOST], [status_reply(200, upload_offset="10")], [BODY]),
        (
            [CREATED],
            [LOST, status_reply(204)],
            [LOST, NOTHING_KEPT],
            2 * [BODY],
        ),
    ],
    ids=["continued", "dropped", "proxy before it", "not created", "response lost", "lost twice"],
)
async def test_lost_connection_of_tus(
    small: Path,
    creations: list[Reply],
    appends: list[Reply],
    offsets: list[Reply],
    bodies: list[bytes],
) -> None:
    server = TusServer([*creations], [*appends], [*offsets])

    status = await put_by_tus(server, small)

    assert server.bodies == bodies
    assert (status is None) is (len(appends) == 1 and appends[0] is LOST)


@pytest.mark.parametrize(
    ("creation", "error"),
    [
        (status_reply(413, b"too large"), UploadRejected),
        (status_reply(200), UnexpectedResponse),
        (status_reply(201, location="http://other.test/files/1"), UnexpectedResponse),
    ],
)
async def test_refused_creation_of_tus_is_an_error(
    small: Path, creation: Reply, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await put_by_tus(TusServer([creation], []), small)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "file", "tus": True}, "form: is sent in one request"),
        ({"form": "file", "chunk_bytes": 5}, "form: is sent in one request"),
        ({"stream": True, "tus": True}, "path: is a stream"),
        ({"tus_url": f"{URL}/files/1"}, "tus_url: is an address that tus has created"),
        ({"tus_url": "http://other.test/1", "tus": True}, "tus_url: is an address that tus has"),
        ({"stream": True, "chunk_bytes": 5}, "path: is a stream"),
    ],
)
async def test_options_that_exclude_each_other(
    small: Path, options: dict[str, Any], text: str
) -> None:
    source = io.BytesIO() if "stream" in options else small
    given = {name: value for name, value in options.items() if name != "stream"}
    async with client_for(RecordingServer()) as client:
        with pytest.raises(InvalidValue, match=text):
            await client.put(source, f"{URL}/files/", **given)


class Unreadable(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


async def test_stream_that_cannot_be_read_is_an_error() -> None:
    async with client_for(RecordingServer([ACCEPTED])) as client:
        with pytest.raises(InvalidValue, match="stream: Input/output error"):
            await client.put(Unreadable(), f"{URL}/files/x")


@pytest.mark.parametrize(
    ("put_replies", "api_reply", "requests"),
    [
        ([LOST, ACCEPTED], problem_reply(404, "not_found"), 1),
        ([LOST], json_reply(make_snapshot(UploadState.COMPLETED)), 1),
    ],
    ids=["not received", "received"],
)
async def test_stream_is_not_sent_again(
    put_replies: list[Reply], api_reply: Reply, requests: int
) -> None:
    server = RecordingServer(put_replies, [api_reply])
    is_received = len(put_replies) == 1
    async with client_for(server) as client:
        with anyio.fail_after(DEADLINE_SECONDS):
            try:
                result = await client.put(io.BytesIO(BODY), f"{URL}/files/x")
            except ServerUnreachable:
                assert not is_received
            else:
                assert is_received
                assert result.status is None

    assert server.bodies == requests * [BODY]


@define
class FormServer:
    """A simulated server that receives forms."""

    replies: list[Reply]
    snapshot: Reply
    bodies: list[bytes] = field(factory=list)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return _call(self.snapshot, request)
        self.bodies.append(await request.aread())
        return _call(self.replies.pop(0), request)


@pytest.mark.parametrize(
    ("failure", "snapshot", "error", "requests"),
    [
        (LOST, problem_reply(404, "not_found"), ServerUnreachable, 1),
        (LOST, json_reply(LOST_BY_SERVER), None, 2),
        (status_reply(503, retry_after="0"), problem_reply(404, "not_found"), None, 2),
    ],
    ids=["unknown", "known to have failed", "busy"],
)
async def test_form_is_sent_again_only_if_it_was_not_accepted(
    small: Path,
    failure: Reply,
    snapshot: Reply,
    error: type[Exception] | None,
    requests: int,
) -> None:
    server = FormServer([failure, ACCEPTED], snapshot)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    client = AsyncProgressClient(URL, http=http, first_delay_seconds=0.001)
    raised: type[Exception] | None = None
    with anyio.fail_after(DEADLINE_SECONDS):
        try:
            await client.put(small, f"{URL}/form", form="file")
        except ServerUnreachable as unreachable:
            raised = type(unreachable)

    assert raised is error
    assert len(server.bodies) == requests
    assert all(BODY in body for body in server.bodies)
