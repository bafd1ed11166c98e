"""The demo application, called as a server would call it, on both event loops."""

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
from upload_progress.demo import uploads as receiving
from upload_progress.demo.app import MOST_BYTES, create_app
from upload_progress.demo.files import FileSpace

pytestmark = pytest.mark.anyio

ALICE = ("alice", "alice")
BOB = ("bob", "bob")
HERE = {"origin": "http://demo"}
BROWSER = {"user-agent": "Mozilla/5.0"}
CONTENT = bytes(range(256)) * 1000


@define
class Demo:
    """A demo in this process."""

    app: Starlette
    tracker: ProgressTracker
    client: httpx2.AsyncClient
    root: Path

    def leftovers(self) -> list[str]:
        """Return what lies where nothing should be once an upload has ended."""
        return [path.name for path in self.root.glob("*/incoming/*")]

    async def names(self, user: tuple[str, str]) -> list[str]:
        return [file["name"] for file in (await self.client.get("/files", auth=user)).json()]


@asynccontextmanager
async def running(
    root: Path, *, slow_bytes_per_second: int | None = None, most_bytes: int = MOST_BYTES
) -> AsyncIterator[Demo]:
    tracker = ProgressTracker()
    app = create_app(
        tracker,
        root=root,
        key=b"key",
        slow_bytes_per_second=slow_bytes_per_second,
        most_bytes=most_bytes,
    )
    transport = httpx2.ASGITransport(app=app)
    async with (
        tracker.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://demo") as client,
    ):
        yield Demo(app, tracker, client, root)


Part = bytes | Callable[[], Awaitable[object]] | None


async def call(demo: Demo, method: str, path: str, *parts: Part, **headers: str) -> tuple[int, str]:
    """Send a body part by part, as a server hands it over; return status and headers, or 0.

    A callable among the parts is called between two of them; None is a client that goes away.
    The client in ``Demo`` leaves its generators open on trio when a body is not read to its end.
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


async def test_a_file_comes_back_as_it_was_sent(tmp_path: Path) -> None:
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


async def test_each_user_has_a_space_of_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await demo.client.put("/files/a.bin", content=b"one", auth=ALICE)
        await demo.client.put("/files/a.bin", content=b"two", auth=ALICE)
        foreign = await demo.client.get("/files/a.bin", auth=BOB)
        listed = (await demo.client.get("/files", auth=ALICE)).json()

        assert await demo.names(BOB) == []
    assert foreign.status_code == 404
    assert [set(file) for file in listed] == [{"name", "size", "sha256", "uploaded_at"}]
    assert listed[0]["sha256"] == hashlib.sha256(b"two").hexdigest()


async def test_a_form_may_hold_several_files(tmp_path: Path) -> None:
    files = [("x", ("../a.bin", CONTENT)), ("x", ("b.txt", b"b"))]
    async with running(tmp_path) as demo:
        answer = await demo.client.post("/files", files=files, data={"note": "hi"}, auth=ALICE)

        assert sorted(await demo.names(ALICE)) == ["a.bin", "b.txt"]
        assert demo.leftovers() == []
    assert answer.status_code == 201
    assert [file["size"] for file in answer.json()] == [len(CONTENT), 1]


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
async def test_a_form_without_files_is_refused(
    tmp_path: Path, content_type: str, body: bytes, status: int
) -> None:
    async with running(tmp_path) as demo:
        answer = await demo.client.post(
            "/files", content=body, headers={"content-type": content_type}, auth=ALICE
        )

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/files/..%00", "/files/%2e%2e%5c"])
async def test_a_name_that_is_none_is_refused(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as demo:
        put = await demo.client.put(path, content=b"x", auth=ALICE)
        got = await demo.client.get(path, auth=ALICE)

    assert (put.status_code, got.status_code) == (422, 422)


@pytest.mark.parametrize(
    "headers", [{"content_length": "120"}, {}], ids=["announced", "as-it-comes"]
)
async def test_a_file_that_is_too_large_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path, most_bytes=100) as demo:
        body = (b"x" * 60, b"x" * 60)
        status, answered = await call(demo, "PUT", "/files/a.bin", *body, **headers)

        assert demo.leftovers() == []
        assert await demo.names(ALICE) == []
    assert status == 413
    assert "(b'connection', b'close')" in answered


async def test_what_the_disk_has_no_room_for_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, most_bytes=10**20) as demo:
        huge = {"content-length": str(10**18)}
        answer = await demo.client.put("/files/a.bin", content=b"x", headers=huge, auth=ALICE)

    assert answer.status_code == 507


class FullSpace(FileSpace):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield Path("/dev/full")


class BrokenSpace(FileSpace):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield self.root / "no such folder" / user


async def send(demo: Demo, way: str) -> httpx2.Response:
    if way == "put":
        return await demo.client.put("/files/a.bin", content=CONTENT, auth=ALICE)
    return await demo.client.post("/files", files={"x": ("a.bin", CONTENT)}, auth=ALICE)


@pytest.mark.parametrize("way", ["put", "post"])
async def test_a_disk_that_fills_up_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("upload_progress.demo.app.FileSpace", FullSpace)
    async with running(tmp_path) as demo:
        answer = await send(demo, way)

        assert await demo.names(ALICE) == []
    assert answer.status_code == 507


@pytest.mark.parametrize("way", ["put", "post"])
async def test_what_else_a_disk_refuses_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("upload_progress.demo.app.FileSpace", BrokenSpace)
    async with running(tmp_path) as demo:
        with pytest.raises(FileNotFoundError):
            await send(demo, way)


async def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await call(demo, "PUT", "/files/a.bin", CONTENT, None, upload_id="gone")

        assert await state_of(demo, "gone") is UploadState.FAILED
        assert demo.leftovers() == []
        assert await demo.names(ALICE) == []


async def test_cancelling_while_bytes_come_stops_it(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        cancel = partial(demo.tracker.cancel, "unwanted", owner="alice")
        parts = (CONTENT, cancel, CONTENT, CONTENT)
        status, _ = await call(demo, "PUT", "/files/a.bin", *parts, upload_id="unwanted")

        assert await state_of(demo, "unwanted") is UploadState.CANCELLED
        assert demo.leftovers() == []
        assert await demo.names(ALICE) == []
    assert status == 409


async def test_cancelling_while_it_is_hashed_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second of hashing: what is to be seen must not be over before a busy machine has looked.
    monkeypatch.setattr(receiving, "_HASHING_PACE", len(CONTENT) / 1_000_000)
    monkeypatch.setattr(receiving, "_SLICE_BYTES", len(CONTENT) // 50)
    statuses: list[int] = []

    async def upload() -> None:
        status, _ = await call(demo, "PUT", "/files/a.bin", CONTENT, upload_id="unwanted")
        statuses.append(status)

    async def is_hashing() -> bool:
        page = await demo.tracker.list(owner="alice")
        return any(one.stage and one.stage.name == "hashing" for one in page.uploads)

    async with running(tmp_path, slow_bytes_per_second=1_000_000) as demo:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upload)
            await until(is_hashing)
            await demo.tracker.cancel("unwanted", owner="alice")

        assert demo.leftovers() == []
        assert await demo.names(ALICE) == []
    assert statuses == [409]


async def test_reading_is_slowed_down_on_request(tmp_path: Path) -> None:
    async with running(tmp_path, slow_bytes_per_second=1_000_000) as demo:
        began = anyio.current_time()
        await demo.client.put("/files/a.bin", content=CONTENT, auth=ALICE)

    assert anyio.current_time() - began >= len(CONTENT) / 1_000_000


# --- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_program_is_asked_for_basic_and_a_browser_is_not(
    tmp_path: Path, method: str
) -> None:
    async with running(tmp_path) as demo:
        program = await demo.client.request(method, "/files")
        browser = await demo.client.request(method, "/files", headers=BROWSER)
        wrong = await demo.client.request(method, "/files", auth=("alice", "bob"))

    assert {answer.status_code for answer in (program, browser, wrong)} == {401}
    assert program.headers["www-authenticate"].startswith("Basic ")
    assert "www-authenticate" not in browser.headers


async def sign_in(demo: Demo, user: str = "alice", **fields: str) -> httpx2.Response:
    form = {"user": user, "password": user, **fields}
    return await demo.client.post("/login", data=form, headers=HERE)


async def test_a_browser_signs_in_once(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        before = await demo.client.get("/")
        signed_in = await sign_in(demo)
        page = await demo.client.get("/")
        listed = await demo.client.get("/files")
        put = await demo.client.put("/files/a", content=b"x", headers=HERE)
        out = await demo.client.post("/logout", headers=HERE)
        after = await demo.client.get("/")

    cookie = signed_in.headers["set-cookie"]
    assert (before.status_code, before.headers["location"]) == (303, "/login")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert "<b>alice</b>" in page.text
    assert (listed.status_code, put.status_code) == (200, 201)
    assert (out.status_code, after.status_code) == (303, 303)


async def test_over_https_the_cookie_is_for_https_only(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        answer = await demo.client.post(
            "https://demo/login",
            data={"user": "bob", "password": "bob"},
            headers={"origin": "https://demo"},
        )

    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("fields", [{"password": "bob"}, {"password": ""}, {"user": "mallory"}])
async def test_who_cannot_say_the_password_is_not_signed_in(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    async with running(tmp_path) as demo:
        answer = await sign_in(demo, **fields)

    assert answer.status_code == 403
    assert "do not belong together" in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_form_larger_than_a_sign_in_is_not_read_on(tmp_path: Path) -> None:
    form = b"user=alice&password=alice&more=" + b"x" * 5000
    async with running(tmp_path) as demo:
        status, _ = await call(demo, "POST", "/login", form, None, origin="http://demo")

    assert status == 403


@pytest.mark.parametrize("origin", ["http://evil", "null", "http://demo.evil", "http://demo:81"])
async def test_a_foreign_page_can_do_nothing_in_the_name_of_a_user(
    tmp_path: Path, origin: str
) -> None:
    foreign = {"origin": origin}
    async with running(tmp_path) as demo:
        await sign_in(demo)
        answers = [
            await demo.client.put("/files/a", content=b"x", headers=foreign),
            await demo.client.post("/files", files={"x": ("a", b"x")}, headers=foreign),
            await demo.client.post("/login", data={"user": "bob"}, headers=foreign),
            await demo.client.post("/logout", headers=foreign),
        ]

        assert await demo.names(ALICE) == []
    assert [answer.status_code for answer in answers] == [403] * 4


# --- the page ---------------------------------------------------------------------------------


async def test_the_page_allows_nothing_inline_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with running(tmp_path) as demo:
        await sign_in(demo)
        pages = [await demo.client.get(path) for path in ("/", "/login")]

    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert not re.search(r"<style|style=|\son\w+=|<script[^>]*>[^<]", page.text)


async def test_what_the_page_loads_is_there_and_the_component_is_the_one_it_names(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as demo:
        await sign_in(demo)
        page = (await demo.client.get("/")).text
        paths = [
            path for path in re.findall(r'(?:src|href)="(/[^"]+)"', page) if path != "/uploads"
        ]
        answers = {path: await demo.client.get(path) for path in paths}
        missing = await demo.client.get("/assets/other.js")

    assert len(answers) >= 4
    assert {answer.status_code for answer in answers.values()} == {200}
    assert missing.status_code == 404
    [component] = [answer for path, answer in answers.items() if "upload-progress.js" in path]
    digest = base64.b64encode(hashlib.sha384(component.content).digest()).decode()
    assert f'integrity="sha384-{digest}"' in page


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/logout", 405)])
async def test_what_the_framework_refuses_is_a_problem_document(
    tmp_path: Path, path: str, status: int
) -> None:
    async with running(tmp_path) as demo:
        answer = await demo.client.get(path)

    assert answer.status_code == status
    assert answer.json()["status"] == status
