"""The application of the tests of deploys: ``uvicorn tests._support.deploy_app:app``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from upload_progress import Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, drain_on_signal
from upload_progress.connection import Connection
from upload_progress.starlette import progress_mount

tracker = ProgressTracker.from_url(os.environ["STORE_URL"])


def authenticate(_connection: Connection) -> Identity:
    """Return the only user."""
    return Identity("ann")


async def receive(request: Request) -> Response:
    """Count the bytes of a file."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size), 201)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Run the tracker, and drain it when the process is told to stop."""
    async with tracker.lifespan(), drain_on_signal(tracker):
        yield


app = UploadProgressMiddleware(
    Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/files/{name}", receive, methods=["PUT"]),
        ],
        lifespan=lifespan,
    ),
    tracker=tracker,
    authenticate=authenticate,
)
