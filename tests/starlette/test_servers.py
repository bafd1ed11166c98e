"""The routes on real servers, with a real HTTP client."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest
from httpx2.websockets import WebSocketDisconnect, WebSocketUpgradeError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from tests._support.asgi_client import as_user, build_app, wait_until
from tests._support.asgi_servers import SERVERS, RunningServer, run_app, run_server
from upload_progress import ProgressTracker

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream"}
SECONDS = 20.0


async def pass_through(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Pass the request through, as most middleware written for Starlette does."""
    return await call_next(request)


@pytest.fixture(scope="module", params=SERVERS, ids="-".join)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[RunningServer, Starlette]]:
    around = [Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=pass_through)]
    app = build_app(middleware=around)
    with run_server(app, *request.param) as running:
        yield running, app


@pytest.fixture
def server(served: tuple[RunningServer, Starlette]) -> RunningServer:
    return served[0]


@pytest.fixture
def app(served: tuple[RunningServer, Starlette]) -> Starlette:
    return served[1]


def tracker_of(app: Starlette) -> ProgressTracker:
    tracker: ProgressTracker = app.state.tracker
    return tracker


@pytest.fixture
async def http(server: RunningServer) -> AsyncIterator[httpx2.AsyncClient]:
    headers = as_user("alice")
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=SECONDS) as client:
        yield client


class Upload:
    """An upload whose chunks are sent on command."""

    def __init__(self, http: httpx2.AsyncClient, upload_id: str, chunks: int) -> None:
        self._http, self._upload_id, self._chunks = http, upload_id, chunks
        self._gates = [anyio.Event() for _ in range(chunks)]
        self.status: int | None = None

    def release(self) -> None:
        """Send the next chunk."""
        next(gate for gate in self._gates if not gate.is_set()).set()

    def release_all(self) -> None:
        """Send all other chunks."""
        for gate in self._gates:
            gate.set()

    async def _body(self) -> AsyncIterator[bytes]:
        for gate in self._gates:
            await gate.wait()
            yield b"x" * 1000

    async def run(self) -> None:
        """Send the request; it ends after the last chunk."""
        headers = {"upload-id": self._upload_id, "content-length": str(1000 * self._chunks)}
        answer = await self._http.put("/files/x", content=self._body(), headers=headers)
        self.status = answer.status_code


async def announce(http: httpx2.AsyncClient, size: int) -> dict[str, Any]:
    answer = await http.post("/uploads", json={"total_bytes": size})
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


async def test_stream_shows_an_upload_from_start_to_end(
    http: httpx2.AsyncClient, app: Starlette
) -> None:
    """GZip and BaseHTTPMiddleware do not delay an event."""
    made = await announce(http, 4000)
    upload = Upload(http, made["upload_id"], 4)
    seen: list[dict[str, Any]] = []
    with anyio.fail_after(SECONDS):
        async with (
            anyio.create_task_group() as tasks,
            http.sse(made["links"]["events"], headers=STREAM) as events,
        ):
            assert "content-encoding" not in events.response.headers
            tasks.start_soon(upload.run)
            async for event in events:
                snapshot = json.loads(event.data) if event.data else {}
                if not snapshot:
                    continue
                assert event.id == str(snapshot["sequence"])
                seen.append(snapshot)
                if snapshot["state"] in {"pending", "receiving"} and len(seen) <= 4:
                    upload.release()

    counts = [snapshot["bytes_transferred"] for snapshot in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 4
    assert seen[-1]["state"] == "completed"
    assert upload.status == 200
    await wait_until(lambda: tracker_of(app).statistics().subscriptions == 0)


async def test_watched_upload_is_reported_several_times_a_second(
    http: httpx2.AsyncClient,
) -> None:
    """Each chunk is sent when the report of the one before has come.

    Not more often; that it is looked at within a second, `test_timers.py` shows without a clock.
    """
    made = await announce(http, 100_000)
    upload = Upload(http, made["upload_id"], 100)
    times: list[float] = []
    with anyio.fail_after(SECONDS):
        async with (
            anyio.create_task_group() as tasks,
            http.sse(made["links"]["events"], headers=STREAM) as events,
        ):
            tasks.start_soon(upload.run)
            async for event in events:
                if not event.data:
                    continue
                times.append(anyio.current_time())
                if len(times) < 9:
                    upload.release()
                elif len(times) == 9:
                    upload.release_all()

    seconds = sorted(after - before for before, after in pairwise(times[1:9]))
    assert seconds[len(seconds) // 2] > 0.2


async def test_reconnect_after_the_end_gets_204(
    http: httpx2.AsyncClient,
) -> None:
    made = await announce(http, 1)
    await http.delete(made["links"]["cancel"])
    async with http.sse(made["links"]["events"], headers=STREAM) as events:
        last = [event.id async for event in events][-1]
    again = await http.get(made["links"]["events"], headers={**STREAM, "last-event-id": last})

    assert again.status_code == 204


async def test_socket_shows_an_upload_from_start_to_end(
    http: httpx2.AsyncClient, app: Starlette
) -> None:
    made = await announce(http, 3000)
    upload = Upload(http, made["upload_id"], 3)
    seen: list[dict[str, Any]] = []
    with anyio.fail_after(SECONDS):
        async with (
            anyio.create_task_group() as tasks,
            http.websocket("/uploads/progress") as socket,
        ):
            welcome = await socket.receive_json()
            assert welcome["type"] == "welcome"
            await socket.send_json({"type": "subscribe", "upload_id": made["upload_id"]})
            tasks.start_soon(upload.run)
            while not seen or seen[-1]["state"] != "completed":
                message = await socket.receive_json()
                if message["type"] == "progress":
                    seen.append(message["upload"])
                    if len(seen) <= 3:
                        upload.release()

    sequences = [snapshot["sequence"] for snapshot in seen]
    assert sequences == sorted(set(sequences))
    assert seen[0]["state"] == "pending"
    assert upload.status == 200
    await wait_until(lambda: tracker_of(app).statistics().subscriptions == 0)


async def receive_until_close(
    http: httpx2.AsyncClient, path: str, headers: dict[str, str] | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Open a socket; return its messages, and its close code or the status of the refusal."""
    received = []
    try:
        async with http.websocket(path, headers=headers) as socket:
            while True:
                try:
                    received.append(await socket.receive_json())
                except WebSocketDisconnect as closed:
                    return received, int(closed.code)
    except WebSocketUpgradeError as refused:
        return received, refused.response.status_code


async def test_socket_for_one_upload_is_closed_with_1000(http: httpx2.AsyncClient) -> None:
    made = await announce(http, 1)
    await http.delete(made["links"]["cancel"])
    with anyio.fail_after(SECONDS):
        received, code = await receive_until_close(http, made["links"]["websocket"])

    assert code == 1000
    assert [message["type"] for message in received] == ["welcome", "subscribed", "progress"]
    assert received[-1]["upload"]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/uploads/progress", {"authorization": "Basic x"}, 401),
        ("/uploads/nothing/progress", {}, 404),
        ("/uploads/progress", {"origin": "https://evil.example"}, 403),
    ],
)
async def test_refused_handshake_has_a_status_or_close_code(
    http: httpx2.AsyncClient, path: str, headers: dict[str, str], status: int
) -> None:
    """No message precedes the status or close code."""
    with anyio.fail_after(SECONDS):
        received, code = await receive_until_close(http, path, headers)

    assert received == []
    assert code in {status, 4000 + status}


async def test_long_poll_returns_when_the_upload_is_cancelled(
    http: httpx2.AsyncClient, app: Starlette
) -> None:
    made = await announce(http, 1)
    path = made["links"]["progress"]
    known = (await http.get(path)).headers["etag"]
    answers = []

    async def poll() -> None:
        headers = {"if-none-match": known, "prefer": "wait=15"}
        answers.append(await http.get(path, headers=headers))

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            await wait_until(lambda: tracker_of(app).statistics().subscriptions)
            await http.delete(made["links"]["cancel"])

    assert answers[0].json()["state"] == "cancelled"


async def test_vanished_clients_leave_no_subscription(
    server: RunningServer, http: httpx2.AsyncClient, app: Starlette
) -> None:
    """The connections of a stream and a long poll are closed without a FIN of HTTP."""
    made = await announce(http, 1)
    known = (await http.get(made["links"]["progress"])).headers["etag"]
    host, port = server.url.removeprefix("http://").split(":")
    sockets = []
    for path, extra in [
        ("/uploads/progress", "Accept: text/event-stream"),
        (made["links"]["progress"], f"If-None-Match: {known}\r\nPrefer: wait=60"),
    ]:
        connection = socket.create_connection((host, int(port)))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: "
        token = as_user("alice")["authorization"]
        connection.sendall(f"{head}{token}\r\n{extra}\r\n\r\n".encode())
        sockets.append(connection)
    await wait_until(lambda: tracker_of(app).statistics().subscriptions == 2)
    for connection in sockets:
        connection.close()
    await wait_until(lambda: tracker_of(app).statistics().subscriptions == 0)


@pytest.fixture(params=SERVERS, ids="-".join)
def own_server(request: pytest.FixtureRequest) -> Iterator[tuple[RunningServer, Starlette]]:
    """A server for one test, which may stop it."""
    app = build_app()
    with run_server(app, *request.param) as running:
        yield running, app


async def test_drained_server_stops_with_open_connections(
    own_server: tuple[RunningServer, Starlette],
) -> None:
    """All streams and sockets end, and the server stops in time."""
    server, app = own_server
    ended: list[list[Any]] = []

    async def add_upload(url: str) -> None:
        async with (
            httpx2.AsyncClient(base_url=url, headers=as_user("alice")) as client,
            client.sse("/uploads/progress") as events,
        ):
            # The retry interval is random.
            ended.append([*[event.retry async for event in events], "the end"])

    async def listen(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, headers=as_user("alice")) as client:
            received, code = await receive_until_close(client, "/uploads/progress")
            ended.append([*received, code])

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(add_upload, server.url)
                tasks.start_soon(listen, server.url)
            await wait_until(lambda: tracker_of(app).statistics().subscriptions == 10)
            await anyio.to_thread.run_sync(server.call, tracker_of(app).drain)
        await anyio.to_thread.run_sync(server.stop)

    assert len(ended) == 10
    last = [each[-1] for each in ended]
    assert (last.count("the end"), last.count(1012)) == (5, 5)


@pytest.fixture
def url_with_broken_hook() -> Iterator[str]:
    """A server whose ``authenticate`` raises an error that contains the cookie."""
    app = build_app(authenticate=lambda connection: broken(connection.header("cookie") or ""))
    with run_app(app) as url:
        yield url


async def test_secrets_are_not_logged(
    url_with_broken_hook: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Secrets in headers, cookies, subprotocols and bodies do not reach a log."""
    caplog.set_level(logging.DEBUG)
    canary = "canary-4711"
    headers = {
        "authorization": f"Bearer {canary}",
        "cookie": f"session={canary}",
        "sec-websocket-protocol": canary,
    }
    async with httpx2.AsyncClient(base_url=url_with_broken_hook, headers=headers) as client:
        for path in ("/uploads/progress", "/uploads/x/progress", "/uploads/tickets"):
            for method, extra in (("POST", {"origin": url_with_broken_hook}), ("GET", STREAM)):
                content = canary.encode() if method == "POST" else None
                answer = await client.request(method, path, content=content, headers=extra)
                assert canary not in answer.text
        assert await receive_until_close(client, "/uploads/progress") == ([], 503)

    out, err = capfd.readouterr()
    ours = [record.getMessage() for record in caplog.records if record.name == "upload_progress"]
    assert len(ours) == 1
    assert canary not in "".join([out, err, *ours])


def broken(text: str) -> None:
    raise ValueError(f"no session {text}")
