"""``upload_progress_app``: around any ASGI application, with its lifespan and under any prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import anyio
import pytest
from asgiref.wsgi import WsgiToAsgi
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from tests._support.asgi_client import as_user, client, name_is_password, open_socket
from upload_progress import InvalidValue, MiddlewareMissing, ProgressTracker, Upload
from upload_progress.asgi import current_upload
from upload_progress.starlette import UploadProgressApp, upload_progress_app

pytestmark = pytest.mark.anyio

BODY = b"x" * 100_000


async def receive_file(request: Request) -> Response:
    current_upload(request).set(metadata={"bytes": len(await request.body())})
    return JSONResponse({})


def starlette_app() -> Starlette:
    return Starlette(routes=[Route("/files/{name}", receive_file, methods=["PUT"])])


def wrapped(app: Any = None, **options: Any) -> UploadProgressApp:  # noqa: ANN401  # as given
    return upload_progress_app(app or starlette_app(), authenticate=name_is_password, **options)


@asynccontextmanager
async def running(app: Callable[..., Any]) -> AsyncIterator[list[str]]:
    """Run the lifespan of *app* as a server does; return the types of the messages it sends."""
    to_app, inbox = anyio.create_memory_object_stream[dict[str, str]](2)
    sent: list[str] = []
    has_started = anyio.Event()

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])
        has_started.set()

    with to_app, inbox, anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, {"type": "lifespan", "state": {}}, inbox.receive, send)
            await to_app.send({"type": "lifespan.startup"})
            await has_started.wait()
            yield sent
            await to_app.send({"type": "lifespan.shutdown"})


async def upload(app: UploadProgressApp, path: str = "/files/a.bin") -> dict[str, Any]:
    """Upload as Alice; return the snapshot that the link in the response leads to."""
    async with client(app) as http:
        response = await http.put(path, content=BODY, headers={"upload-id": "one"})
        link = response.headers["link"].split(">")[0].removeprefix("<")
        snapshot: dict[str, Any] = (await http.get(link)).json()
        return snapshot


async def test_uploads_of_an_application_are_shown() -> None:
    app = wrapped()
    async with running(app) as sent:
        assert app.tracker.is_running
        snapshot = await upload(app)
        async with client(app) as http:
            listed = (await http.get("/uploads/progress")).json()
            announced = await http.post("/uploads", json={"filename": "b.bin"})
        async with open_socket(app) as socket:
            await socket.receive_until("welcome")

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (snapshot["state"], snapshot["metadata"]) == ("completed", {"bytes": len(BODY)})
    assert [each["upload_id"] for each in listed["uploads"]] == ["one"]
    assert announced.status_code == 201
    assert not app.tracker.is_running


async def test_attributes_are_those_of_the_application() -> None:
    inner = starlette_app()
    app = wrapped(inner)

    assert app.routes is inner.routes
    assert app.app is inner
    with pytest.raises(AttributeError):
        _ = app.no_such_attribute
    with pytest.raises(AttributeError, match="app"):
        _ = UploadProgressApp.__new__(UploadProgressApp).app


# Lifespan


async def test_start_up_and_shutdown_of_the_application_run_inside_those_of_the_tracker() -> None:
    app: UploadProgressApp
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, int]]:
        seen.append(app.tracker.is_running)
        yield {"number": 7}
        seen.append(app.tracker.is_running)

    app = wrapped(Starlette(lifespan=lifespan))
    async with running(app):
        assert seen == [True]

    assert seen == [True, True]


async def refuse_lifespan(scope: Scope, _receive: Receive, _send: Send) -> None:
    assert scope["type"] == "http"


async def read_and_refuse_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError(scope["type"])


async def ignore_lifespan(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Return at once, whatever the scope is."""


@pytest.mark.parametrize("app", [refuse_lifespan, read_and_refuse_lifespan, ignore_lifespan])
async def test_tracker_runs_although_the_application_supports_no_lifespan(
    app: Callable[..., Any],
) -> None:
    outer = wrapped(app)
    async with running(outer) as sent:
        assert outer.tracker.is_running

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not outer.tracker.is_running


def failing_lifespan(_app: Starlette) -> AbstractAsyncContextManager[None]:
    raise OSError("no database")


async def test_failed_start_up_of_the_application_is_passed_on() -> None:
    app = wrapped(Starlette(lifespan=failing_lifespan))
    with pytest.raises(ExceptionGroup) as caught:
        async with running(app) as sent:
            pass

    assert caught.group_contains(OSError, match="no database")
    assert sent == ["lifespan.startup.failed"]
    assert not app.tracker.is_running


# Paths


async def test_links_begin_with_the_root_path() -> None:
    """A proxy removes the prefix, and the server does not know of it."""
    app = wrapped(root_path="/api/", mount_path="/progress")
    async with client(app) as http:
        response = await http.put("/files/a", content=BODY, headers={"upload-id": "one"})
        shown = await http.get("/progress/one/progress")

    assert response.headers["link"] == '</api/progress/one/progress>; rel="status"'
    assert shown.json()["links"]["progress"] == "/api/progress/one/progress"


@pytest.mark.parametrize("path", ["/api/uploads/one/progress", "/uploads/one/progress"])
async def test_root_path_of_the_server_is_removed(path: str) -> None:
    """Servers pass the whole path with it, or what follows it."""
    app = wrapped(root_path="/api")
    await upload(app)

    async def with_root_path(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/api"}, receive, send)

    async with client(with_root_path) as http:
        assert (await http.get(path)).json()["upload_id"] == "one"


async def test_sub_application_is_shown_under_its_prefix() -> None:
    app = wrapped(root_path="/shop")
    outer = Starlette(routes=[Mount("/shop", app=app)])
    async with client(outer) as http:
        response = await http.put("/shop/files/a", content=BODY, headers={"upload-id": "one"})
        link = response.headers["link"].split(">")[0].removeprefix("<")
        assert link == "/shop/uploads/one/progress"
        assert (await http.get(link)).json()["state"] == "completed"


async def test_prefix_that_is_not_known_is_logged_with_the_fix(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outer = Starlette(routes=[Mount("/shop", app=wrapped())])
    async with client(outer) as http:
        for _ in range(2):
            assert (await http.get("/shop/uploads/progress")).status_code == 200

    assert len(caplog.messages) == 1
    assert "set upload_progress_app(root_path='/shop')" in caplog.text


@pytest.mark.parametrize("path", ["/uploadsx", "/files/uploads/progress"])
async def test_other_paths_are_those_of_the_application(path: str) -> None:
    async with client(wrapped()) as http:
        assert (await http.get(path)).text == "Not Found"


async def test_odd_scope_is_passed_to_the_application() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scopes.append(scope)

    for scope in [{"type": "http"}, {"type": "other", "path": "/uploads"}, {}]:
        await wrapped(app)(scope, None, None)  # type: ignore[arg-type]  # not called

    assert scopes == [{"type": "http"}, {"type": "other", "path": "/uploads"}, {}]


async def test_tracker_may_be_given() -> None:
    tracker = ProgressTracker(mount_path="/api/progress")
    app = wrapped(tracker=tracker, root_path="/api")

    assert app.tracker is tracker
    async with client(app, headers=as_user("alice")) as http:
        assert (await http.get("/progress/progress")).status_code == 200


def test_invalid_mount_path_is_refused() -> None:
    with pytest.raises(InvalidValue, match="mount_path"):
        wrapped(mount_path="uploads", root_path="/api")


# current_upload


async def test_current_upload_is_a_dependency_of_fastapi() -> None:
    inner = FastAPI()

    @inner.put("/files/{name}")
    def put(
        name: str, upload: Annotated[Upload, Depends(current_upload)]
    ) -> dict[str, str]:  # in a thread
        upload.set(metadata={"name": name})
        return {}

    snapshot = await upload(wrapped(inner))

    assert snapshot["metadata"] == {"name": "a.bin"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asgiref
async def test_current_upload_needs_no_request() -> None:
    """As in a WSGI application, whose environment has no scope of ASGI."""

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        size = len(environ["wsgi.input"].read())
        current_upload().set(metadata={"wsgi": size})
        start_response("200 OK", [])
        return [b"done"]

    snapshot = await upload(wrapped(WsgiToAsgi(wsgi)))  # type: ignore[no-untyped-call]  # asgiref

    assert snapshot["metadata"] == {"wsgi": len(BODY)}
    with pytest.raises(MiddlewareMissing):
        current_upload()
