"""Mistakes of an integration are named in the log, once, with the fix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

from tests._support.asgi_client import build_app, client, name_is_password
from tests.starlette.test_application import running
from upload_progress import MemoryStore, ProgressTracker
from upload_progress.backends import MemoryPublisher
from upload_progress.starlette import progress_mount, user_identity

pytestmark = pytest.mark.anyio


def routes_only(tracker: ProgressTracker) -> Starlette:
    return Starlette(routes=[progress_mount(tracker, authenticate=name_is_password)])


async def test_missing_middleware_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with client(routes_only(ProgressTracker())) as http:
        for upload_id in ("one", "two"):
            assert (await http.get(f"/uploads/{upload_id}/progress")).status_code == 404

    assert len(caplog.messages) == 1
    assert "no UploadProgressMiddleware uses the tracker of the routes" in caplog.text


async def track_an_upload(tracker: ProgressTracker) -> None:
    async with tracker.track(owner="alice") as upload:
        upload.advance(1)


async def do_nothing(_tracker: ProgressTracker) -> None:
    """Track nothing."""


@pytest.mark.parametrize(
    ("tracker", "use"),
    [
        (ProgressTracker(), track_an_upload),
        (ProgressTracker(store=MemoryStore(), publisher=MemoryPublisher()), do_nothing),
    ],
    ids=["uploads of track()", "uploads of other workers"],
)
async def test_unknown_upload_is_not_logged_where_others_may_be_known(
    tracker: ProgressTracker,
    use: Callable[[ProgressTracker], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await use(tracker)
    async with client(routes_only(tracker)) as http:
        assert (await http.get("/uploads/one/progress")).status_code == 404

    assert caplog.messages == []


async def test_unknown_upload_is_not_logged_with_middleware(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(build_app()) as http:
        assert (await http.get("/uploads/one/progress")).status_code == 404

    assert caplog.messages == []


async def test_foreign_origin_is_logged_once_without_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = {"origin": "https://app.example"}
    async with client(build_app()) as http:
        for _ in range(2):
            answer = await http.post("/uploads", headers=headers)
            assert answer.status_code == 403

    assert len(caplog.messages) == 1
    assert "add it to allowed_origins" in caplog.text
    assert "app.example" not in caplog.text


async def test_missing_cors_middleware_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    preflight = {"origin": "https://app.example", "access-control-request-method": "GET"}
    async with client(build_app()) as http:
        answers = [
            await http.request("OPTIONS", "/uploads/progress", headers=headers)
            for headers in ({}, preflight, preflight)
        ]

    assert [answer.status_code for answer in answers] == [405] * 3
    assert len(caplog.messages) == 1
    assert "put CORSMiddleware around the progress routes" in caplog.text


@pytest.mark.parametrize("has_middleware", [True, False])
async def test_missing_authentication_middleware_is_logged(
    *, has_middleware: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class NoUser:
        """Authenticates nobody."""

        async def authenticate(self, _connection: object) -> None:
            """Find no user."""

    added = [Middleware(AuthenticationMiddleware, backend=NoUser())]  # type: ignore[arg-type]  # enough
    app = build_app(authenticate=user_identity, middleware=added if has_middleware else [])
    async with client(app) as http:
        assert (await http.get("/uploads/progress")).status_code == 401

    found = ["user_identity needs AuthenticationMiddleware" in each for each in caplog.messages]
    assert found == ([] if has_middleware else [True])


async def test_lifespan_that_was_called_is_accepted() -> None:
    tracker = ProgressTracker()
    app = Starlette(lifespan=tracker.lifespan())  # type: ignore[arg-type]  # the mistake
    async with running(app):
        assert tracker.is_running

    assert not tracker.is_running
