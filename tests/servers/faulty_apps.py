"""Applications that have one fault each, for ``doctor``: each below a path of its own."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.config import Limits
from upload_progress.connection import Connection
from upload_progress.starlette import progress_mount

__all__ = ["LATE_SECONDS", "create_faulty_apps", "removes_upgrade"]

LATE_SECONDS = 3.0
"""How long the endpoint of ``late`` does something else before it reads."""

App = Callable[[Any, Any, Any], Awaitable[None]]


def alice(_connection: Connection) -> str:
    return "alice"


def nobody(_connection: Connection) -> None:
    return None


async def receive(request: Request) -> Response:
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"{size}")


async def receive_late(request: Request) -> Response:
    await anyio.sleep(LATE_SECONDS)
    return await receive(request)


async def refuse(_request: Request) -> Response:
    return PlainTextResponse("only wheels", 415)


async def require_key(request: Request) -> Response:
    return await receive(request) if "x-key" in request.headers else Response(status_code=401)


class AheadClock:
    """The clock of a machine that is a minute ahead."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        return time.time() + 60


def create_app(
    name: str,
    endpoint: Callable[[Request], Awaitable[Response]] = receive,
    *,
    tracker: ProgressTracker | None = None,
    middleware: bool = True,
    middleware_tracker: ProgressTracker | None = None,
    authenticate: Callable[[Connection], str | None] = alice,
    method: str = "PUT",
    outer: Callable[[App], App] = lambda app: app,
) -> Mount:
    """Return an application below ``/name``, with its progress routes and one endpoint."""
    tracker = tracker or ProgressTracker(mount_path=f"/{name}/uploads")
    tracked: App = Starlette(routes=[Route("/files/{name}", endpoint, methods=[method])])
    if method == "POST":
        tracked = Starlette(routes=[Route("/files/", endpoint, methods=[method])])
    if middleware:
        tracked = UploadProgressMiddleware(
            tracked, tracker=middleware_tracker or tracker, authenticate=authenticate
        )
    mounted = progress_mount(tracker, authenticate=alice)
    mounted.path_regex = Mount("/uploads", routes=[]).path_regex
    site = Starlette(routes=[mounted, Mount("/", tracked)])
    return Mount(f"/{name}", outer(site))


def through_proxy(app: App) -> App:
    """Add the header of a proxy to all responses; hold requests back that do not ask not to."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        async def send_named(message: Any) -> None:  # noqa: ANN401  # as ASGI has it
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["via"] = "1.1 Caddy"
            await send(message)

        is_http = scope["type"] == "http"
        if is_http and scope["method"] == "PUT" and "incremental" not in Headers(scope=scope):
            receive = await hold_back(receive)
        await app(scope, receive, send_named)

    return proxy


async def hold_back(receive: Any) -> Any:  # noqa: ANN401  # as ASGI has it
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    held = iter(messages)

    async def receive_held() -> Any:  # noqa: ANN401  # as ASGI has it
        message = next(held, None)
        return await receive() if message is None else message

    return receive_held


def holding_requests(app: App) -> App:
    async def proxy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        if scope["type"] == "http" and scope["method"] == "PUT":
            receive = await hold_back(receive)
        await app(scope, receive, send)

    return proxy


def limiting_size(app: App) -> App:
    """Refuse bodies of more than 64 kB, as nginx does without ``client_max_body_size``."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        if scope["type"] == "http" and int(Headers(scope=scope).get("content-length", 0)) > 65536:
            response = PlainTextResponse("too large", 413, headers={"server": "nginx"})
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return proxy


def compressing(app: App) -> App:
    """Compress what the client accepts compressed, when it is complete."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        body = bytearray()

        async def send_compressed(message: Any) -> None:  # noqa: ANN401  # as ASGI has it
            if message["type"] == "http.response.start":
                start.append(message)
                return
            body.extend(message["body"])
            if not message.get("more_body"):
                MutableHeaders(scope=start[0])["content-length"] = str(len(gzip.compress(body)))
                MutableHeaders(scope=start[0])["content-encoding"] = "gzip"
                await send(start[0])
                await send({"type": "http.response.body", "body": gzip.compress(body)})

        start = list[Any]()
        accepted = (
            Headers(scope=scope).get("accept-encoding", "") if scope["type"] == "http" else ""
        )
        await app(scope, receive, send_compressed if "gzip" in accepted else send)

    return middleware


def hiding_streams(app: App) -> App:
    """Forward neither event streams nor WebSockets."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        if scope["type"] == "websocket":
            scope = {**scope, "path": "/nowhere"}
        elif (b"accept", b"text/event-stream") in scope.get("headers", ()):
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await app(scope, receive, send)

    return proxy


def removes_upgrade(app: App) -> App:
    """Remove the header ``Upgrade``, as a proxy that knows no WebSockets does."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        kept = [pair for pair in scope.get("headers", ()) if pair[0] != b"upgrade"]
        await app({**scope, "headers": kept} if kept else scope, receive, send)

    return proxy


def alternating(name: str) -> Mount:
    """Return two applications that share nothing, which answer in turn."""
    mounts = itertools.cycle([create_app(name), create_app(name)])

    async def balance(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        await next(mounts).app(scope, receive, send)

    return Mount(f"/{name}", balance)


def create_faulty_apps() -> Starlette:
    """Return all applications as one: ``/NAME/uploads`` and ``/NAME/files/`` of each."""
    full = ProgressTracker(mount_path="/full/uploads", limits=Limits(tracked_per_owner=1))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(full.lifespan())
            await stack.enter_async_context(full.track(owner="alice"))
            yield

    return Starlette(
        routes=[
            create_app("good"),
            create_app("key", require_key),
            create_app("late", receive_late),
            create_app("refusing", refuse),
            create_app("forms", method="POST"),
            create_app("small", outer=limiting_size),
            create_app("untracked", middleware=False),
            create_app("refusing-untracked", refuse, middleware=False),
            create_app("anonymous", authenticate=nobody),
            create_app("full", tracker=full),
            create_app("split", middleware_tracker=ProgressTracker()),
            create_app("holding", outer=holding_requests),
            create_app("incremental", outer=through_proxy),
            create_app("compressing", outer=compressing),
            create_app("hiding", outer=hiding_streams),
            create_app(
                "ahead", tracker=ProgressTracker(mount_path="/ahead/uploads", clock=AheadClock())
            ),
            alternating("workers"),
        ],
        lifespan=lifespan,
    )
