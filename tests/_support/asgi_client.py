"""The application under test, and a telephone to it: ASGI without a server, on any loop.

A line plays the server's part for one request or socket. What the application sends is heard
in order; at the end of the block the other side hangs up, and the application must end, too:
so no test here leaves a task behind unnoticed.
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
    "Line",
    "Message",
    "Outbox",
    "as_user",
    "build_app",
    "call",
    "client",
    "http_scope",
    "listening",
    "name_is_password",
    "never",
    "until",
    "websocket_scope",
]

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]
SECONDS = 10.0

never = cast("Callable[[], Awaitable[Message]]", anyio.sleep_forever)
"""A ``receive`` of somebody who says nothing."""

name_is_password = basic(lambda name, password: name == password)


def as_user(name: str) -> dict[str, str]:
    """Return the headers of the user of that name, whose password is the name."""
    token = base64.b64encode(f"{name}:{name}".encode()).decode()
    return {"authorization": f"Basic {token}"}


async def receive_file(request: Request) -> Response:
    """Read a body, and say how much it was."""
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
class Outbox:
    """A ``send`` that keeps what the application sends."""

    sent: list[Message] = field(factory=list)

    async def __call__(self, message: Message) -> None:
        """Keep *message*."""
        self.sent.append(message)


@define
class Line:
    """One end of a conversation with the application."""

    _to_app: MemoryObjectSendStream[Message]
    _from_app: MemoryObjectReceiveStream[Message]
    ended: anyio.Event = field(factory=anyio.Event)

    async def say(self, **message: object) -> None:
        """Let the application receive a message."""
        await self._to_app.send(message)

    async def tell(self, **members: object) -> None:
        """Send a WebSocket text message of JSON."""
        await self.say(type="websocket.receive", text=json.dumps(members))

    async def hear(self) -> Message:
        """Return the next message that the application sends."""
        with anyio.fail_after(SECONDS):
            return await self._from_app.receive()

    async def hear_json(self) -> dict[str, Any]:
        """Return the next WebSocket message, decoded."""
        message = await self.hear()
        assert message["type"] == "websocket.send", message
        decoded: dict[str, Any] = json.loads(message["text"])
        return decoded

    async def hear_until(self, kind: str) -> list[dict[str, Any]]:
        """Return WebSocket messages up to the first of that type."""
        heard = [await self.hear_json()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear_json())
        return heard

    async def hear_close(self) -> int:
        """Skip to the close of the WebSocket; return its code."""
        while (message := await self.hear())["type"] != "websocket.close":
            assert message["type"] in {"websocket.accept", "websocket.send"}, message
        return int(message["code"])

    async def hear_response(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a whole response."""
        start, body, more = await self.hear(), b"", True
        while more:
            message = await self.hear()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, body


@asynccontextmanager
async def call(app: App, scope: dict[str, Any], *, body: bytes = b"") -> AsyncIterator[Line]:
    """Run *app* for one request or socket while the block runs; it must end with it."""
    to_app, inbox = anyio.create_memory_object_stream[Message](100)
    outbox, from_app = anyio.create_memory_object_stream[Message](0)
    is_socket = scope["type"] == "websocket"
    line = Line(to_app, from_app)

    async def run() -> None:
        try:
            await app(scope, inbox.receive, outbox.send)
        finally:
            line.ended.set()

    with to_app, inbox, outbox, from_app:
        async with anyio.create_task_group() as tasks:
            if is_socket:
                to_app.send_nowait({"type": "websocket.connect"})
            else:
                to_app.send_nowait({"type": "http.request", "body": body, "more_body": False})
            tasks.start_soon(run)
            yield line
            gone = {"type": "websocket.disconnect", "code": 1006}
            to_app.send_nowait(gone if is_socket else {"type": "http.disconnect"})
            with anyio.fail_after(SECONDS):
                await _drain(from_app, line.ended)


async def _drain(from_app: MemoryObjectReceiveStream[Message], ended: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:

        async def forget() -> None:
            async for _message in from_app:
                pass

        tasks.start_soon(forget)
        await ended.wait()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def listening(
    app: App,
    path: str = "/uploads/progress",
    *,
    user: str = "alice",
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Line]:
    """Open a WebSocket, with the welcome already heard."""
    scope = websocket_scope(path, headers={**as_user(user), **(headers or {})})
    async with call(app, scope) as line:
        assert (await line.hear())["type"] == "websocket.accept"
        yield line


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, or fail in the end."""
    with anyio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110  # the core has no event for it
            await anyio.sleep(0.002)
