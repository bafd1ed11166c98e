"""Paths and methods of the routes, the mount, the script and the API documents."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.resources import files

import fastapi
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Router

from tests._support.asgi_client import (
    RecordingSend,
    build_app,
    client,
    http_scope,
    name_is_password,
    never,
    open_connection,
)
from upload_progress import InvalidValue, MissingExtra, ProgressTracker, UploadProgressError
from upload_progress.connection import Connection
from upload_progress.openapi import asyncapi_document, openapi_document
from upload_progress.starlette import progress_mount, progress_routes
from upload_progress.starlette.component import (
    MODULES,
    ComponentScript,
    component_script,
    compressed_scripts,
    script_version,
)
from upload_progress.starlette.context import RequestContext

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/uploads", "POST"),
        ("/uploads/progress", "GET, HEAD"),
        ("/uploads/tickets", "POST"),
        ("/uploads/upload-progress.js", "GET, HEAD"),
        ("/uploads/upload-progress/forms.js", "GET, HEAD"),
        ("/uploads/upload-progress/languages.js", "GET, HEAD"),
        ("/uploads/upload-progress/panel.js", "GET, HEAD"),
        ("/uploads/upload-progress/parts.js", "GET, HEAD"),
        ("/uploads/upload-progress/streams.js", "GET, HEAD"),
        ("/uploads/openapi.json", "GET, HEAD"),
        ("/uploads/asyncapi.json", "GET, HEAD"),
        ("/uploads/x/progress", "GET, HEAD"),
        ("/uploads/x/subscribe", "POST"),
        ("/uploads/x/unsubscribe", "DELETE"),
        ("/uploads/x", "DELETE, HEAD, PATCH"),
    ],
)
async def test_unsupported_method_gives_405_with_allow(path: str, allow: str) -> None:
    async with client(build_app()) as http:
        for method in ("PUT", "OPTIONS", "BREW"):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allow)
            assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/a/b/c", "//", "/x//", "/x/progress//", "/a\n/b", "/\n/b"])
async def test_unknown_path_gives_a_problem_document(path: str) -> None:
    async with open_connection(build_app(), http_scope(f"/uploads{path}")) as connection:
        status, headers, body = await connection.receive_response()

    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert b"not_found" in body


@pytest.mark.parametrize("path", ["/progress", "/x/progress", "/x", "/tickets", "/openapi.json"])
async def test_slash_at_the_end_changes_nothing(path: str) -> None:
    """Litestar adds one to the path of a mounted application."""
    async with client(build_app()) as http:
        for method in ("GET", "POST", "DELETE", "HEAD"):
            without = await http.request(method, f"/uploads{path}")
            answer = await http.request(method, f"/uploads{path}/")
            assert answer.status_code == without.status_code
            if path != "/tickets":
                assert answer.content == without.content


async def test_every_response_forbids_caching() -> None:
    paths = ["", "/", "/progress", "/x", "/x/progress", "/nowhere/at/all", "/tickets"]
    async with client(build_app()) as http, client(build_app(), user=None) as anonymous:
        for path in paths:
            for each in (http, anonymous):
                for method in ("GET", "POST", "DELETE", "PUT"):
                    answer = await each.request(method, f"/uploads{path}")
                    assert answer.headers["cache-control"] == "no-store"
                    assert answer.headers["x-content-type-options"] == "nosniff"
                    assert "Authorization" in answer.headers["vary"]


async def test_plain_mount_redirects_the_mount_path() -> None:
    tracker = ProgressTracker()
    routes = progress_routes(tracker, authenticate=name_is_password)
    async with client(Starlette(routes=[Mount("/uploads", routes=routes)])) as http:
        bare = await http.post("/uploads")
        followed = await http.post("/uploads", follow_redirects=True)

    assert (bare.status_code, bare.headers["location"]) == (307, "http://server/uploads/")
    assert followed.status_code == 201


async def test_progress_mount_matches_its_own_path_without_slash() -> None:
    tracker = ProgressTracker(mount_path="/api/uploads")
    app = Starlette(routes=[progress_mount(tracker, authenticate=name_is_password)])
    async with client(app) as http:
        assert (await http.post("/api/uploads")).status_code == 201
        assert (await http.post("/api/uploads/")).status_code == 201
        assert (await http.post("/api")).status_code == 404
        assert (await http.post("/api/uploadsx")).status_code == 404


def fastapi_by_mount(tracker: ProgressTracker) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    routes = progress_routes(tracker, authenticate=name_is_password)
    app.mount("/uploads", Router(routes=routes))
    return app


def fastapi_by_route(tracker: ProgressTracker) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.router.routes.append(progress_mount(tracker, authenticate=name_is_password))
    return app


@pytest.mark.parametrize("build", [fastapi_by_mount, fastapi_by_route])
async def test_routes_work_under_fastapi(build: object, caplog: pytest.LogCaptureFixture) -> None:
    assert callable(build)
    async with client(build(ProgressTracker()), follow_redirects=True) as http:
        made = await http.post("/uploads", json={"filename": "a"})
        got = await http.get(made.headers["location"])
        missing = await http.get("/uploads/x/progress")
        document = await http.get("/openapi.json")

    assert (made.status_code, got.status_code) == (201, 200)
    assert missing.json()["code"] == "not_found"
    assert document.status_code == 200
    # Nothing would track the upload that was announced: the only warning says so.
    assert len(caplog.messages) == 1
    assert "no UploadProgressMiddleware uses the tracker" in caplog.text


@pytest.mark.parametrize(
    ("mount_path", "mounted", "is_right"),
    [
        ("/uploads", "/uploads", True),
        ("/api/uploads", "/uploads", True),  # a proxy in front takes /api away
        ("/uploads", "/progress-of-uploads", False),
        ("/uploads", "/api/uploads", False),
        ("/uploads", "", False),
    ],
)
async def test_wrong_mount_path_is_logged(
    mount_path: str, mounted: str, is_right: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = ProgressTracker(mount_path=mount_path)
    routes = progress_routes(tracker, authenticate=name_is_password)
    app = Starlette(routes=[Mount(mounted, routes=routes)] if mounted else routes)
    async with client(app) as http:
        for _ in range(2):
            assert (await http.get(f"{mounted}/progress")).status_code == 200

    assert len(caplog.messages) == (0 if is_right else 1)
    assert all("mount_path" in message for message in caplog.messages)


async def test_disconnect_before_the_response_raises_nothing() -> None:
    async def send(_message: object) -> None:
        raise OSError

    await build_app()(http_scope("/uploads/progress"), never, send)


# The script


async def test_script_is_public_and_cacheable() -> None:
    async with client(build_app(), user=None) as http:
        first = await http.get("/uploads/upload-progress.js")
        known = {"if-none-match": first.headers["etag"]}
        again = await http.get("/uploads/upload-progress.js", headers=known)
    assert first.status_code == 200
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "public, no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")


async def test_script_is_kept_for_a_year_under_its_own_version_only() -> None:
    script = component_script()
    assert script is not None
    async with client(build_app(), user=None) as http:

        async def caching(version: str) -> str:
            answer = await http.get(f"/uploads/upload-progress.js?{version}")
            assert answer.content == script
            return str(answer.headers["cache-control"])

        own = await caching(f"v={script_version(script)}")
        others = {await caching(each) for each in ("v=1", "v=", "version=1", "")}

    assert own == "public, max-age=31536000, immutable"
    assert others == {"public, no-cache"}


@pytest.mark.parametrize("name", ["upload-progress.js", *MODULES])
async def test_script_is_compressed_for_clients_that_accept_it(name: str) -> None:
    brotli = (files("upload_progress") / "static" / "served" / f"{name}.br").read_bytes()
    async with client(build_app(), user=None) as http:

        async def get(encodings: str, known: str = "") -> httpx2.Response:
            headers = {"accept-encoding": encodings, "if-none-match": known}
            return await http.get(f"/uploads/{name}", headers=headers)

        plain, gzip = await get("identity"), await get("br;q=0.5, gzip")
        again = await get("gzip", gzip.headers["etag"])
        others = [await get(each, gzip.headers["etag"]) for each in ("identity", "br")]
        smallest = [await get(each) for each in ("br", "gzip, br", "gzip;q=0.9, *", "gzip;q=0, *")]
        refused = [await get(each) for each in ("gzip;q=0", "deflate", "*;q=0", "br;q=0")]

    assert gzip.headers["content-encoding"] == "gzip"
    assert gzip.content == plain.content
    lengths = [int(each.headers["content-length"]) for each in (plain, gzip, smallest[0])]
    assert lengths == sorted(lengths, reverse=True)
    assert len({each.headers["etag"] for each in (plain, gzip, smallest[0])}) == 3
    assert {plain.headers["vary"], gzip.headers["vary"]} == {"Accept-Encoding"}
    assert [each.status_code for each in (again, *others)] == [304, 200, 200]
    assert {each.headers["content-encoding"] for each in smallest} == {"br"}
    assert lengths[2] == len(brotli)
    assert not any("content-encoding" in each.headers for each in refused)


async def test_missing_script_gives_404() -> None:
    name = "upload-progress/other.js"
    assert (component_script(name), compressed_scripts(name)) == (None, {})
    recorded, scope = RecordingSend(), http_scope("/")
    with pytest.raises(UploadProgressError, match="does not exist"):
        await ComponentScript(name).get(RequestContext(scope, never, recorded, Connection(scope)))
    assert recorded.sent == []


# The API documents


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("openapi.json", openapi_document(mount_path="/api/uploads")),
        ("asyncapi.json", asyncapi_document(mount_path="/api/uploads")),
    ],
)
async def test_api_documents_are_served_without_authentication(
    name: str, document: dict[str, object]
) -> None:
    tracker = ProgressTracker(mount_path="/api/uploads")
    app = Starlette(routes=[progress_mount(tracker, authenticate=name_is_password)])
    async with client(app, user=None) as http:
        first = await http.get(f"/api/uploads/{name}")
        known = {"if-none-match": first.headers["etag"]}
        second = await http.get(f"/api/uploads/{name}", headers=known)
        head = await http.head(f"/api/uploads/{name}")

    assert first.status_code == 200
    assert first.json() == document
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "no-cache"
    assert (second.status_code, second.content) == (304, b"")
    assert (head.headers, head.content) == (first.headers, b"")


# The extra


def test_import_without_starlette_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "upload_progress._runtime.optional.find_spec",
        lambda name: None if name == "starlette" else find(name),
    )
    for name in [name for name in sys.modules if name.startswith("upload_progress.starlette")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"upload-progress\[starlette\]"):
        importlib.import_module("upload_progress.starlette")


def test_invalid_allowed_origin_is_rejected_at_start() -> None:
    with pytest.raises(InvalidValue, match="allowed_origins"):
        progress_routes(
            ProgressTracker(), authenticate=name_is_password, allowed_origins=["ok.example"]
        )
