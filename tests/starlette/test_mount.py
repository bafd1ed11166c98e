"""``Mount("/uploads", routes=progress_routes(…))`` behind the middleware."""

from __future__ import annotations

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests._support.asgi_client import as_user, name_is_password
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import progress_routes

pytestmark = pytest.mark.anyio


async def echo_path(request: Request) -> PlainTextResponse:
    """Return the path that reached the application."""
    return PlainTextResponse(request.url.path)


def app(*, routes: bool) -> Starlette:
    """Return an application with the progress routes under a plain mount, or without them."""
    tracker = ProgressTracker()
    ours = Mount("/uploads", routes=progress_routes(tracker, authenticate=name_is_password))
    return Starlette(
        routes=[ours] if routes else [Route("/uploads", echo_path, methods=["POST"])],
        middleware=[
            Middleware(
                UploadProgressMiddleware,
                tracker=tracker if routes else ProgressTracker(),
                authenticate=name_is_password,
            )
        ],
    )


async def post(application: Starlette) -> httpx2.Response:
    """Post to the mount path itself; a redirect is not followed."""
    transport = httpx2.ASGITransport(application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/uploads", headers=as_user("alice"))


async def test_post_to_the_mount_path_announces_an_upload() -> None:
    response = await post(app(routes=True))

    assert response.status_code == 201
    assert response.json()["state"] == "pending"


async def test_other_methods_on_the_mount_path_reach_the_application() -> None:
    transport = httpx2.ASGITransport(app(routes=True))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/uploads", headers=as_user("alice"))

    assert response.status_code == 307


async def test_application_without_progress_routes_keeps_the_path() -> None:
    response = await post(app(routes=False))

    assert response.text == "/uploads"


async def test_root_path_that_is_not_in_the_path_is_logged_with_the_fix(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with ``FastAPI(root_path=…)`` behind a proxy that removes the prefix."""
    tracker = ProgressTracker(mount_path="/api/uploads")
    routes = progress_routes(tracker, authenticate=name_is_password)
    mounted = Starlette(routes=[Mount("/uploads", routes=routes)])
    application = UploadProgressMiddleware(mounted, tracker=tracker, authenticate=name_is_password)
    transport = httpx2.ASGITransport(application, root_path="/api")
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(2):
            response = await client.get("/uploads/progress", headers=as_user("alice"))
            assert response.status_code == 404

    assert len(caplog.messages) == 1
    assert "upload_progress_app(root_path=…)" in caplog.text
