"""A real server with an upload route and progress routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests._support.asgi_servers import run_app
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import basic, bearer, first_of, progress_mount


async def receive(request: Request) -> Response:
    size = sum([len(chunk) async for chunk in request.stream()])
    if request.path_params["name"] == "virus":
        current_upload(request).fail("It is a virus.")
    return PlainTextResponse(f"{size}")


async def reject(_request: Request) -> Response:
    return PlainTextResponse("No room.", 507)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    tracker = ProgressTracker()
    tokens = {"t0ken": "ann"}
    authenticate = first_of(basic(lambda user, password: user == password), bearer(tokens.get))
    app = Starlette(
        routes=[
            Route("/files/{name}", receive, methods=["PUT"]),
            Route("/full/{name}", reject, methods=["PUT"]),
            progress_mount(tracker, authenticate=authenticate),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        lifespan=tracker.lifespan,
    )
    with run_app(app) as url:
        yield url
