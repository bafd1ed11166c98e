"""Both clients with a real server."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests._support.asgi_servers import run_app
from upload_progress import (
    InvalidValue,
    NotAllowed,
    ProgressTracker,
    ServerUnreachable,
    UploadEnded,
    UploadNotFound,
    UploadProgress,
    UploadRejected,
    UploadState,
)
from upload_progress import client as client_package
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.client import AsyncProgressClient, ProgressClient
from upload_progress.starlette import basic, bearer, first_of, progress_mount

DEADLINE_SECONDS = 30
BIG = 3_000_000
ANN = ("ann", "ann")


async def receive(request: Request) -> Response:
    size = sum([len(chunk) async for chunk in request.stream()])
    if request.path_params["name"] == "virus":
        current_upload(request).fail("It is a virus.")
    return PlainTextResponse(f"{size}")


async def reject(_request: Request) -> Response:
    return PlainTextResponse("No room.", 507)


@pytest.fixture(scope="module")
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(BIG))
    return path


@pytest.mark.anyio
async def test_upload_is_sent_watched_and_listed(url: str, path: Path) -> None:
    received: list[UploadProgress] = []
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(url, auth=ANN) as client:
            sent = await client.put(path, f"{url}/files/", group="g", on_progress=received.append)
            watched = [each async for each in client.watch(sent.upload_id)]
            page = await client.list(group="g", states=[UploadState.COMPLETED])
            found = await client.get(sent.upload_id)

    assert (sent.status, sent.content) == (200, str(BIG).encode())
    assert sent.progress == received[-1]
    assert {each.state for each in (found, watched[-1], received[-1])} == {"completed"}
    assert sent.upload_id in {each.upload_id for each in page.uploads}
    assert page.next is None


@pytest.mark.anyio
async def test_upload_is_announced_and_cancelled(url: str, path: Path) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(f"{url}/uploads", token="t0ken") as client:
            announced = await client.create(filename="x", total_bytes=7, metadata={"a": 1})
            empty = await client.create(filename="empty", total_bytes=0)
            async with aclosing(client.watch()) as snapshots:
                states = {(await anext(snapshots)).state}
            cancelled = await client.cancel(announced.upload_id)
            sent = await client.put(path, f"{url}/files/a")
            with pytest.raises(UploadEnded, match="it is completed"):
                await client.cancel(sent.upload_id)
    gc.collect()

    assert announced.metadata == {"a": 1}
    assert empty.total_bytes == 0
    assert states <= set(UploadState)
    assert cancelled.state == "cancelled"


@pytest.mark.anyio
async def test_error_of_the_server_is_raised(url: str, path: Path) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(url.replace("//", "//ann:ann@"), retries=1) as client:
            with pytest.raises(UploadNotFound):
                await client.get("unknown")
            with pytest.raises(UploadRejected, match="virus"):
                await client.put(path, f"{url}/files/virus")
            with pytest.raises(UploadRejected, match="507"):
                await client.put(path, f"{url}/full/x")
        async with AsyncProgressClient(url, auth=("ann", "bob")) as client:
            with pytest.raises(NotAllowed):
                await client.list()

    assert "ann" not in client.url


@pytest.mark.anyio
async def test_certificates_of_the_system_are_loaded_for_https_only(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading them takes an eighth of the start of a command."""
    loaded: list[str] = []
    create = httpx2.AsyncHTTPTransport

    def record(*, verify: bool = True) -> httpx2.AsyncHTTPTransport:
        loaded.extend(["certificates"] if verify else [])
        return create(verify=verify)

    monkeypatch.setattr(httpx2, "AsyncHTTPTransport", record)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(url, auth=ANN) as client:
            await client.list()
            assert loaded == []
        async with AsyncProgressClient("https://127.0.0.1:1", retries=0) as client:
            for _ in range(2):
                with pytest.raises(ServerUnreachable):
                    await client.list()

    assert loaded == ["certificates"]


@pytest.mark.anyio
async def test_proxy_of_the_environment_is_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient("http://elsewhere.invalid", auth=ANN, retries=0) as client:
            with pytest.raises(UploadNotFound):
                await client.get("unknown")


@pytest.mark.anyio
async def test_given_http_client_is_used_and_not_closed(url: str) -> None:
    async with httpx2.AsyncClient(auth=ANN) as http:
        async with AsyncProgressClient(url, http=http) as client:
            await client.list()

        assert not http.is_closed


@pytest.mark.anyio
async def test_list_reads_all_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upload_progress.client.async_client._PAGE_SIZE", "1")
    async with AsyncProgressClient(url, auth=("many", "many")) as client:
        made = [(await client.create(filename=name)).upload_id for name in "abc"]
        page = await client.list()

        assert {each.upload_id for each in page.uploads} >= set(made)
        assert page.total.uploads == len(page.uploads)


def test_blocking_client_has_the_same_methods(url: str, path: Path) -> None:
    received, sizes = list[UploadProgress](), list[int]()
    with ProgressClient(url, auth=("bo", "bo")) as client:
        made = client.create(filename="x")
        sent = client.put(
            path,
            f"{url}/files/",
            upload_id=made.upload_id,
            on_progress=received.append,
            on_sent=sizes.append,
        )
        states = [each.state for each in client.watch(made.upload_id)]
        snapshots = client.watch()
        assert next(snapshots).upload_id == made.upload_id
        snapshots.close()
        page = client.list()
        with pytest.raises(UploadNotFound):
            client.get("unknown")
        other = client.create()
        cancelled = client.cancel(other.upload_id)
    gc.collect()

    assert sent.progress == received[-1]
    assert sizes[-1] == BIG
    assert states == ["completed"]
    assert [each.upload_id for each in page.uploads] == [made.upload_id]
    assert cancelled.state == "cancelled"


def test_interrupted_blocking_client_is_closed(url: str) -> None:
    def interrupted() -> None:
        with ProgressClient(url, auth=("int", "int")) as client:
            made = client.create()
            assert next(client.watch(made.upload_id)) == made
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_blocking_client_rejects_an_invalid_url() -> None:
    with pytest.raises(InvalidValue):
        ProgressClient("nowhere")


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
try:
    import upload_progress.client
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("module", "output"),
    [
        ("httpx2", "MissingExtra httpx2 is not installed: pip install 'upload-progress[client]'"),
        ("httpx2._sse", "ModuleNotFoundError import of httpx2._sse halted; None in sys.modules"),
    ],
)
def test_missing_package_is_named_with_its_extra(module: str, output: str) -> None:
    run = [sys.executable, "-c", WITHOUT, module]
    finished = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)

    assert finished.stdout == f"{output}\n"


def test_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        client_package.Other  # type: ignore[attr-defined]  # noqa: B018  # it does not exist
