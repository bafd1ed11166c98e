"""``upload-progress demo``: started, used with curl, and stopped."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS, DemoProcess, running_demo
from tests.conftest import RequireProgram

Curl = Callable[..., str]


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProcess]:
    with running_demo("--slow", "4M") as demo:
        yield demo


@pytest.fixture(scope="session")
def curl_path(require_program: RequireProgram) -> str:
    return require_program("curl", install="get it with: apt-get install curl")


@pytest.fixture
def curl(curl_path: str) -> Curl:
    """Run curl, and return what it prints."""

    def run(*arguments: str) -> str:
        command = [curl_path, "--silent", "--show-error", "--max-time", "30", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(6_000_000))
    return path


def progress(
    demo: DemoProcess, curl: Curl, upload_id: str, user: str = "alice"
) -> dict[str, object]:
    answer = json.loads(curl("-u", f"{user}:{user}", f"{demo.url}/uploads/{upload_id}/progress"))
    assert isinstance(answer, dict)
    return answer


def test_commands_in_the_greeting_work(demo: DemoProcess, curl: Curl, big: Path) -> None:
    lines = [line.strip() for line in demo.startup_message.splitlines() if "curl" in line]
    put, get = (shlex.split(line.replace("FILE", str(big)))[1:] for line in lines)

    assert "4.0 MB/s" in demo.startup_message
    assert "alice, bob" in demo.startup_message
    assert json.loads(curl(*put))["name"] == "big.bin"
    assert json.loads(curl(*get))["state"] == "completed"


def test_upload_is_followed_by_polling(
    demo: DemoProcess, curl: Curl, curl_path: str, big: Path
) -> None:
    upload = [curl_path, "-s", "-u", "alice:alice", "-T", str(big), "--limit-rate", "2M"]
    upload += ["-H", "Upload-Id: followed", f"{demo.url}/files/big.bin"]
    seen: list[dict[str, object]] = []
    with subprocess.Popen(upload, stdout=subprocess.PIPE) as sending:
        while sending.poll() is None:
            seen.append(progress(demo, curl, "followed"))
        assert sending.stdout is not None
        stored = json.loads(sending.stdout.read())
    last = progress(demo, curl, "followed")

    snapshots = [one for one in seen if "state" in one]
    sizes = [one["bytes_transferred"] for one in snapshots]
    assert stored["size"] == 6_000_000
    assert sizes == sorted(sizes, key=lambda size: int(str(size)))
    assert len(set(sizes)) >= 5
    assert any(one["bytes_per_second"] for one in snapshots)
    assert any(one["eta_seconds"] for one in snapshots)
    assert any(one["stage"] for one in snapshots)
    assert (last["state"], last["percent"], last["filename"]) == ("completed", 100.0, "big.bin")


def test_upload_of_another_user_is_not_found(demo: DemoProcess, curl: Curl, big: Path) -> None:
    put = ["-u", "alice:alice", "-T", str(big), "-H", "Upload-Id: mine"]
    curl(*put, f"{demo.url}/files/big.bin")

    assert progress(demo, curl, "mine")["state"] == "completed"
    assert progress(demo, curl, "mine", "bob") == progress(demo, curl, "unknown", "bob")
    assert progress(demo, curl, "mine", "bob")["status"] == 404


@pytest.mark.parametrize("path", ["/files", "/uploads/progress", "/uploads/x/progress"])
@pytest.mark.parametrize("credentials", [[], ["-u", "alice:bob"], ["-u", "mallory:mallory"]])
def test_unauthenticated_request_is_rejected(
    demo: DemoProcess, curl: Curl, path: str, credentials: list[str]
) -> None:
    answer = curl("--include", *credentials, f"{demo.url}{path}")

    assert answer.startswith("HTTP/1.1 401")
    assert "www-authenticate: Basic" in answer


def test_unauthenticated_upload_is_rejected_before_its_body(
    demo: DemoProcess, curl: Curl, big: Path
) -> None:
    answer = curl("--include", "-H", "Expect: 100-continue", "-T", str(big), f"{demo.url}/files/x")

    assert answer.startswith("HTTP/1.1 401")


ALICE = {"authorization": "Basic YWxpY2U6YWxpY2U="}


@contextmanager
def open_stream(url: str) -> Iterator[http.client.HTTPResponse]:
    """Yield the event stream of all uploads of alice, after it has begun."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_SECONDS)
    with closing(connection):
        headers = {**ALICE, "accept": "text/event-stream"}
        connection.request("GET", "/uploads/progress", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        yield response


@pytest.mark.parametrize(
    ("signal_number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["term", "int"]
)
def test_demo_stops_at_once_with_open_streams(signal_number: int, code: int) -> None:
    """`running_demo` fails if the server logs that it has waited for them in vain."""
    with running_demo() as demo, open_stream(demo.url) as stream:
        websocket = demo.url.replace("http", "ws") + "/uploads/progress"
        with connect(websocket, additional_headers=ALICE, proxy=None) as socket:
            assert json.loads(socket.recv())["type"] == "welcome"
            demo.process.send_signal(signal_number)

            assert demo.process.wait(DEADLINE_SECONDS) == code
            stream.read()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(DEADLINE_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_upload_that_outlasts_the_shutdown_gets_503_and_leaves_no_file(
    tmp_path: Path, curl_path: str, big: Path
) -> None:
    data = tmp_path / "data"
    with running_demo("--slow", "100k", "--data", str(data)) as demo:
        put = [curl_path, "-s", "-i", "-u", "alice:alice", "-T", str(big), f"{demo.url}/files/x"]
        with open_stream(demo.url) as stream, subprocess.Popen(put, stdout=subprocess.PIPE) as run:
            while b'"receiving"' not in stream.readline():
                pass
            demo.process.terminate()
            answer, _ = run.communicate(timeout=DEADLINE_SECONDS)

        assert demo.process.wait(DEADLINE_SECONDS) == 0
    assert b"HTTP/1.1 503" in answer
    assert [path for path in data.rglob("*") if path.is_file()] == [data / ".session-key"]


def test_received_files_are_kept_over_a_restart(tmp_path: Path, curl: Curl, big: Path) -> None:
    data = tmp_path / "data"
    with running_demo("--data", str(data)) as demo:
        assert str(data) in demo.startup_message
        first = curl("-u", "bob:bob", "-T", str(big), f"{demo.url}/files/big.bin")
    with running_demo("--data", str(data)) as demo:
        [listed] = json.loads(curl("-u", "bob:bob", f"{demo.url}/files"))

    assert listed == json.loads(first)
    assert stat.S_IMODE((data / ".session-key").stat().st_mode) == 0o600


def test_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = run("demo", "--port", port)

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert re.fullmatch(
        rf"upload-progress: cannot listen on 127\.0\.0\.1 port {port}: Address.*--port\.\n",
        finished.stderr,
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def test_path_that_is_not_a_folder_is_an_error(big: Path) -> None:
    finished = run("demo", "--port", "0", "--data", str(big))

    assert finished.returncode == 2
    assert finished.stderr == f"upload-progress: cannot write to {big}: File exists.\n"


def test_unknown_host_is_an_error() -> None:
    finished = run("demo", "--host", "no.such.host.invalid")

    assert finished.returncode == 2
    assert finished.stderr.startswith("upload-progress: cannot listen on no.such.host.invalid")


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--slow", "fast"],
        ["demo", "--port", "x"],
        ["demo", "--port", "65536"],
        ["no-such"],
        ["demo", "x"],
    ],
)
def test_invalid_arguments_are_a_usage_error(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_help_and_version_are_printed() -> None:
    assert "--slow" in run("demo", "--help").stdout
    assert "demo" in run().stdout
    assert re.match(r"\d+\.\d+", run("--version").stdout)


# Simulates an environment in which a package is not installed.
WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from upload_progress.cli import main
main()
"""


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("cyclopts", ["list"], "cli"),
        ("cyclopts", ["demo"], "demo"),
        ("uvicorn", ["demo"], "demo"),
        ("starlette", ["demo"], "demo"),
        ("python_multipart", ["demo"], "demo"),
        ("itsdangerous", ["demo"], "demo"),
        ("websockets", ["demo"], "demo"),
    ],
)
def test_missing_package_is_named_with_its_extra(
    package: str, arguments: list[str], extra: str
) -> None:
    finished = subprocess.run(
        [COMMAND[0], "-c", WITHOUT, package, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )

    assert finished.returncode == 2
    assert finished.stderr == (
        f"upload-progress: {package} is not installed: pip install 'upload-progress[{extra}]'\n"
    )
