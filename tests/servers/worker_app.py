"""The application of the server guide, for ``uvicorn --factory --workers``."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import capability, progress_mount


async def receive(request: Request) -> PlainTextResponse:
    """Read the body; return its size and the process id."""
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"{size} bytes received by {os.getpid()}\n")


async def worker(_request: Request) -> PlainTextResponse:
    """Return the process id of the worker of this connection."""
    return PlainTextResponse(str(os.getpid()))


def create_app() -> Starlette:
    """Return the application of one worker; all workers share a store."""
    lease_seconds = float(os.environ.get("LEASE_SECONDS", "15"))
    tracker = ProgressTracker.from_url(os.environ["STORE_URL"], lease_seconds=lease_seconds)
    authenticate = capability()
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/files/{name}", receive, methods=["PUT"]),
            Route("/worker", worker),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        lifespan=tracker.lifespan,
    )
