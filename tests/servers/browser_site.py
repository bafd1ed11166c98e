"""A server for the pages of these tests: anybody signs in by a name, and uploads can be held.

Under ``/uploads`` who asks is known by the cookie ``user`` or a bearer token, which is the name;
under ``/open`` whoever holds an upload's id may follow it. ``/files/{name}?hold=0.5`` stops reading
after half of the body until ``POST /release/{name}``, so that a test looks at an upload in the
middle for as long as it likes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests._support.npm_packages import HOME
from upload_progress import Connection, Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import bearer, capability, first_of, progress_mount

HOLD_SECONDS = 60
CHUNK_BYTES = 65536

gates: dict[str, anyio.Event] = defaultdict(anyio.Event)


def by_cookie(connection: Connection) -> Identity | None:
    """Believe a cookie that says who it is."""
    user = connection.cookie("user")
    return Identity(user) if user else None


async def receive(request: Request) -> Response:
    """Read a body, up to where it is to be held; then say what is asked for."""
    name, query = request.path_params.get("name", "form"), request.query_params
    if int(request.headers.get("content-length", 0)) > int(query.get("most", 10**12)):
        problem = {"title": "Content Too Large", "detail": "Only small files are taken here."}
        # Read to the end: a browser reports an answer that comes too early as a broken line.
        async for _ in request.stream():
            pass
        return JSONResponse(problem, 413, media_type="application/problem+json")
    await _read(request, name, float(query.get("hold", 2)))
    if "stage" in query:
        async with current_upload(request).stage("scanning", total=4) as stage:
            stage.advance(2)
            await _held(request, f"{name}.stage")
    if "then" in query:
        return RedirectResponse(query["then"], 303)
    return Response("thanks")


async def _read(request: Request, name: str, hold: float) -> None:
    hold_bytes = hold * int(request.headers.get("content-length", 0))
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received >= hold_bytes:
            await _held(request, name)
            hold_bytes = float("inf")


async def _held(request: Request, name: str) -> None:
    with anyio.move_on_after(HOLD_SECONDS):
        await gates[_gate(request, name)].wait()


def _gate(request: Request, name: str) -> str:
    return f"{request.cookies.get('user')}/{name}"


async def release(request: Request) -> Response:
    """Let go of what is held under that name, now or when it comes."""
    gates[_gate(request, request.path_params["name"])].set()
    return Response()


async def take(request: Request) -> Response:
    """Take a body, of which nobody is told anything."""
    await _read(request, "", 2)
    return Response("thanks")


async def thank(_request: Request) -> Response:
    """Be where a form leads."""
    return Response("thanks", media_type="text/html")


async def count(_request: Request) -> Response:
    """Say what htmx shows when it has been told of an end."""
    return Response("counted", media_type="text/html")


async def fail(_request: Request) -> Response:
    """Break, as servers do."""
    return Response("no", 500)


tracker = ProgressTracker(mount_path="/uploads")
open_tracker = ProgressTracker(mount_path="/open")
who = first_of(by_cookie, bearer(lambda token: token))
anybody = capability()


def _counted(tracker: ProgressTracker, authenticate: Authenticate) -> list[Middleware]:
    return [Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with tracker.lifespan(app), open_tracker.lifespan(app):
        yield


routes = [
    Route("/{name}", receive, methods=["PUT", "POST"]),
    Route("/", receive, methods=["POST"]),
]
app = Starlette(
    routes=[
        progress_mount(tracker, authenticate=who),
        Mount("/files", routes=routes, middleware=_counted(tracker, who)),
        Mount("/open-files", routes=routes, middleware=_counted(open_tracker, anybody)),
        progress_mount(open_tracker, authenticate=anybody),
        Route("/release/{name}", release, methods=["POST"]),
        Route("/thanks", thank),
        Route("/count", count),
        Route("/untracked/{name}", take, methods=["PUT"]),
        Route("/broken/{name}", fail, methods=["PUT"]),
        Mount("/npm", StaticFiles(directory=HOME / "node_modules", check_dir=False)),
        Mount("/bundles", StaticFiles(directory=HOME / "bundles", check_dir=False)),
    ],
    lifespan=_lifespan,
)
