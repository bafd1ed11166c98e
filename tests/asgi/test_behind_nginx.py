"""Behind a real nginx with the configuration of the server guide."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests.conftest import RequireProgram
from tests.test_examples import BODY, body_in_parts, wait_for_bytes

GUIDE = (ROOT / "docs/server-guide.md").read_text(encoding="utf-8")
LOCATIONS = GUIDE.partition("```nginx\n")[2].partition("```")[0]
STOP_SECONDS = 10
# The body takes longer than a second, below which ``arrival`` is not reported.
RATE, SEND_SECONDS = "1M", 60
# Settings of a distribution's nginx, with all paths in a folder of the test.
CONFIGURATION = """
USER
pid FOLDER/pid;
error_log FOLDER/error.log;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    server {
        listen 127.0.0.1:PORT;
        LOCATIONS
    }
}
"""


@pytest.fixture
def nginx(require_program: RequireProgram) -> str:
    """Return the path of nginx."""
    install = "install nginx with your system's package manager"
    return require_program("nginx", "/usr/sbin/nginx", install=install)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def run_behind_nginx(nginx: str, folder: Path, locations: str = LOCATIONS) -> Iterator[str]:
    """Run the quickstart behind nginx; yield the URL of nginx."""
    with run_python_server("examples/quickstart.py", "--port", "0", cwd=ROOT) as backend:
        port = free_port()
        text = CONFIGURATION.replace("LOCATIONS", locations)
        text = text.replace("http://127.0.0.1:8000", backend).replace("PORT", str(port))
        text = text.replace("USER", "user root;" if os.geteuid() == 0 else "")
        file = folder / "nginx.conf"
        file.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
        command = [nginx, "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]
        # The command returns once nginx listens, and nginx continues in the background.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([*command, "-s", "stop"], check=True, timeout=STOP_SECONDS)


def test_progress_passes_nginx(nginx: str, tmp_path: Path) -> None:
    upload_id, states = str(uuid.uuid4()), list[object]()
    with (
        run_behind_nginx(nginx, tmp_path) as url,
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        headers = {"Upload-Id": upload_id, "Content-Length": str(len(BODY))}
        sent = httpx2.put(
            f"{url}/files/a", content=body_in_parts(client, upload_id, states), headers=headers
        )
        end = client.get(f"/uploads/{upload_id}/progress").json()

    assert sent.status_code == 200
    assert states == ["receiving", "receiving"]
    assert end["state"] == "completed"


def test_buffering_proxy_is_reported(nginx: str, tmp_path: Path) -> None:
    """By an upload that arrives faster than a network is: a busy machine may need several."""
    buffering = LOCATIONS.replace("proxy_request_buffering off", "proxy_request_buffering on")
    upload_id, seen, arrival = "", list[int](), None
    deadline = time.monotonic() + SEND_SECONDS

    def body(client: httpx2.Client) -> Iterator[bytes]:
        yield BODY[:2_000_000]
        seen.append(client.get(f"/uploads/{upload_id}/progress").status_code)
        yield BODY[2_000_000:]

    with (
        run_behind_nginx(nginx, tmp_path, buffering) as url,
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        while arrival is None and time.monotonic() < deadline:
            upload_id = str(uuid.uuid4())
            headers = {"Upload-Id": upload_id, "Content-Length": str(len(BODY))}
            httpx2.put(f"{url}/files/a", content=body(client), headers=headers, timeout=30)
            arrival = client.get(f"/uploads/{upload_id}/progress").json()["arrival"]

    assert buffering != LOCATIONS
    assert set(seen) == {404}
    assert arrival == "buffered"


def test_configuration_of_the_guide_streams(
    nginx: str, require_program: RequireProgram, tmp_path: Path
) -> None:
    """With one line of the guide's configuration, bytes arrive as the client sends them."""
    curl = require_program("curl", install="install curl with your system's package manager")
    upload_id, file = str(uuid.uuid4()), tmp_path / "file"
    file.write_bytes(BODY)
    with (
        run_behind_nginx(nginx, tmp_path) as url,
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        send = [curl, "--silent", "--fail", "--limit-rate", RATE, "-H", f"Upload-Id: {upload_id}"]
        subprocess.run([*send, "-T", file, f"{url}/files/a"], check=True, timeout=SEND_SECONDS)
        end = client.get(f"/uploads/{upload_id}/progress").json()

    assert "proxy_request_buffering off;" in LOCATIONS
    assert (end["state"], end["arrival"]) == ("completed", "streamed")


def test_event_stream_and_websocket_pass_nginx(nginx: str, tmp_path: Path) -> None:
    """Both report the upload while it arrives, so neither is buffered."""
    upload_id, received = str(uuid.uuid4()), list[str]()

    def body(url: str) -> Iterator[bytes]:
        path = f"/uploads/{upload_id}/progress"
        yield BODY[:1_000_000]
        with httpx2.Client(base_url=url, timeout=30) as client:
            wait_for_bytes(client, upload_id, 1_000_000)
            with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
                received.append(
                    next(line for line in stream.iter_lines() if line.startswith("data"))
                )
        with connect(f"ws{url.removeprefix('http')}{path}") as socket:
            received.extend(str(socket.recv(timeout=10)) for _ in range(3))
        yield BODY[1_000_000:]

    with run_behind_nginx(nginx, tmp_path) as url:
        headers = {"Upload-Id": upload_id, "Content-Length": str(len(BODY))}
        sent = httpx2.put(f"{url}/files/a", content=body(url), headers=headers, timeout=30)

    assert sent.status_code == 200
    kinds = [json.loads(text)["type"] for text in received[1:]]
    assert '"state":"receiving"' in received[0]
    assert kinds == ["welcome", "subscribed", "progress"]
