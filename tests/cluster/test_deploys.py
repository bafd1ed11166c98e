"""A deploy: three workers behind nginx are replaced one by one while uploads run."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.to_thread import run_sync
from attrs import define, field

from tests._support.paths import ROOT
from tests._support.server_processes import free_port
from tests.conftest import RequireProgram
from upload_progress import ProgressTracker, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress.client import AsyncProgressClient
from upload_progress.exceptions import WorkerStopping
from upload_progress.identity import Identity

pytestmark = pytest.mark.anyio

WORKERS = 3
UPLOADS = int(os.environ.get("DEPLOY_UPLOADS", "24"))
DEPLOYS = int(os.environ.get("DEPLOYS", "1"))
REPLACED = WORKERS if DEPLOYS > 1 else 1
PART, PARTS = bytes(20_000), 20
SECONDS = 60.0 * DEPLOYS + 60.0
CONFIGURATION = """
USER
pid FOLDER/pid;
error_log FOLDER/error.log;
worker_processes 1;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    upstream workers { SERVERS }
    server {
        listen 127.0.0.1:PORT;
        client_max_body_size 0;
        location / {
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
        }
    }
}
"""


@pytest.fixture
def anyio_backend() -> str:
    """The servers are tested; the client needs one event loop only."""
    return "asyncio"


@define
class Fleet:
    """The workers, and nginx before them."""

    nginx: str
    folder: Path
    store_url: str
    port: int = field(factory=free_port)
    ports: list[int] = field(factory=lambda: [free_port() for _ in range(WORKERS)])
    processes: dict[int, subprocess.Popen[bytes]] = field(factory=dict)

    @property
    def url(self) -> str:
        """The URL of nginx."""
        return f"http://127.0.0.1:{self.port}"

    def configure(self, *, without: int | None = None) -> None:
        """Write the configuration of nginx, in which a worker may get no requests."""
        servers = " ".join(
            f"server 127.0.0.1:{port} max_fails=0{' down' if port == without else ''};"
            for port in self.ports
        )
        text = CONFIGURATION.replace("SERVERS", servers).replace("PORT", str(self.port))
        text = text.replace("USER", "user root;" if os.geteuid() == 0 else "")
        file = self.folder / "nginx.conf"
        file.write_text(text.replace("FOLDER", str(self.folder)), encoding="utf-8")

    def run_nginx(self, *arguments: str) -> None:
        """Start nginx, or send it a signal."""
        error_log = str(self.folder / "error.log")
        file = str(self.folder / "nginx.conf")
        command = [self.nginx, "-p", str(self.folder), "-c", file, "-e", error_log, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def start(self, *ports: int) -> None:
        """Start workers, and wait until they accept connections."""
        for port in ports:
            self.processes[port] = self._start(port)
        for port in ports:
            while not is_listening(port):
                assert self.processes[port].poll() is None, "the worker has not started"
                time.sleep(0.05)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "uvicorn", "tests._support.deploy_app:app"),
            *("--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "60"),
        ]
        environment = {**os.environ, "STORE_URL": self.store_url}
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    def stop(self, port: int) -> int:
        """Stop a worker, which finishes its uploads; return its exit code."""
        process = self.processes.pop(port)
        process.send_signal(signal.SIGTERM)
        return process.wait(SECONDS)

    def replace(self, port: int) -> None:
        """Replace a worker by a new one, as a deploy does: first it gets no more requests."""
        self.configure(without=port)
        self.run_nginx("-s", "reload")
        assert self.stop(port) in {0, -signal.SIGTERM}
        self.start(port)
        self.configure()
        self.run_nginx("-s", "reload")


def is_listening(port: int) -> bool:
    """Return whether a connection is accepted within a moment."""
    with socket.socket() as connection:
        connection.settimeout(0.05)
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def fleet(require_program: RequireProgram, redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    install = "install nginx with your system's package manager"
    nginx = require_program("nginx", "/usr/sbin/nginx", install=install)
    fleet = Fleet(nginx, tmp_path, redis_url)
    fleet.start(*fleet.ports)
    fleet.configure()
    fleet.run_nginx()
    yield fleet
    fleet.run_nginx("-s", "stop")
    for port in list(fleet.processes):
        fleet.stop(port)


@define
class Uploads:
    """What came of the uploads."""

    client: AsyncProgressClient
    http: httpx2.AsyncClient
    prefix: str
    received: list[str] = field(factory=list)
    ends: list[UploadState] = field(factory=list)

    async def send(self, number: int) -> None:
        """Send a file in a few seconds."""
        answer = await self.http.put(
            f"/files/{number}",
            content=self.body(number),
            headers={"upload-id": f"{self.prefix}-{number}"},
        )
        self.received.append(f"{answer.status_code} {answer.text}")

    async def body(self, number: int) -> AsyncIterator[bytes]:
        """Yield the parts of a file; the files do not all begin at once."""
        await anyio.sleep(number % 10 / 10)
        for _ in range(PARTS):
            yield PART
            await anyio.sleep(0.1)

    async def watch(self, number: int) -> None:
        """Watch an upload to its end, by a stream that is opened again when it ends early."""
        async for progress in self.client.watch(f"{self.prefix}-{number}", wait=True):
            last = progress
        self.ends.append(last.state)


async def test_no_upload_breaks_and_no_watcher_misses_an_end(fleet: Fleet) -> None:
    for deploy in range(DEPLOYS):
        limits = httpx2.Limits(max_connections=None)
        with anyio.fail_after(SECONDS):
            async with (
                httpx2.AsyncClient(base_url=fleet.url, timeout=SECONDS, limits=limits) as http,
                AsyncProgressClient(fleet.url, http=http, retries=20) as client,
                anyio.create_task_group() as tasks,
            ):
                uploads = Uploads(client, http, f"{secrets.token_hex(4)}-{deploy}")
                for number in range(UPLOADS):
                    tasks.start_soon(uploads.send, number)
                    tasks.start_soon(uploads.watch, number)
                await anyio.sleep(0.5)
                for port in fleet.ports[:REPLACED]:
                    await run_sync(fleet.replace, port)

        assert uploads.received == [f"201 {len(PART) * PARTS}"] * UPLOADS
        assert uploads.ends == [UploadState.COMPLETED] * UPLOADS


async def test_draining_worker_announces_nothing_and_waits_for_its_uploads() -> None:
    tracker, results = ProgressTracker(), list[bool]()
    internals = internals_of(tracker)

    async def drain(*, let_finish: bool, seconds: float = 30.0) -> None:
        results.append(await tracker.drain(let_finish=let_finish, seconds=seconds))

    subscription = internals.subscribe()
    live = internals.admission.open(requested_id="up", total_bytes=10)
    assert internals.admission.admit(live, Identity("ann"))
    live.begin()
    # In tasks: the time limit ends in them.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(drain, let_finish=False))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(drain, let_finish=True, seconds=0.01))
    assert subscription.is_closed
    with pytest.raises(WorkerStopping):
        await tracker.announce(owner="ann")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(drain, let_finish=True))
        await anyio.sleep(0.05)
        live.cancel()
    [record] = await internals.reader.loader.parts.store.load(UploadKey("ann", "up"))

    assert results == [False, False, True]
    assert record.state is UploadState.CANCELLED
