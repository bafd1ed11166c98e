"""The middleware inside, outside and between other middleware, and twice."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from itertools import permutations

import anyio
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests._support.scripted_server import (
    ALICE,
    LARGE_BYTES,
    UPLOAD_ID,
    Message,
    Scope,
    ScriptedServer,
    authenticate_alice,
    body_messages,
    tracker_lifespan,
    upload_scope,
    wait_for_end,
    wait_until,
)
from upload_progress import ErrorCode, Identity, ProgressTracker, UploadState
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.connection import Connection

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 1024
CHUNKS = [CONTENT[start : start + 50_000] for start in range(0, len(CONTENT), 50_000)]
ACCEPTS_GZIP = [(b"accept-encoding", b"gzip")]


async def pass_through(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Call the next application, like a minimal ``BaseHTTPMiddleware``."""
    return await call_next(request)


async def hash_body(request: Request) -> Response:
    upload = current_upload(request)
    digest = hashlib.sha256()
    async for chunk in request.stream():
        digest.update(chunk)
    async with upload.stage("storing"):
        return JSONResponse({"sha256": digest.hexdigest(), "padding": "x" * 1000})


async def refuse(_request: Request) -> Response:
    return Response(status_code=413)


async def fail(request: Request) -> Response:
    await request.body()
    raise LookupError


ROUTES = [
    Route("/files/a.bin", hash_body, methods=["PUT"]),
    Route("/refused", refuse, methods=["PUT"]),
    Route("/failing", fail, methods=["PUT"]),
]


def upload_progress_middleware(tracker: ProgressTracker) -> Middleware:
    return Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate_alice)


OTHER_MIDDLEWARE = {
    "base": Middleware(BaseHTTPMiddleware, dispatch=pass_through),
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
}
ORDERS = [*permutations(["ours", "base", "gzip"]), ("ours", "ours"), ("ours", "base", "ours")]


def build_app(order: Sequence[str], tracker: ProgressTracker) -> Starlette:
    """Return an application with this middleware, the outermost first."""
    stack = [
        upload_progress_middleware(tracker) if name == "ours" else OTHER_MIDDLEWARE[name]
        for name in order
    ]
    return Starlette(routes=ROUTES, middleware=stack)


orders = pytest.mark.parametrize("order", ORDERS, ids="-".join)


@orders
@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])
@pytest.mark.parametrize("length", [None, len(CONTENT)])
async def test_progress_does_not_depend_on_the_order(
    order: Sequence[str], lifespan: bool, length: int | None
) -> None:
    """H11, H01: every byte is counted once, in any order of middleware, also with ours twice."""
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(*CHUNKS))

    async with tracker_lifespan(tracker, lifespan):
        scope = upload_scope(length=length, headers=ACCEPTS_GZIP)
        await build_app(order, tracker)(scope, server.receive, server.send)
        progress = await wait_for_end(tracker)

    is_compressed = "gzip" in order
    content = gzip.decompress(server.content) if is_compressed else server.content
    assert server.status == 200
    assert hashlib.sha256(CONTENT).hexdigest().encode() in content
    assert [pair[0] for pair in server.sent[0]["headers"]].count(b"upload-id") == 1
    assert (progress.bytes_transferred, progress.total_bytes) == (len(CONTENT), length)
    assert (progress.state, progress.sequence > 0) == (UploadState.COMPLETED, True)


@orders
async def test_response_without_reading_is_passed_on(order: Sequence[str]) -> None:
    """H11, H05: 413 by the application, without reading."""
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(*CHUNKS))

    scope = upload_scope(length=len(CONTENT), path="/refused")
    await build_app(order, tracker)(scope, server.receive, server.send)

    progress = await wait_for_end(tracker)
    assert server.status == 413
    assert progress.error is not None
    assert (progress.error.code, progress.error.http_status) == (ErrorCode.REJECTED, 413)


@orders
async def test_exception_is_passed_on(order: Sequence[str]) -> None:
    """H11, H09: the framework's own 500, and a failed upload."""
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(*CHUNKS))

    with pytest.raises(LookupError):
        await build_app(order, tracker)(upload_scope(path="/failing"), server.receive, server.send)

    assert server.status == 500
    assert (await wait_for_end(tracker)).state is UploadState.FAILED


@orders
async def test_disconnect_fails_the_upload(order: Sequence[str]) -> None:
    """H11, H07: the disconnect passes through all middleware."""
    tracker = ProgressTracker()
    server = ScriptedServer(
        [*body_messages(*CHUNKS)[:2], {"type": "http.disconnect"}, {"type": "http.disconnect"}]
    )

    scope = upload_scope(length=len(CONTENT))
    with anyio.fail_after(20):
        try:
            await build_app(order, tracker)(scope, server.receive, server.send)
        except Exception as error:  # noqa: BLE001  # Starlette's, depending on the order
            assert type(error).__module__.startswith("starlette")  # noqa: PT017  # or none at all
        progress = await wait_for_end(tracker)

    assert progress.state is UploadState.FAILED
    assert progress.bytes_transferred == 100_000


@orders
async def test_cancel_is_passed_on(order: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """H11: 409 passes through all middleware, and nothing hangs."""
    monkeypatch.setattr("upload_progress.asgi.tracked_request.CANCEL_GRACE_SECONDS", 0.01)
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(*CHUNKS)[:1])

    async with anyio.create_task_group() as tasks:
        app = build_app(order, tracker)
        tasks.start_soon(app, upload_scope(length=len(CONTENT)), server.receive, server.send)
        await server.script_ended.wait()
        with anyio.fail_after(20):
            await tracker.cancel(UPLOAD_ID, owner=ALICE)
            await wait_until(lambda: len(server.sent) > 1)
            progress = await wait_for_end(tracker)

    assert (server.status, progress.state) == (409, UploadState.CANCELLED)


class TokenBackend(AuthenticationBackend):
    """Authenticates each token as the user of that name."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        token = conn.headers.get("authorization")
        return None if token is None else (AuthCredentials(), SimpleUser(token))


def authenticate_by_user(connection: Connection) -> Identity | None:
    user = connection.scope.get("user")
    return Identity(user.display_name) if user and user.is_authenticated else None


@pytest.mark.parametrize("is_outside", [True, False], ids=["ours outside", "ours inside"])
@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])
@pytest.mark.parametrize("path", ["/files/a.bin", "/refused"])
async def test_user_of_outer_and_inner_middleware_is_found(
    is_outside: bool, lifespan: bool, path: str
) -> None:
    """H11: AuthenticationMiddleware outside or inside; without a user, nothing is tracked."""
    tracker = ProgressTracker()
    own = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate_by_user)
    other = Middleware(AuthenticationMiddleware, backend=TokenBackend())
    app = Starlette(routes=ROUTES, middleware=[own, other] if is_outside else [other, own])
    servers = []

    async with tracker_lifespan(tracker, lifespan):
        for headers in ([(b"authorization", b"alice")], []):
            server = ScriptedServer(body_messages(*CHUNKS))
            scope = upload_scope(length=len(CONTENT), headers=headers, path=path)
            await app(scope, server.receive, server.send)
            servers.append(server)
        progress = await wait_for_end(tracker)

    assert ["upload-id" in server.headers for server in servers] == [True, False]
    assert progress.bytes_transferred == (len(CONTENT) if path != "/refused" else 0)


def body_limit_middleware(size: int) -> Middleware:
    body_limit = pytest.importorskip("starlette.middleware.body_limit")
    return Middleware(body_limit.RequestBodyLimitMiddleware, max_body_size=size)


@pytest.mark.parametrize("is_outside", [True, False], ids=["ours outside", "ours inside"])
@pytest.mark.parametrize("length", [None, len(CONTENT)])
@pytest.mark.parametrize("size", [LARGE_BYTES, len(CONTENT)])
async def test_body_limit_of_starlette_is_unchanged(
    is_outside: bool, length: int | None, size: int
) -> None:
    """H11: RequestBodyLimitMiddleware outside or inside responds as it does alone."""
    tracker = ProgressTracker()
    own, other = upload_progress_middleware(tracker), body_limit_middleware(size)
    responses: list[Message] = []

    for stack in ([own, other] if is_outside else [other, own], [other]):
        app = Starlette(
            routes=[Route("/files/a.bin", body_size, methods=["PUT"])], middleware=stack
        )
        server = ScriptedServer(body_messages(*CHUNKS))
        await app(upload_scope(length=length), server.receive, server.send)
        responses.append(
            {"status": server.status, "content": server.content, "read": server.receive_calls}
        )

    progress = await wait_for_end(tracker)
    assert responses[0] == responses[1]
    assert responses[0]["status"] == (200 if size == len(CONTENT) else 413)
    assert progress.state == ("completed" if size == len(CONTENT) else "failed")


async def body_size(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def test_preflight_is_not_tracked() -> None:
    """H16: CORSMiddleware responds, outside or inside."""
    tracker = ProgressTracker()
    cors = Middleware(CORSMiddleware, allow_origins=["https://example.org"], allow_methods=["PUT"])
    preflight: Scope = upload_scope(
        method="OPTIONS",
        headers=[
            (b"origin", b"https://example.org"),
            (b"access-control-request-method", b"PUT"),
        ],
    )
    responses = []

    for stack in (
        [upload_progress_middleware(tracker), cors],
        [cors, upload_progress_middleware(tracker)],
        [cors],
    ):
        server = ScriptedServer()
        app = Starlette(routes=ROUTES, middleware=stack)
        await app(dict(preflight), server.receive, server.send)
        responses.append(server.sent)

    assert responses[0] == responses[1] == responses[2]
    assert tracker.statistics().live_uploads == 0
