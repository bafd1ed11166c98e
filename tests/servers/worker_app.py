"""An application as the guide shows it, for ``uvicorn --factory --workers``."""

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
    """Take a body, and tell who took it."""
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"{size} bytes are at {os.getpid()}\n")


async def who(_request: Request) -> PlainTextResponse:
    """Tell which worker this line leads to."""
    return PlainTextResponse(str(os.getpid()))


def create_app() -> Starlette:
    """Return the application of one worker, which shares a store with the others."""
    tracker = ProgressTracker.from_url(os.environ["STORE_URL"])
    subscriptions = capability()
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=subscriptions),
            Route("/files/{name}", receive, methods=["PUT"]),
            Route("/who", who),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=subscriptions)
        ],
        lifespan=tracker.lifespan,
    )
