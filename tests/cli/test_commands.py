"""The commands with the demo as their server: in a terminal, on a pipe, and with failures."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from rich.console import Console

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS, DemoProcess, running_demo
from upload_progress import UploadProgress
from upload_progress._model.fold import sum_of
from upload_progress.cli import commands, main, watch
from upload_progress.cli.formatting import UploadRow
from upload_progress.cli.options import ConnectionOptions
from upload_progress.cli.output import PlainOutput
from upload_progress.cli.stored_help import COMMANDS, WIDTH, stored_help
from upload_progress.client import AsyncProgressClient
from upload_progress.exceptions import UploadNotFound

ALICE = {"UPLOAD_PROGRESS_BASIC": "alice:alice"}
BIG = 2_000_000
# Variables that change the output; those of the machine that runs the tests are removed.
RELEVANT = ("CI", "NO_COLOR", "UPLOAD_PROGRESS_TOKEN", "UPLOAD_PROGRESS_BASIC")


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProcess]:
    with running_demo("--slow", "4M") as demo:
        yield demo


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(BIG))
    return path


def environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in RELEVANT}
    return {**kept, "NETRC": os.devnull, **more}


def run(*arguments: str | Path, env: Mapping[str, str] = ALICE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        env=environment(env),
    )


def piped(command: list[str], stdin: int | None = None) -> subprocess.Popen[str]:
    pipe, env = subprocess.PIPE, environment(ALICE)
    return subprocess.Popen(command, env=env, stdin=stdin, stdout=pipe, stderr=pipe, text=True)


def upload_of(result: str) -> str:
    found = re.search(r"id ([\w-]+)$", result.strip())
    assert found, result
    return found[1]


def on_terminal(*arguments: str, env: Mapping[str, str] = ALICE) -> tuple[int, str]:
    """Run the command in a terminal, and return its exit code and its output."""
    screen, slave = pty.openpty()
    drawn, deadline = b"", time.monotonic() + 2 * DEADLINE_SECONDS
    command = [*COMMAND, *arguments]
    settings = environment({"TERM": "xterm", **env})
    with subprocess.Popen(command, env=settings, stdin=slave, stdout=slave, stderr=slave) as child:
        os.close(slave)
        # Linux reports the end of a terminal as an error.
        with suppress(OSError):
            while True:
                readable, _, _ = select.select([screen], [], [], deadline - time.monotonic())
                assert readable, f"no output before the deadline: {drawn!r}"
                drawn += os.read(screen, 65536)
        child.wait(DEADLINE_SECONDS)
    os.close(screen)
    return child.returncode, drawn.decode()


def test_put_on_a_pipe_writes_lines_and_a_result(demo: DemoProcess, big: Path) -> None:
    finished = run("put", big, f"{demo.url}/files/")

    lines = finished.stderr.splitlines()
    assert finished.returncode == 0
    assert re.fullmatch(r"big\.bin: completed, 2\.0 MB, in [\d.]+ s, id [\w-]+\n", finished.stdout)
    assert len(lines) >= 2
    assert all(line.startswith("big.bin  ") for line in lines[:-1])
    assert re.fullmatch(r"1 file completed, 2\.0 MB in \d\.\d+ s, [\d.]+ [kM]B/s", lines[-1])
    assert "\x1b" not in finished.stderr
    assert "\r" not in finished.stderr


def test_put_says_each_retry_and_the_restart(tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(bytes(8_000_000))
    with running_demo("--slow", "2M") as demo:
        port = int(demo.url.rpartition(":")[2])
        with piped([*COMMAND, "put", str(path), f"{demo.url}/files/", "--retries", "9"]) as sending:
            assert sending.stderr is not None
            assert "long.bin  " in sending.stderr.readline()
            demo.process.kill()
            demo.process.wait(DEADLINE_SECONDS)
            lost = next(line for line in sending.stderr if "trying" in line)
            with running_demo(port=port):
                _, errors = sending.communicate(timeout=2 * DEADLINE_SECONDS)

    assert re.search(r"connection failed \(.+\), trying again in \d\.\d s \(1/9\)", lost)
    assert "long.bin: starting again from 0 bytes (attempt " in errors
    assert "1 file completed, 8.0 MB in " in errors
    assert sending.returncode == 0


def test_part_of_a_file_is_refused_by_the_demo(demo: DemoProcess, big: Path) -> None:
    finished = run("put", "--chunk-size", "500k", big, f"{demo.url}/files/")

    assert finished.returncode == 1
    assert "big.bin: The upload was rejected (400)" in finished.stderr
    assert "1 file failed, after " in finished.stderr


def test_standard_input_is_sent_and_details_are_said(demo: DemoProcess) -> None:
    command = [*COMMAND, "put", "-v", "-", f"{demo.url}/files/piped.bin"]
    with piped(command, stdin=subprocess.PIPE) as sending:
        output, errors = sending.communicate("x" * BIG, timeout=2 * DEADLINE_SECONDS)

    assert sending.returncode == 0, errors
    assert output.startswith("piped.bin: completed, 2.0 MB")
    assert f"piped.bin: sending to {demo.url}/files/piped.bin\n" in errors
    assert re.search(r"^piped\.bin: status 201, id [\w-]+$", errors, re.MULTILINE)


def test_interrupted_put_does_not_wait_for_standard_input(demo: DemoProcess) -> None:
    command = [*COMMAND, "put", "-", "--json", f"{demo.url}/files/waiting.bin"]
    with piped(command, stdin=subprocess.PIPE) as sending:
        assert sending.stdin is not None
        assert sending.stdout is not None
        sending.stdin.write("x" * 100_000)
        sending.stdin.flush()
        assert "receiving" in sending.stdout.readline()
        sending.send_signal(signal.SIGTERM)
        errors = sending.stderr.read() if sending.stderr else ""
        sending.wait(DEADLINE_SECONDS)

    assert sending.returncode == 130
    assert "waiting.bin: interrupted, cancelled on the server" in errors


def test_file_is_sent_as_a_form_with_a_header(demo: DemoProcess, big: Path) -> None:
    header = "Authorization: Basic YWxpY2U6YWxpY2U="
    arguments = ("--form", "file", "-q", "--header", header)
    finished = run("put", *arguments, big, f"{demo.url}/files", env={})

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("big.bin: completed, 2.0 MB")


async def watch_alice(
    url: str, upload_id: str | None = None, group: str | None = None, *, wait: bool = False
) -> tuple[int, str]:
    """Watch in this process, which is faster; return the exit code and the results."""
    out = io.StringIO()
    output = PlainOutput(is_quiet=True, out=out)
    server = url.replace("//", "//alice:alice@")
    code = await watch.watch(server, upload_id, group, ConnectionOptions(), output, wait=wait)
    return code, out.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_watch_waits_for_a_group_and_ends_with_it(demo: DemoProcess, tmp_path: Path) -> None:
    results: list[tuple[int, str]] = []

    async def wait_for_group() -> None:
        results.append(await watch_alice(demo.url, group="nightly", wait=True))

    with pytest.raises(UploadNotFound):
        await watch_alice(demo.url, group="nightly")
    with pytest.raises(UploadNotFound):
        await watch_alice(demo.url, "unknown")
    async with AsyncProgressClient(demo.url, auth=("alice", "alice")) as client:
        with anyio.fail_after(2 * DEADLINE_SECONDS):
            one = await client.create(filename="one", group="nightly")
            two = await client.create(filename="two", group="nightly")
            (tmp_path / "file").write_bytes(bytes(100_000))

            async def send(announced: UploadProgress) -> None:
                url = f"{demo.url}/files/{announced.filename}"
                await client.put(tmp_path / "file", url, upload_id=announced.upload_id)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_group)
                await send(one)
                await send(two)
    results.append(await watch_alice(demo.url, group="nightly"))

    for code, output in results:
        assert code == 0
        assert re.findall(r"^(\w+): completed", output, re.MULTILINE) == ["one", "two"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_watch_waits_for_an_upload(demo: DemoProcess, big: Path) -> None:
    results: list[tuple[int, str]] = []

    async def wait_for_upload() -> None:
        results.append(await watch_alice(demo.url, "later", wait=True))

    async with AsyncProgressClient(demo.url, auth=("alice", "alice")) as client:
        with anyio.fail_after(2 * DEADLINE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_upload)
                await client.put(big, f"{demo.url}/files/", upload_id="later")

    assert [code for code, _ in results] == [0]
    assert results[0][1].startswith("big.bin: completed")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_watch_refreshes_while_the_server_is_silent(
    demo: DemoProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0.01)
    refreshed = anyio.Event()

    class Refreshed(PlainOutput):
        def refresh(self, row: UploadRow) -> None:
            assert row.label == "silent.bin"
            refreshed.set()

    async with AsyncProgressClient(demo.url, auth=("alice", "alice")) as client:
        upload = await client.create(filename="silent.bin")
        server = demo.url.replace("//", "//alice:alice@")
        output = Refreshed(is_quiet=True, out=io.StringIO())
        with anyio.fail_after(DEADLINE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    watch.watch, server, upload.upload_id, None, ConnectionOptions(), output
                )
                await refreshed.wait()
                await client.cancel(upload.upload_id)


def test_put_sends_a_folder_as_a_group(demo: DemoProcess, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(300_000))
    arguments = ("--group", "release", "--parallel", "2", "--json")
    finished = run("put", *arguments, tmp_path, f"{demo.url}/files/")
    listed = run("list", demo.url, "--group", "release", "--state", "completed")

    snapshots = [json.loads(line) for line in finished.stdout.splitlines()]
    ends = {each["filename"] for each in snapshots if each["state"] == "completed"}
    assert finished.returncode == 0, finished.stderr
    assert ends == {"a", "b", "c"}
    assert len(re.findall(r"completed  100 %  [abc]", listed.stdout)) == 3
    assert listed.stdout.endswith("3 uploads, 900.0 kB received\n")


def test_list_tells_that_there_are_more_uploads_than_were_summed() -> None:
    total = evolve(sum_of([]), uploads=2000, bytes_transferred=10, approximate=True)

    assert watch._table([], total) == ["more than 2000 uploads, 10 B received"]


def test_skipped_hidden_files_are_counted(tmp_path: Path) -> None:
    for name in ("a", ".env", ".netrc"):
        (tmp_path / name).touch()

    said = run("put", "--dry-run", tmp_path, "http://127.0.0.1:9/files/")
    quiet = run("put", "-q", "--dry-run", tmp_path, "http://127.0.0.1:9/files/")

    assert said.stderr == "hidden files skipped: 2 (--hidden sends them)\n"
    assert said.stdout == quiet.stdout
    assert quiet.stderr == ""


def test_dry_run_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(2000))
    (tmp_path / ".b").write_bytes(bytes(10))
    gone = "http://ann:s3cret@127.0.0.1:1/files/"
    finished = run("put", "-q", "--dry-run", "--hidden", tmp_path, gone)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines() == [
        ".b: 10 B, would be sent to http://127.0.0.1:1/files/.b",
        "a: 2.0 kB, would be sent to http://127.0.0.1:1/files/a",
    ]


def test_put_in_a_terminal_draws_bars_and_prints_results(demo: DemoProcess, big: Path) -> None:
    code, drawn = on_terminal("put", str(big), f"{demo.url}/files/")

    assert code == 0
    assert "━" in drawn
    assert "\x1b[" in drawn
    assert re.search(r"\d %", drawn)
    assert "big.bin: completed, 2.0 MB" in drawn


def test_no_color_disables_colors(demo: DemoProcess, big: Path) -> None:
    _, drawn = on_terminal("put", str(big), f"{demo.url}/files/", env={**ALICE, "NO_COLOR": "1"})

    assert "━" in drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", drawn)


def test_watch_list_and_cancel_an_ended_upload(demo: DemoProcess, big: Path) -> None:
    upload_id = upload_of(run("put", "--progress=none", big, f"{demo.url}/files/").stdout)

    watched = run("watch", demo.url, upload_id)
    by_link = run("watch", f"{demo.url}/uploads/{upload_id}/progress", "--json")
    listed = run("list", demo.url, "--json")
    cancelled = run("cancel", demo.url, upload_id)
    elsewhere = run("cancel", demo.url, "unknown")

    assert (watched.returncode, watched.stderr) == (0, "")
    assert watched.stdout.startswith("big.bin: completed, 2.0 MB")
    assert json.loads(by_link.stdout)["upload_id"] == upload_id
    assert upload_id in [json.loads(line)["upload_id"] for line in listed.stdout.splitlines()]
    assert cancelled.returncode == 1
    assert "already ended: it is completed" in cancelled.stderr
    assert (elsewhere.returncode, elsewhere.stderr) == (
        1,
        "upload-progress: There is no such upload.\n",
    )


def test_cancel_ends_put_and_watch(tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(bytes(50_000_000))
    with running_demo("--slow", "1M") as demo:
        put = [*COMMAND, "put", "--id", "long", str(path), f"{demo.url}/files/"]
        watch = [*COMMAND, "watch", "--json", demo.url]
        with piped(watch) as watching, piped(put) as sending:
            assert watching.stdout is not None
            assert '"receiving"' in watching.stdout.readline()
            cancelled = run("cancel", f"{demo.url}/uploads/long/progress")
            _, errors = sending.communicate(timeout=DEADLINE_SECONDS)
            watching.send_signal(signal.SIGINT)
            seen, _ = watching.communicate(timeout=DEADLINE_SECONDS)
        alone = run("watch", demo.url, "long")
        first = run("list", demo.url)

    assert cancelled.stdout == "long: cancelled\n"
    assert sending.returncode == 1
    assert "long.bin: The upload was cancelled by its owner." in errors
    assert watching.returncode == 130
    assert '"cancelled"' in seen
    assert alone.returncode == 1
    assert "long.bin: cancelled (" in alone.stdout
    assert "\n1 upload, " in first.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_put_cancels_on_the_server(tmp_path: Path, number: signal.Signals) -> None:
    """Also if the whole file is on its way: the server would complete it. No file follows."""
    for name in ("long.bin", "next.bin"):
        (tmp_path / name).write_bytes(bytes(2_000_000))
    with running_demo("--slow", "200k") as demo:
        options = ["--json", "--parallel", "1"]
        with piped([*COMMAND, "put", *options, str(tmp_path), f"{demo.url}/files/"]) as sending:
            assert sending.stdout is not None
            assert "receiving" in sending.stdout.readline()
            sending.send_signal(number)
            _, errors = sending.communicate(timeout=DEADLINE_SECONDS)
        listed = run("list", demo.url)

    assert sending.returncode == 130
    assert "upload-progress: long.bin: interrupted, cancelled on the server\n" in errors
    assert "next.bin" not in errors
    assert "1 file cancelled, 1 not started, after " in errors
    assert re.search(r"cancelled .*long\.bin .*The owner cancelled the upload\.", listed.stdout)
    assert "\n1 upload, " in listed.stdout


def test_closed_pipe_does_not_end_put(tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(bytes(4_000_000))
    with running_demo("--slow", "2M") as demo:
        put = [*COMMAND, "put", "--id", "x", "--json", str(path), f"{demo.url}/files/"]
        with piped(put) as sending:
            assert sending.stdout is not None
            assert sending.stdout.readline()
            sending.stdout.close()
            assert sending.stderr is not None
            errors = sending.stderr.read()
            sending.wait(DEADLINE_SECONDS)
        watched = run("watch", demo.url, "x")

    assert (sending.returncode, watched.returncode) == (0, 0)
    assert re.fullmatch(r"1 file completed, 4\.0 MB in .*\n", errors)


def test_closed_pipe_ends_watch_and_list(demo: DemoProcess, big: Path) -> None:
    run("put", big, f"{demo.url}/files/")
    watch = [*COMMAND, "watch", "--json", demo.url]
    listing = [*COMMAND, "list", demo.url]
    for command in (watch, listing):
        with piped(command) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
            process.wait(DEADLINE_SECONDS)

        assert process.returncode == 0


def test_interrupt_outside_of_a_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["upload-progress", "list"])

    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code == 130


def test_closed_pipe_outside_of_a_command_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> int:
        raise BrokenPipeError

    monkeypatch.setattr(commands, "run", broken)
    monkeypatch.setattr(sys, "argv", ["upload-progress", "list"])
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as left:
            main()

    assert left.value.code == 0


def test_too_large_file_is_rejected(demo: DemoProcess, tmp_path: Path) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(30_000_000_000)
    finished = run("put", "--retries", "0", path, f"{demo.url}/files/")

    assert finished.returncode == 1
    assert "huge.bin: The upload was rejected (413)" in finished.stderr


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({}, 4),
        ({"UPLOAD_PROGRESS_BASIC": "alice:s3cret"}, 4),
        ({"UPLOAD_PROGRESS_TOKEN": "s3cret"}, 4),
        ({"UPLOAD_PROGRESS_BASIC": "s3cret"}, 2),
    ],
)
def test_failed_authentication_names_the_environment_variable(
    demo: DemoProcess, big: Path, env: dict[str, str], code: int
) -> None:
    for command in (["put", str(big), f"{demo.url}/files/"], ["list", demo.url]):
        finished = run(*command, env=env)

        assert finished.returncode == code
        assert "UPLOAD_PROGRESS_BASIC" in finished.stderr
        assert "s3cret" not in finished.stderr


def test_credentials_in_the_url_are_used_and_not_printed(demo: DemoProcess, big: Path) -> None:
    url = demo.url.replace("//", "//alice:alice@")
    good = run("put", big, f"{url}/files/", env={})
    bad = run("put", big, f"{url.replace('alice@', 's3cret@')}/files/", env={})

    assert good.returncode == 0, good.stderr
    assert bad.returncode == 4
    assert "s3cret" not in bad.stderr


@pytest.mark.parametrize("command", ["put", "watch", "list", "cancel", "doctor"])
def test_missing_server_is_unreachable(command: str, big: Path) -> None:
    gone = "http://127.0.0.1:1/"
    arguments = {"put": [str(big), gone], "cancel": [gone, "x"]}.get(command, [gone])
    finished = run(command, *arguments, "--retries", "0")

    assert finished.returncode == 3
    assert "cannot be reached: Connection refused" in finished.stderr


def test_wrong_mount_is_an_error_with_a_hint(demo: DemoProcess) -> None:
    finished = run("list", demo.url, "--mount", "/elsewhere")
    found = run("list", "http://127.0.0.1:1", "--mount", f"{demo.url}/uploads")

    insecure = run("list", demo.url, "--insecure", "--mount", "/uploads")

    assert insecure.returncode == 0
    assert finished.returncode == 2
    assert "If the progress routes are mounted elsewhere, set --mount /path." in finished.stderr
    assert found.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["put", "x"], "needs at least one file, and the URL as the last argument"),
        (["put", "--parallel", "0", "x", "http://h/"], "--parallel"),
        (["put", "--chunk-size", "big", "x", "http://h/"], "chunk-size"),
        (["put", "--progress", "loud", "x", "http://h/"], "progress"),
        (["put", "--id", "x", str(Path(__file__).parent), "http://h/"], "--id"),
        (["watch", "nowhere"], "must begin with http"),
        (["list", "http://h", "--state", "lost"], "state"),
        (["list", "http://h", "--cacert", os.devnull], "cannot be used as a certificate file"),
        (["cancel", "http://h"], "needs the ids of the uploads, or the URL of one"),
        (["put", "--header", "x", __file__, "http://h/"], "--header: must be 'Name: value'"),
        (["put", "-", "http://h/"], "must contain the name of the file"),
        (["nosuch"], "Unknown command"),
        (["list"], "requires an argument"),
    ],
)
def test_invalid_arguments_are_a_usage_error(arguments: list[str], text: str) -> None:
    finished = run(*arguments)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("upload-progress: ")
    assert text in finished.stderr


LOADED = """
import sys
from upload_progress.cli import main
try:
    main()
finally:
    print("LOADED", *sys.modules)
"""
OPTION = re.compile(r"(?<![\w-])--[a-z-]+")
LARGE_PACKAGES = {
    "cyclopts",
    "rich",
    "attr",
    "httpx2",
    "httpcore2",
    "starlette",
    "uvicorn",
    "wsproto",
    "markdown_it",
}
# The whole of this package, and the event loop.
LARGE_PACKAGES |= {"upload_progress.tracker", "upload_progress.asgi", "anyio", "asyncio"}


@pytest.mark.parametrize("arguments", [["--help"], ["put", "--help"]])
def test_help_imports_no_large_package(arguments: list[str]) -> None:
    run = [sys.executable, "-c", LOADED, *arguments]
    finished = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)

    loaded = finished.stdout.partition("LOADED ")[2].split()
    assert "Usage: upload-progress" in finished.stdout
    assert {"upload_progress.cli", *LARGE_PACKAGES} & set(loaded) == {"upload_progress.cli"}


# What put does not need, with a share of the start-up time: the server, bars of a terminal, and the
# blocking client with its threads. What dependencies import depends on their versions.
NOT_FOR_PUT = {
    "starlette",
    "upload_progress.cli.progress",
    "upload_progress.client.sync_client",
    "upload_progress.tracker",
    "uvicorn",
    "wsproto",
}
MOST_MODULES = 45
UNUSED_PACKAGES = {"trio", "h2"}


def test_put_imports_only_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    command = ("put", "--dry-run", str(tmp_path / "a.bin"), "http://127.0.0.1:9/")
    run = [sys.executable, "-c", LOADED, *command]
    finished = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)

    loaded = finished.stdout.partition("LOADED ")[2].split()
    assert "upload_progress.client.upload" in loaded
    assert NOT_FOR_PUT & set(loaded) == set()
    assert len([name for name in loaded if name.startswith("upload_progress")]) <= MOST_MODULES


def test_put_imports_no_package_because_it_is_installed(demo: DemoProcess, big: Path) -> None:
    """httpx2 would import trio and h2; without them, a put starts in three quarters of the time."""
    run = [sys.executable, "-c", LOADED, "put", str(big), f"{demo.url}/files/"]
    finished = subprocess.run(
        run, check=True, capture_output=True, text=True, timeout=60, env=environment(ALICE)
    )

    loaded = set(finished.stdout.partition("LOADED ")[2].split())
    assert {"httpcore2", "anyio"} <= loaded
    assert {name for name in UNUSED_PACKAGES if find_spec(name)} == UNUSED_PACKAGES
    assert UNUSED_PACKAGES & loaded == set()


def test_completion_is_installed_for_the_shell(tmp_path: Path) -> None:
    settings = {"SHELL": "/bin/bash", "HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    finished = run("--install-completion", env=settings)

    assert finished.returncode == 0, finished.stderr
    assert any("--exclude" in path.read_text() for path in tmp_path.rglob("upload-progress"))


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_stored_help_names_every_option(command: tuple[str, ...]) -> None:
    text = io.StringIO()
    commands.register_completion()
    commands.app.help_print(command, console=Console(file=text, width=WIDTH))

    stored = stored_help([*command, "--help"], "utf-8")

    assert stored is not None
    assert OPTION.findall(stored) == OPTION.findall(text.getvalue())


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [
        (["put"], "utf-8"),
        (["put", "--help", "x"], "utf-8"),
        (["nosuch", "-h"], "utf-8"),
        ([], "ascii"),
    ],
)
def test_other_arguments_and_encodings_have_no_stored_help(
    arguments: list[str], encoding: str
) -> None:
    assert stored_help(arguments, encoding) is None
