from __future__ import annotations

import io
import re
from pathlib import Path, PurePosixPath

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    URL as SERVER,
)
from tests._support.recording_server import (
    RecordingServer,
    Reply,
    client_for,
    json_reply,
    make_snapshot,
    problem_reply,
)
from upload_progress import UploadProgress, UploadState, encode_json
from upload_progress.cli.formatting import UploadRow
from upload_progress.cli.output import PlainOutput
from upload_progress.cli.put import uploader as uploader_module
from upload_progress.cli.put.files import STANDARD_INPUT, FileToUpload, HiddenFiles, find_files
from upload_progress.cli.put.uploader import PutOptions, Uploader
from upload_progress.client import AsyncProgressClient
from upload_progress.exceptions import InvalidValue

URL = "http://h/files/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "sub/b", "sub/c"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folder_is_expanded_to_its_files(folder: Path) -> None:
    files = find_files([str(folder), str(folder / "sub/b")], URL)

    assert [(each.name, each.target) for each in files] == [
        ("a", "http://h/files/a"),
        ("sub/b", "http://h/files/sub/b"),
        ("sub/c", "http://h/files/sub/c"),
        ("b", "http://h/files/b"),
    ]


def test_hidden_files_of_a_folder_are_sent_on_request_only(folder: Path) -> None:
    for name in (".env", ".git/config", "sub/.cache"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)

    skipped: list[PurePosixPath] = []
    shown = [each.name for each in find_files([str(folder)], URL, on_skipped=skipped.append)]
    every = [each.name for each in find_files([str(folder)], URL, hidden=HiddenFiles.SEND)]
    given = [each.name for each in find_files([str(folder / ".env")], URL)]

    assert shown == ["a", "sub/b", "sub/c"]
    assert every == [".env", ".git/config", "a", "sub/.cache", "sub/b", "sub/c"]
    assert given == [".env"]
    assert [str(each) for each in skipped] == [".env", ".git/config", "sub/.cache"]


def test_empty_folder_has_no_hidden_file_either(folder: Path) -> None:
    with pytest.raises(InvalidValue, match=r"contains no file$"):
        find_files([str(folder / "empty")], URL, hidden=HiddenFiles.SEND)


def test_single_file_is_sent_to_the_given_url(folder: Path) -> None:
    [file] = find_files([str(folder / "a")], "http://ann:pw@h/other")

    assert file.target == "http://h/other"
    assert "pw" not in repr(file)


@pytest.mark.parametrize(
    ("exclude", "names"),
    [
        (["b"], ["a", "sub/c"]),
        (["sub/*"], ["a"]),
        (["sub"], ["a"]),
        (["?"], []),
        (["sub/b", "a"], ["sub/c"]),
        (["x*"], ["a", "sub/b", "sub/c"]),
    ],
)
def test_excluded_files_of_a_folder_are_not_sent(
    folder: Path, exclude: list[str], names: list[str]
) -> None:
    paths = [str(folder), __file__]

    found = [each.name for each in find_files(paths, URL, exclude=exclude)]

    assert found == [*names, Path(__file__).name]


def test_form_is_sent_to_the_given_url(folder: Path) -> None:
    files = find_files([str(folder)], "http://h/form", has_one_target=True)

    assert [each.name for each in files] == ["a", "sub/b", "sub/c"]
    assert {each.target for each in files} == {"http://h/form"}


@pytest.mark.parametrize(
    ("url", "has_one_target", "name"),
    [
        ("http://h/files/x.tar", False, "x.tar"),
        ("http://h/files/", True, "standard input"),
    ],
)
def test_standard_input_is_sent_to_the_given_url(
    url: str, name: str, *, has_one_target: bool
) -> None:
    [file] = find_files([STANDARD_INPUT], url, has_one_target=has_one_target)

    assert file == FileToUpload(None, name, url)


@pytest.mark.parametrize(
    ("names", "url", "text"),
    [
        ([STANDARD_INPUT], URL, "URL: must contain the name of the file"),
        ([STANDARD_INPUT, __file__], URL, "standard input: is sent alone"),
    ],
)
def test_standard_input_needs_a_name_and_is_alone(names: list[str], url: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        find_files(names, url)


@pytest.mark.parametrize(
    ("names", "url", "text"),
    [
        (["missing"], URL, "missing: No such file"),
        (["empty"], URL, "contains no file; hidden files are sent with --hidden"),
        (["a", "sub/b"], "http://h/x", "must end with /"),
        (["sub"], "http://h/x", "must end with /"),
        (["a", "a"], URL, "would overwrite"),
        (["a"], "h/x", "URL: must begin with"),
    ],
)
def test_invalid_arguments_are_rejected(
    folder: Path, names: list[str], url: str, text: str
) -> None:
    with pytest.raises(InvalidValue, match=text):
        find_files([str(folder / name) for name in names], url)


OPTIONS = PutOptions(None, None, None, None, 4)
RUNNING = make_snapshot(UploadState.RECEIVING)


async def interrupt(client: AsyncProgressClient, progress: UploadProgress | None) -> str:
    """Cancel one upload that runs, and return what is said about it."""
    log = io.StringIO()
    uploader = Uploader(client, OPTIONS, PlainOutput(log=log))
    uploader._rows.append(UploadRow("a.bin", progress=progress))
    with anyio.fail_after(10):
        await uploader.cancel_all()
    return log.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (json_reply(make_snapshot(UploadState.CANCELLED)), "interrupted, cancelled on the server"),
        (httpx2.ConnectError("gone"), "not cancelled on the server: .* gone"),
    ],
)
async def test_interruption_says_what_the_server_has_done(reply: Reply, text: str) -> None:
    client = client_for(RecordingServer(api_replies=[reply]))

    assert re.search(text, await interrupt(client, RUNNING))


@pytest.mark.anyio
async def test_interruption_says_that_it_was_too_late() -> None:
    ended = problem_reply(409, "upload_ended")
    server = RecordingServer(api_replies=[ended, json_reply(make_snapshot(UploadState.COMPLETED))])

    assert "too late, the upload is completed" in await interrupt(client_for(server), RUNNING)


@pytest.mark.anyio
async def test_interruption_of_an_upload_that_the_server_has_not_reported() -> None:
    assert "has not reported" in await interrupt(client_for(RecordingServer()), None)


@pytest.mark.anyio
async def test_interruption_does_not_wait_for_a_server_that_does_not_respond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploader_module, "CANCEL_SECONDS", 0.01)
    hang = httpx2.MockTransport(lambda _request: anyio.sleep_forever())  # type: ignore[arg-type]  # no response
    http = httpx2.AsyncClient(transport=hang)

    said = await interrupt(AsyncProgressClient(SERVER, http=http), RUNNING)

    assert "the server has not confirmed" in said


@pytest.mark.anyio
async def test_failure_that_the_interruption_causes_is_not_reported(tmp_path: Path) -> None:
    path, log = tmp_path / "a.bin", io.StringIO()
    path.write_bytes(b"abc")
    async with client_for(RecordingServer([problem_reply(409, "cancelled")])) as client:
        uploader = Uploader(client, OPTIONS, PlainOutput(log=log))
        await uploader.cancel_all()
        file = FileToUpload(path, "a.bin", f"{SERVER}/files/a.bin")
        limiter = anyio.CapacityLimiter(1)
        await limiter.acquire_on_behalf_of(file)
        await uploader._send(file, UploadRow("a.bin"), limiter)

    assert (log.getvalue(), uploader.codes) == ("", [])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answered", "summary"),
    [
        (
            False,
            "1 file completed, 1 failed, 1 cancelled, 2 not started, 3 B in 1.0 s, 3 B/s",
        ),
        (True, "2 files completed, 1 failed, 2 not started, 6 B in 1.0 s, 6 B/s"),
    ],
)
async def test_summary_after_an_interruption_says_what_became_of_each_file(
    tmp_path: Path, *, answered: bool, summary: str
) -> None:
    """Also of a file that the server completes while it is to be cancelled."""
    for name in "abcde":
        (tmp_path / name).write_bytes(b"abc")
    running, cancelled = anyio.Event(), anyio.Event()

    async def respond(request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            cancelled.set()
            return httpx2.Response(202, content=encode_json(make_snapshot(UploadState.CANCELLED)))
        if request.method == "GET":
            return httpx2.Response(404)
        if request.url.path.endswith("c"):
            running.set()
            await cancelled.wait()
            return httpx2.Response(201 if answered else 409)
        return httpx2.Response(422 if request.url.path.endswith("b") else 201)

    log, http = io.StringIO(), httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    options = PutOptions(None, None, None, None, 1)
    uploader = Uploader(
        AsyncProgressClient(SERVER, http=http), options, PlainOutput(log=log, out=log)
    )
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(uploader.send_all, find_files([str(tmp_path)], URL))
            await running.wait()
            uploader._rows[0].progress = RUNNING
            await uploader.cancel_all()

    assert uploader.summary(1) == summary


class CountingOutput(PlainOutput):
    """Counts how often a row is shown although nothing has changed."""

    count = 0
    enough = anyio.Event()

    def refresh(self, row: UploadRow) -> None:
        super().refresh(row)
        CountingOutput.count += 1
        if CountingOutput.count > 3:
            CountingOutput.enough.set()


@pytest.mark.anyio
async def test_running_uploads_are_shown_while_the_server_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploader_module, "REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(CountingOutput, "count", 0)
    monkeypatch.setattr(CountingOutput, "enough", anyio.Event())
    (tmp_path / "a.bin").write_bytes(b"abc")

    async def respond(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await CountingOutput.enough.wait()
        return httpx2.Response(201 if request.method == "PUT" else 404)

    log, http = io.StringIO(), httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    uploader = Uploader(
        AsyncProgressClient(SERVER, http=http), OPTIONS, CountingOutput(log=log, out=log)
    )
    with anyio.fail_after(10):
        await uploader.send_all(find_files([str(tmp_path / "a.bin")], URL))

    assert CountingOutput.count > 3
    assert uploader.codes == [0]
