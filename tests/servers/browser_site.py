"""Server for browser tests, on which any user can sign in and uploads can be held.

Under ``/uploads``, the cookie ``user`` or a bearer token is the name of the user; under ``/open``,
the id of an upload is the capability to read it. ``/files/{name}?hold=0.5`` stops reading after
half of the body until ``POST /release/{name}``, so that a test can examine a partial upload.

The variables ``TEST_CONTROL_URL`` and ``TEST_KEY`` name a Pushpin that holds event streams,
``TEST_CENTRIFUGO_URL`` and ``TEST_KEY`` a Centrifugo.
"""

from __future__ import annotations

import os
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
from upload_progress.edge import Centrifugo, GripProxy
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import bearer, capability, first_of, progress_mount

HOLD_SECONDS = 60
CHUNK_BYTES = 65536

gates: dict[str, anyio.Event] = defaultdict(anyio.Event)


def cookie_identity(connection: Connection) -> Identity | None:
    """Return the user that the cookie names, without any verification."""
    user = connection.cookie("user")
    return Identity(user) if user else None


async def receive(request: Request) -> Response:
    """Read the body, hold it if requested, and return the requested response."""
    name, query = request.path_params.get("name", "form"), request.query_params
    if int(request.headers.get("content-length", 0)) > int(query.get("most", 10**12)):
        problem = {"title": "Content Too Large", "detail": "Only small files are accepted."}
        # Read to the end: browsers report an early response as a network error.
        async for _ in request.stream():
            pass
        return JSONResponse(problem, 413, media_type="application/problem+json")
    await _read(request, name, float(query.get("hold", 2)))
    if "stage" in query:
        async with current_upload(request).stage("scanning", total=4) as stage:
            stage.advance(2)
            await _wait_for_release(request, f"{name}.stage")
    if "stored" in query:
        current_upload(request).stored(int(query["stored"]))
        await _wait_for_release(request, f"{name}.stored")
    if "then" in query:
        return RedirectResponse(query["then"], 303)
    return Response("thanks")


async def _read(request: Request, name: str, hold: float) -> None:
    hold_bytes = hold * int(request.headers.get("content-length", 0))
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received >= hold_bytes:
            await _wait_for_release(request, name)
            hold_bytes = float("inf")


async def _wait_for_release(request: Request, name: str) -> None:
    with anyio.move_on_after(HOLD_SECONDS):
        await gates[_gate(request, name)].wait()


def _gate(request: Request, name: str) -> str:
    return f"{request.cookies.get('user')}/{name}"


async def release(request: Request) -> Response:
    """Release the upload held under that name, now or when it arrives."""
    gates[_gate(request, request.path_params["name"])].set()
    return Response()


async def untracked(request: Request) -> Response:
    """Read a body without tracking."""
    await _read(request, "", 2)
    return Response("thanks")


async def thank(_request: Request) -> Response:
    """Return the page to which a form redirects."""
    return Response("thanks", media_type="text/html")


async def count(_request: Request) -> Response:
    """Return the content that htmx loads when an upload has completed."""
    return Response("counted", media_type="text/html")


async def fail(_request: Request) -> Response:
    """Return an error."""
    return Response("no", 500)


def edge() -> Centrifugo | GripProxy | None:
    """Return the push server that the environment names."""
    if url := os.environ.get("TEST_CONTROL_URL"):
        return GripProxy(url, key=os.environ["TEST_KEY"])
    if url := os.environ.get("TEST_CENTRIFUGO_URL"):
        key = os.environ["TEST_KEY"]
        return Centrifugo(url, api_key=key, token_key=key, public_url=url)
    return None


tracker = ProgressTracker(mount_path="/uploads", edge=edge())
open_tracker = ProgressTracker(mount_path="/open")
authenticate = first_of(cookie_identity, bearer(lambda token: token))
open_authenticate = capability()


def _tracking(tracker: ProgressTracker, authenticate: Authenticate) -> list[Middleware]:
    return [Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with tracker.lifespan(app), open_tracker.lifespan(app):
        yield


routes = [
    Route("/{name:path}", receive, methods=["PUT", "POST"]),
    Route("/", receive, methods=["POST"]),
]
app = Starlette(
    routes=[
        progress_mount(tracker, authenticate=authenticate),
        Mount("/files", routes=routes, middleware=_tracking(tracker, authenticate)),
        Mount("/open-files", routes=routes, middleware=_tracking(open_tracker, open_authenticate)),
        progress_mount(open_tracker, authenticate=open_authenticate),
        Route("/release/{name}", release, methods=["POST"]),
        Route("/thanks", thank),
        Route("/count", count),
        Route("/untracked/{name}", untracked, methods=["PUT"]),
        Route("/broken/{name}", fail, methods=["PUT"]),
        Mount("/npm", StaticFiles(directory=HOME / "node_modules", check_dir=False)),
        Mount("/bundles", StaticFiles(directory=HOME / "bundles", check_dir=False)),
    ],
    lifespan=_lifespan,
)
