"""``put --tus`` that goes on with the upload of an earlier run."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS
from tests._support.upload_watcher import ExampleServer, run_example
from upload_progress.cli.output import PlainOutput
from upload_progress.cli.put.files import find_files
from upload_progress.cli.put.unfinished import KEPT_SECONDS, UnfinishedUpload, state_folder
from upload_progress.cli.put.uploader import PutOptions, Uploader
from upload_progress.client import AsyncProgressClient

pytestmark = pytest.mark.anyio

# More than the system keeps on the way: a server goes on to read that after an interruption.
SIZE = 16_000_000
TARGET = "http://h/files/"
ADDRESS = f"{TARGET}1"


@pytest.fixture(scope="module")
def server() -> Iterator[ExampleServer]:
    with run_example("tus_server.py", bytes_per_second=SIZE // 2) as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def command(path: Path, server: ExampleServer, *options: str) -> subprocess.Popen[str]:
    """Start ``put --tus``, whose state is kept next to the file."""
    settings = {"UPLOAD_PROGRESS_BASIC": "alice:alice", "XDG_STATE_HOME": str(path.parent)}
    return subprocess.Popen(
        [*COMMAND, "put", "--tus", "--json", *options, str(path), f"{server.url}/files/"],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(sending: subprocess.Popen[str]) -> str:
    """Interrupt the command in the middle of the file; return what it says."""
    assert sending.stdout is not None
    next(line for line in sending.stdout if json.loads(line)["bytes_transferred"] > SIZE / 8)
    sending.send_signal(signal.SIGINT)
    _, errors = sending.communicate(timeout=DEADLINE_SECONDS)
    assert sending.returncode == 130
    return errors


def wait_for_pause(server: ExampleServer, upload_id: str) -> None:
    """Wait until the interrupted request is over.

    tuspyserver blocks its event loop while it waits for the lock of a file, up to 30 seconds.
    """
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while server.http.get(f"{server.url}/uploads/{upload_id}/progress").json()["state"] != "paused":
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_next_run_goes_on_where_the_server_is(path: Path, server: ExampleServer) -> None:
    memory = path.parent / "upload-progress" / "tus"
    with command(path, server) as sending:
        errors = interrupt(sending)
    [state] = memory.iterdir()
    found = json.loads(state.read_text())
    wait_for_pause(server, found["upload_id"])
    with command(path, server) as sending:
        output, resumed = sending.communicate(timeout=DEADLINE_SECONDS)

    assert "big.bin: interrupted, the same command goes on with it" in errors
    assert "1 file interrupted, after " in errors
    assert re.search(r"^big\.bin: continuing at \d+\.\d MB$", resumed, re.MULTILINE)
    assert sending.returncode == 0, resumed
    last = json.loads(output.splitlines()[-1])
    assert (last["upload_id"], last["state"]) == (found["upload_id"], "completed")
    assert server.http.get(found["address"]).content == path.read_bytes()
    assert list(memory.iterdir()) == []


def test_without_resume_nothing_is_remembered(path: Path, server: ExampleServer) -> None:
    with command(path, server, "--no-resume") as sending:
        errors = interrupt(sending)

    assert "big.bin: interrupted, cancelled on the server" in errors
    assert not (path.parent / "upload-progress").exists()


# --- with a simulated server ----------------------------------------------------------------------


async def send(path: Path, memory: Path, *patches: int) -> tuple[Uploader, str]:
    """Send the file to a server that answers ``PATCH`` with these statuses; return what is said."""
    statuses = list(patches)

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(201, headers={"location": ADDRESS})
        return httpx2.Response(statuses.pop(0) if request.method == "PATCH" else 404)

    err = io.StringIO()
    options = PutOptions(None, None, None, None, 1, uses_tus=True, memory=memory)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with AsyncProgressClient("http://h", http=http, retries=0) as client:
        output = PlainOutput(is_quiet=True, out=io.StringIO(), log=err, is_verbose=True)
        uploader = Uploader(client, options, output)
        with anyio.fail_after(DEADLINE_SECONDS):
            await uploader.send_all(find_files([str(path)], TARGET, has_one_target=True))
    return uploader, err.getvalue()


async def test_failed_upload_is_remembered_and_a_refused_one_is_not(
    path: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"

    await send(path, memory, 503)
    [state] = memory.iterdir()
    assert state.stat().st_mode & 0o777 == 0o600
    assert json.loads(state.read_text())["address"] == ADDRESS

    await send(path, memory, 422)
    assert list(memory.iterdir()) == []


async def test_memory_that_cannot_be_written_is_no_failure(path: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.touch()

    uploader, errors = await send(path, memory, 204)

    assert uploader.codes == [0]
    assert "big.bin: a later run cannot go on with it: " in errors


async def test_file_that_has_vanished_is_an_error_of_the_file(path: Path, tmp_path: Path) -> None:
    files = find_files([str(path)], TARGET, has_one_target=True)
    Path.unlink(path)
    options = PutOptions(None, None, None, None, 1, uses_tus=True, memory=tmp_path)
    err = io.StringIO()
    async with AsyncProgressClient("http://h") as client:
        output = PlainOutput(is_quiet=True, out=io.StringIO(), log=err)
        await Uploader(client, options, output).send_all(files)

    assert "big.bin: No such file or directory" in err.getvalue()


# --- the memory -----------------------------------------------------------------------------------


def test_changed_file_and_another_url_are_other_uploads(path: Path, tmp_path: Path) -> None:
    def memory(target: str = TARGET) -> Path:
        return UnfinishedUpload.of(path, target, tmp_path).memory

    first = memory()
    assert memory() == first
    assert memory("http://h/others/") != first
    os.utime(path, (0, 0))
    assert memory() != first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"address": "http://h.other/files/1", "upload_id": "u"}',
        '{"address": "https://h/files/1", "upload_id": "u"}',
    ],
    ids=["empty", "list", "no-address", "other-host", "other-scheme"],
)
def test_invalid_memory_is_ignored(path: Path, tmp_path: Path, content: str) -> None:
    unfinished = UnfinishedUpload.of(path, TARGET, tmp_path)
    assert unfinished.load() is None

    unfinished.memory.write_text(content)

    assert unfinished.load() is None


def test_uploads_that_were_left_too_long_ago_are_forgotten(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    old, other = (folder / f"{name}.json" for name in ("old", "other"))
    unfinished = UnfinishedUpload.of(path, TARGET, folder)
    unfinished.save(ADDRESS, "u")
    other.touch()
    old.touch()
    then = time.time() - KEPT_SECONDS - 60
    os.utime(old, (then, then))

    unfinished.save(ADDRESS, "v")

    assert unfinished.load() == (ADDRESS, "v")
    assert set(folder.iterdir()) == {unfinished.memory, other}
    unfinished.forget()
    unfinished.forget()
    assert unfinished.load() is None


def test_memory_is_in_the_state_folder_of_the_user() -> None:
    assert state_folder({}) == Path.home() / ".local" / "state" / "upload-progress" / "tus"
