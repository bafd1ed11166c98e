"""The demo application, called through ASGI on both event loops."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from attrs import define
from starlette.applications import Starlette

from upload_progress import ProgressTracker, UploadState
from upload_progress.demo import uploads as demo_uploads
from upload_progress.demo.app import MAX_BODY_BYTES, create_app
from upload_progress.demo.files import FileStorage
from upload_progress.settings import Settings, settings_from_environment

pytestmark = pytest.mark.anyio

ALICE = ("alice", "alice")
BOB = ("bob", "bob")
SAME_ORIGIN = {"origin": "http://demo"}
BROWSER = {"user-agent": "Mozilla/5.0"}
CONTENT = bytes(range(256)) * 1000
DEFAULTS = settings_from_environment({})


@define
class Demo:
    """A running demo in this process."""

    app: Starlette
    tracker: ProgressTracker
    client: httpx2.AsyncClient
    root: Path

    def partial_files(self) -> list[str]:
        """Return the names of partial files; none may remain after an upload has ended."""
        return [path.name for path in self.root.glob("*/incoming/*")]

    async def file_names(self, user: tuple[str, str]) -> list[str]:
        return [file["name"] for file in (await self.client.get("/files", auth=user)).json()]


@asynccontextmanager
async def running(
    root: Path,
    *,
    bytes_per_second: int | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    settings: Settings = DEFAULTS,
) -> AsyncIterator[Demo]:
    tracker = settings.create_tracker()
    app = create_app(
        tracker,
        root=root,
        secret_key="key",
        bytes_per_second=bytes_per_second,
        max_body_bytes=max_body_bytes,
        settings=settings,
    )
    transport = httpx2.ASGITransport(app=app)
    async with (
        tracker.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://demo") as client,
    ):
        yield Demo(app, tracker, client, root)


Part = bytes | Callable[[], Awaitable[object]] | None


async def call(demo: Demo, method: str, path: str, *parts: Part, **headers: str) -> tuple[int, str]:
    """Send a body in parts through ASGI; return the status and headers, or 0 without a response.

    A callable part is called between two messages; None disconnects the client. Unlike the client
    in ``Demo``, this leaves no generator open on trio when the body is not read to its end.
    """
    basic = base64.b64encode(b"alice:alice").decode()
    fields = {"host": "demo", "authorization": f"Basic {basic}", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()
        ],
    }
    remaining = iter(parts)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, object]:
        part = next(remaining, b"")
        while callable(part):
            await part()
            part = next(remaining, b"")
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await demo.app(scope, receive, send)
    return (sent[0]["status"], str(sent[0]["headers"])) if sent else (0, "")


async def state_of(demo: Demo, upload_id: str) -> UploadState:
    return (await demo.tracker.get(upload_id, owner="alice")).state


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(10):
        while not await condition():
            await anyio.lowlevel.checkpoint()


async def test_downloaded_file_equals_uploaded_file(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        put = await demo.client.put(
            "/files/a.bin", content=CONTENT, auth=ALICE, headers={"upload-id": "first"}
        )
        got = await demo.client.get("/files/a.bin", auth=ALICE)
        snapshot = await demo.tracker.get("first", owner="alice")

    assert put.status_code == 201
    assert put.json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert put.headers["upload-id"] == "first"
    assert got.content == CONTENT
    assert got.headers["content-disposition"] == 'attachment; filename="a.bin"'
    assert "sandbox" in got.headers["content-security-policy"]
    assert snapshot.state is UploadState.COMPLETED
    assert (snapshot.filename, snapshot.bytes_transferred) == ("a.bin", len(CONTENT))


async def test_users_do_not_share_files(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await demo.client.put("/files/a.bin", content=b"one", auth=ALICE)
        await demo.client.put("/files/a.bin", content=b"two", auth=ALICE)
        other_user = await demo.client.get("/files/a.bin", auth=BOB)
        listed = (await demo.client.get("/files", auth=ALICE)).json()

        assert await demo.file_names(BOB) == []
    assert other_user.status_code == 404
    assert [set(file) for file in listed] == [{"name", "size", "sha256", "uploaded_at"}]
    assert listed[0]["sha256"] == hashlib.sha256(b"two").hexdigest()


async def test_files_of_a_folder_keep_their_path_in_the_name(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        for path in ("photos/a.jpg", "photos/old/a.jpg", "../a.jpg"):
            put = await demo.client.put(f"/files/{path.replace('..', '%2e%2e')}", auth=ALICE)
            assert put.status_code == 201

        names = sorted(await demo.file_names(ALICE))
    assert names == ["_a.jpg", "photos_a.jpg", "photos_old_a.jpg"]


async def test_form_with_several_files_is_stored(tmp_path: Path) -> None:
    files = [("x", ("../a.bin", CONTENT)), ("x", ("b.txt", b"b"))]
    async with running(tmp_path) as demo:
        response = await demo.client.post("/files", files=files, data={"note": "hi"}, auth=ALICE)

        assert sorted(await demo.file_names(ALICE)) == ["a.bin", "b.txt"]
        assert demo.partial_files() == []
    assert response.status_code == 201
    assert [file["size"] for file in response.json()] == [len(CONTENT), 1]


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 422),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="a"; filename=".."\r\n\r\n1\r\n--x--\r\n',
            422,
        ),
        ("multipart/form-data", b"--x--\r\n", 400),
    ],
    ids=["no-form", "no-file", "no-name", "no-boundary"],
)
async def test_form_without_files_is_rejected(
    tmp_path: Path, content_type: str, body: bytes, status: int
) -> None:
    async with running(tmp_path) as demo:
        response = await demo.client.post(
            "/files", content=body, headers={"content-type": content_type}, auth=ALICE
        )

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/files/..%00", "/files/%2e%2e%5c"])
async def test_invalid_file_name_is_rejected(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as demo:
        put = await demo.client.put(path, content=b"x", auth=ALICE)
        got = await demo.client.get(path, auth=ALICE)

    assert (put.status_code, got.status_code) == (422, 422)


@pytest.mark.parametrize(
    "headers", [{"content_length": "120"}, {}], ids=["announced", "unannounced"]
)
async def test_too_large_file_is_rejected(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path, max_body_bytes=100) as demo:
        body = (b"x" * 60, b"x" * 60)
        status, headers_text = await call(demo, "PUT", "/files/a.bin", *body, **headers)

        assert demo.partial_files() == []
        assert await demo.file_names(ALICE) == []
    assert status == 413
    assert "(b'connection', b'close')" in headers_text


async def test_file_larger_than_free_disk_space_is_rejected_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, max_body_bytes=10**20) as demo:
        huge = {"content-length": str(10**18)}
        response = await demo.client.put("/files/a.bin", content=b"x", headers=huge, auth=ALICE)

    assert response.status_code == 507


@pytest.mark.parametrize("content_range", ["bytes 0-99/1000", "bytes 900-999/1000", "Bytes */9"])
async def test_part_of_a_file_is_rejected_and_replaces_nothing(
    tmp_path: Path, content_range: str
) -> None:
    """RFC 9110 section 14.5: a part that is stored as the whole file destroys it."""
    async with running(tmp_path) as demo:
        await demo.client.put("/files/a.bin", content=CONTENT, auth=ALICE)
        response = await demo.client.put(
            "/files/a.bin",
            content=CONTENT[:100],
            headers={"content-range": content_range},
            auth=ALICE,
        )
        got = await demo.client.get("/files/a.bin", auth=ALICE)

    assert response.status_code == 400
    assert "in one request" in response.json()["detail"]
    assert got.content == CONTENT


class FullStorage(FileStorage):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield Path("/dev/full")


class BrokenStorage(FileStorage):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield self.root / "no such folder" / user


async def upload(demo: Demo, method: str) -> httpx2.Response:
    if method == "put":
        return await demo.client.put("/files/a.bin", content=CONTENT, auth=ALICE)
    return await demo.client.post("/files", files={"x": ("a.bin", CONTENT)}, auth=ALICE)


@pytest.mark.parametrize("method", ["put", "post"])
async def test_full_disk_during_upload_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("upload_progress.demo.app.FileStorage", FullStorage)
    async with running(tmp_path) as demo:
        response = await upload(demo, method)

        assert await demo.file_names(ALICE) == []
    assert response.status_code == 507


@pytest.mark.parametrize("method", ["put", "post"])
async def test_other_disk_errors_propagate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("upload_progress.demo.app.FileStorage", BrokenStorage)
    async with running(tmp_path) as demo:
        with pytest.raises(FileNotFoundError):
            await upload(demo, method)


async def test_disconnected_client_leaves_no_file(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await call(demo, "PUT", "/files/a.bin", CONTENT, None, upload_id="gone")

        assert await state_of(demo, "gone") is UploadState.FAILED
        assert demo.partial_files() == []
        assert await demo.file_names(ALICE) == []


async def test_cancel_while_receiving_stops_the_upload(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        cancel = partial(demo.tracker.cancel, "unwanted", owner="alice")
        parts = (CONTENT, cancel, CONTENT, CONTENT)
        status, _ = await call(demo, "PUT", "/files/a.bin", *parts, upload_id="unwanted")

        assert await state_of(demo, "unwanted") is UploadState.CANCELLED
        assert demo.partial_files() == []
        assert await demo.file_names(ALICE) == []
    assert status == 409


async def test_cancel_while_hashing_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One second of hashing, so that a busy machine still observes the stage.
    monkeypatch.setattr(demo_uploads, "_HASHING_SPEEDUP", len(CONTENT) / 1_000_000)
    monkeypatch.setattr(demo_uploads, "_BLOCK_BYTES", len(CONTENT) // 50)
    statuses: list[int] = []

    async def put() -> None:
        status, _ = await call(demo, "PUT", "/files/a.bin", CONTENT, upload_id="unwanted")
        statuses.append(status)

    async def is_hashing() -> bool:
        page = await demo.tracker.list(owner="alice")
        return any(one.stage and one.stage.name == "hashing" for one in page.uploads)

    async with running(tmp_path, bytes_per_second=1_000_000) as demo:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put)
            await until(is_hashing)
            await demo.tracker.cancel("unwanted", owner="alice")

        assert demo.partial_files() == []
        assert await demo.file_names(ALICE) == []
    assert statuses == [409]


@pytest.mark.parametrize(
    ("rate", "path", "slowest"),
    [
        (1_000_000, "/files/a.bin", 1_000_000),
        (None, "/files/a.bin?sample", 4_000_000),
        (1_000_000, "/files/a.bin?sample", 1_000_000),
    ],
)
async def test_rate_limit_slows_reading(
    tmp_path: Path, rate: int | None, path: str, slowest: int
) -> None:
    async with running(tmp_path, bytes_per_second=rate) as demo:
        started_at = anyio.current_time()
        await demo.client.put(path, content=CONTENT, auth=ALICE)

    assert anyio.current_time() - started_at >= len(CONTENT) / slowest


async def test_settings_apply_to_page_middleware_and_routes(tmp_path: Path) -> None:
    variables = {"MOUNT_PATH": "/progress", "MIN_SIZE_BYTES": "1000"}
    settings = settings_from_environment(
        {f"UPLOAD_PROGRESS_{name}": text for name, text in variables.items()}
    )
    async with running(tmp_path, settings=settings) as demo:
        page = await demo.client.get("/", auth=ALICE)
        small = await demo.client.put("/files/a.bin", content=b"small", auth=ALICE)
        large = await demo.client.put("/files/b.bin", content=CONTENT, auth=ALICE)
        listed = (await demo.client.get("/progress/progress", auth=ALICE)).json()

    assert 'src="/progress"' in page.text
    assert "/progress/upload-progress.js" in page.text
    assert "upload-id" not in small.headers
    assert large.headers["link"].startswith("</progress/")
    assert [each["filename"] for each in listed["uploads"]] == ["b.bin"]


# --- authentication ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_program_gets_a_basic_challenge_and_browser_does_not(
    tmp_path: Path, method: str
) -> None:
    async with running(tmp_path) as demo:
        program = await demo.client.request(method, "/files")
        browser = await demo.client.request(method, "/files", headers=BROWSER)
        wrong = await demo.client.request(method, "/files", auth=("alice", "bob"))

    assert {response.status_code for response in (program, browser, wrong)} == {401}
    assert program.headers["www-authenticate"].startswith("Basic ")
    assert "www-authenticate" not in browser.headers


async def sign_in(demo: Demo, user: str = "alice", **fields: str) -> httpx2.Response:
    form = {"user": user, "password": user, **fields}
    return await demo.client.post("/login", data=form, headers=SAME_ORIGIN)


async def test_browser_session_lasts_until_sign_out(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        before = await demo.client.get("/")
        signed_in = await sign_in(demo)
        page = await demo.client.get("/")
        listed = await demo.client.get("/files")
        put = await demo.client.put("/files/a", content=b"x", headers=SAME_ORIGIN)
        out = await demo.client.post("/logout", headers=SAME_ORIGIN)
        after = await demo.client.get("/")

    cookie = signed_in.headers["set-cookie"]
    assert (before.status_code, before.headers["location"]) == (303, "/login")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/")
    flags = cookie.lower().split("; ")
    assert flags[1:] == ["path=/", f"max-age={12 * 3600}", "httponly", "samesite=lax"]
    assert "<b>alice</b>" in page.text
    assert (listed.status_code, put.status_code) == (200, 201)
    assert (out.status_code, after.status_code) == (303, 303)


async def test_cookie_set_over_https_is_secure(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        response = await demo.client.post(
            "https://demo/login",
            data={"user": "bob", "password": "bob"},
            headers={"origin": "https://demo"},
        )

    assert "; secure" in response.headers["set-cookie"]


@pytest.mark.parametrize("fields", [{"password": "bob"}, {"password": ""}, {"user": "mallory"}])
async def test_wrong_password_does_not_sign_in(tmp_path: Path, fields: dict[str, str]) -> None:
    async with running(tmp_path) as demo:
        response = await sign_in(demo, **fields)

    assert response.status_code == 403
    assert "Wrong name or password." in response.text
    assert "set-cookie" not in response.headers


async def test_too_large_sign_in_form_is_not_read_to_its_end(tmp_path: Path) -> None:
    form = b"user=alice&password=alice&more=" + b"x" * 5000
    async with running(tmp_path) as demo:
        status, _ = await call(demo, "POST", "/login", form, None, origin="http://demo")

    assert status == 403


@pytest.mark.parametrize("origin", ["http://evil", "null", "http://demo.evil", "http://demo:81"])
async def test_page_of_another_origin_cannot_act_for_a_user(tmp_path: Path, origin: str) -> None:
    foreign = {"origin": origin}
    async with running(tmp_path) as demo:
        await sign_in(demo)
        responses = [
            await demo.client.put("/files/a", content=b"x", headers=foreign),
            await demo.client.post("/files", files={"x": ("a", b"x")}, headers=foreign),
            await demo.client.post("/login", data={"user": "bob"}, headers=foreign),
            await demo.client.post("/logout", headers=foreign),
        ]

        assert await demo.file_names(ALICE) == []
    assert [response.status_code for response in responses] == [403] * 4


# --- the page ---------------------------------------------------------------------------------


async def test_page_has_no_inline_code_and_allows_no_other_origin(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await sign_in(demo)
        pages = [await demo.client.get(path) for path in ("/", "/login")]

    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert not re.search(r"<style|style=|\son\w+=|<script[^>]*>[^<]", page.text)


async def test_assets_exist_and_component_matches_its_integrity(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as demo:
        await sign_in(demo)
        page = (await demo.client.get("/")).text
        paths = [
            path for path in re.findall(r'(?:src|href)="(/[^"]+)"', page) if path != "/uploads"
        ]
        responses = {path: await demo.client.get(path) for path in paths}
        missing = await demo.client.get("/assets/other.js")

    assert len(responses) >= 4
    assert {response.status_code for response in responses.values()} == {200}
    assert missing.status_code == 404
    [component] = [response for path, response in responses.items() if "upload-progress.js" in path]
    digest = base64.b64encode(hashlib.sha384(component.content).digest()).decode()
    assert f'integrity="sha384-{digest}"' in page


@pytest.mark.parametrize(("path", "status"), [("/unknown", 404), ("/logout", 405)])
async def test_errors_of_the_framework_are_problem_documents(
    tmp_path: Path, path: str, status: int
) -> None:
    async with running(tmp_path) as demo:
        response = await demo.client.get(path)

    assert response.status_code == status
    assert response.json()["status"] == status
