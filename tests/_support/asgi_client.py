"""An application with the progress routes, and an ASGI client that talks to it without a server.

``AsgiConnection`` plays the part of the server for one request or WebSocket. The messages of the
application are received in order. At the end of the block the client disconnects, and the
application must end, too, so that no test leaves a task behind.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import basic, progress_mount

__all__ = [
    "App",
    "AsgiConnection",
    "Message",
    "RecordingSend",
    "as_user",
    "build_app",
    "client",
    "http_scope",
    "name_is_password",
    "never",
    "open_connection",
    "open_socket",
    "wait_until",
    "websocket_scope",
]

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]
TIMEOUT_SECONDS = 10.0

never = cast("Callable[[], Awaitable[Message]]", anyio.sleep_forever)
"""A ``receive`` that never returns."""

name_is_password = basic(lambda name, password: name == password)


def as_user(name: str) -> dict[str, str]:
    """Return the credentials of a user, whose password is the name."""
    token = base64.b64encode(f"{name}:{name}".encode()).decode()
    return {"authorization": f"Basic {token}"}


async def receive_file(request: Request) -> Response:
    """Read the body and return its size."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"size": size})


def build_app(
    tracker: ProgressTracker | None = None,
    *,
    authenticate: Authenticate = name_is_password,
    middleware: list[Middleware] | None = None,
    allowed_origins: Iterable[str] = (),
    revalidate_seconds: float = 60.0,
    stream_life_seconds: float = 600.0,
) -> Starlette:
    """Return an application with the routes at ``/uploads`` and ``PUT /files/{name}``."""
    tracker = tracker or ProgressTracker()
    mount = progress_mount(
        tracker,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        revalidate_seconds=revalidate_seconds,
        stream_life_seconds=stream_life_seconds,
    )
    app = Starlette(
        routes=[mount, Route("/files/{name}", receive_file, methods=["PUT"])],
        lifespan=tracker.lifespan,
        middleware=[
            *(middleware or []),
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate),
        ],
    )
    app.state.tracker = tracker
    return app


def client(
    app: App,
    user: str | None = "alice",
    *,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    follow_redirects: bool = False,
) -> httpx2.AsyncClient:
    """Return an HTTP client that talks to *app* in memory."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app),
        base_url="http://server",
        headers=headers or ({} if user is None else as_user(user)),
        cookies=dict(cookies or {}),
        follow_redirects=follow_redirects,
    )


def _headers(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    given = {"host": "server", **(headers or {})}
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]


def http_scope(
    path: str, *, method: str = "GET", query: str = "", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": _headers(headers),
        "client": ("192.0.2.1", 5000),
        "server": ("server", 80),
    }


def websocket_scope(
    path: str,
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    subprotocols: list[str] | None = None,
    denial: bool = True,
) -> dict[str, Any]:
    """Return the scope of a WebSocket handshake."""
    return {
        **http_scope(path, query=query, headers=headers),
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": subprotocols or [],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }


@define
class RecordingSend:
    """A ``send`` that records the messages of the application."""

    sent: list[Message] = field(factory=list)

    async def __call__(self, message: Message) -> None:
        """Record *message*."""
        self.sent.append(message)


@define
class AsgiConnection:
    """The server's end of a request or WebSocket.

    Attributes:
        ended: Set when the application has returned.
    """

    _to_app: MemoryObjectSendStream[Message]
    _from_app: MemoryObjectReceiveStream[Message]
    ended: anyio.Event = field(factory=anyio.Event)

    async def send(self, **message: object) -> None:
        """Send an ASGI message to the application."""
        await self._to_app.send(message)

    async def send_json(self, **members: object) -> None:
        """Send a WebSocket text message of JSON to the application."""
        await self.send(type="websocket.receive", text=json.dumps(members))

    async def receive(self) -> Message:
        """Return the next message that the application sends."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            return await self._from_app.receive()

    async def receive_json(self) -> dict[str, Any]:
        """Return the next WebSocket message, decoded."""
        message = await self.receive()
        assert message["type"] == "websocket.send", message
        decoded: dict[str, Any] = json.loads(message["text"])
        return decoded

    async def receive_until(self, kind: str) -> list[dict[str, Any]]:
        """Return WebSocket messages up to the first of that type."""
        received = [await self.receive_json()]
        while received[-1]["type"] != kind:
            received.append(await self.receive_json())
        return received

    async def receive_close(self) -> int:
        """Receive messages until the WebSocket is closed; return the close code."""
        while (message := await self.receive())["type"] != "websocket.close":
            assert message["type"] in {"websocket.accept", "websocket.send"}, message
        return int(message["code"])

    async def receive_response(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a complete response."""
        start, body, more = await self.receive(), b"", True
        while more:
            message = await self.receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, body


@asynccontextmanager
async def open_connection(
    app: App, scope: dict[str, Any], *, body: bytes = b""
) -> AsyncIterator[AsgiConnection]:
    """Run *app* for one request or WebSocket for the block; it must end with the block."""
    to_app, inbox = anyio.create_memory_object_stream[Message](100)
    outbox, from_app = anyio.create_memory_object_stream[Message](0)
    is_socket = scope["type"] == "websocket"
    connection = AsgiConnection(to_app, from_app)

    async def run() -> None:
        try:
            await app(scope, inbox.receive, outbox.send)
        finally:
            connection.ended.set()

    with to_app, inbox, outbox, from_app:
        async with anyio.create_task_group() as tasks:
            if is_socket:
                to_app.send_nowait({"type": "websocket.connect"})
            else:
                to_app.send_nowait({"type": "http.request", "body": body, "more_body": False})
            tasks.start_soon(run)
            yield connection
            gone = {"type": "websocket.disconnect", "code": 1006}
            to_app.send_nowait(gone if is_socket else {"type": "http.disconnect"})
            with anyio.fail_after(TIMEOUT_SECONDS):
                await _drain(from_app, connection.ended)


async def _drain(from_app: MemoryObjectReceiveStream[Message], ended: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:

        async def discard() -> None:
            async for _message in from_app:
                pass

        tasks.start_soon(discard)
        await ended.wait()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_socket(
    app: App,
    path: str = "/uploads/progress",
    *,
    user: str = "alice",
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[AsgiConnection]:
    """Open a WebSocket, accepted by the application."""
    scope = websocket_scope(path, headers={**as_user(user), **(headers or {})})
    async with open_connection(app, scope) as connection:
        assert (await connection.receive())["type"] == "websocket.accept"
        yield connection


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, for at most 10 seconds."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  # the core has no event for it
            await anyio.sleep(0.002)
