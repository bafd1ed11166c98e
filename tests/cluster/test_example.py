"""The cluster of the example: all of it runs, as its text says, and bears the loss of a worker."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Final

import anyio
import pytest
import yaml
from attrs import define

from tests._support.cluster_clients import SECONDS, ended, looking, sending, told_on
from tests._support.paths import ROOT
from tests.conftest import RequireProgram
from upload_progress import UploadProgress, UploadState

pytestmark = pytest.mark.anyio

FOLDER: Final = ROOT / "examples" / "cluster"
SIZE: Final = 2_000_000
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
PROGRAMS: Final = {
    "redis-server": ("redis-server",),
    "nginx": ("nginx", "/usr/sbin/nginx"),
    "rabbitmq-server": ("rabbitmq-server", "/usr/sbin/rabbitmq-server"),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is tested are servers: who asks them does not matter."""
    return "asyncio"


@define
class Cluster:
    """The example, running.

    Attributes:
        url: Of nginx.
        log: What the consumer writes.
        workers: Where each worker listens, and its process.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path
    workers: list[tuple[str, int]]

    def events_of(self, upload_id: str) -> list[list[str]]:
        """Return what the consumer noted of an upload, word by word."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return [each for each in words if each[3] == upload_id]

    async def noted(self, upload_id: str, state: UploadState) -> list[list[str]]:
        """Return the same once the upload has come to *state*."""
        events: list[list[str]] = []
        with anyio.fail_after(SECONDS):
            while not events or events[-1][4] != state:
                await anyio.sleep(0.02)
                events = self.events_of(upload_id)
        return events


def started(*arguments: str, path: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    command = [sys.executable, str(FOLDER / "run.py"), *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if path is None else subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def cluster(require_program: RequireProgram) -> Iterator[Cluster]:
    """Start it, and see that nothing of it is left when it was stopped."""
    for package, names in PROGRAMS.items():
        require_program(*names, install=f"get it with: apt-get install {package}")
    with started("--port", "0", "--slow", "1M") as process:
        watchdog = threading.Timer(START_SECONDS, process.terminate)
        watchdog.start()
        try:
            found = read(process)
            watchdog.cancel()
            yield found
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
    assert process.returncode == 0
    assert not found.log.parent.exists()


def read(process: subprocess.Popen[str]) -> Cluster:
    """Return what the greeting says."""
    assert process.stdout is not None
    lines = takewhile(lambda line: not line.startswith("Stop with"), process.stdout)
    greeting = "".join(lines)
    workers = re.findall(r"^worker-\d +(\S+) +stop it with: kill -9 (\d+)$", greeting, re.MULTILINE)
    found = dict(re.findall(r"^(nginx|consumer) +(\S+)$", greeting, re.MULTILINE))
    assert len(workers) == 3, f"the example did not start: {greeting!r}"
    places = [(url, int(number)) for url, number in workers]
    return Cluster(process, found["nginx"], Path(found["consumer"]), places)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def curl(require_program: RequireProgram) -> str:
    return require_program("curl", install="get it with: apt-get install curl")


async def test_an_upload_is_followed_through_nginx_and_by_the_consumer(
    cluster: Cluster, big: Path, curl: str
) -> None:
    """Polled, on a stream and on a socket: nginx sends each of them to some worker."""
    streamed, told = list[UploadProgress](), list[UploadProgress]()
    with sending(curl, cluster.url, big, "followed") as upload:
        async with looking(cluster.url) as looker, looking(cluster.url, "bob") as stranger:
            await looker.found("followed")
            assert await stranger.poll("followed") is None
            async with anyio.create_task_group() as tasks:

                async def stream() -> None:
                    streamed.extend([each async for each in looker.stream("followed")])

                tasks.start_soon(stream)
                async with looker.http.websocket("/uploads/followed/progress") as line:
                    told = [each async for each in told_on(line, until=UploadState.COMPLETED)]
            last = await looker.poll("followed")
        assert ended(upload) == "201"

    events = await cluster.noted("followed", UploadState.COMPLETED)
    assert streamed[-1] == told[-1] == last
    assert last is not None
    assert (last.state, last.bytes_transferred) == (UploadState.COMPLETED, SIZE)
    assert min(len({each.bytes_transferred for each in seen}) for seen in (streamed, told)) >= 3
    assert {(kind, owner) for _, kind, owner, *_ in events} == {("UploadProgressUpdated", "alice")}
    assert events[-1][5:] == ["100.0", "%"]
    percents = [float(each[5]) for each in events]
    assert percents == sorted(percents)
    assert len(percents) >= 10


async def test_the_loss_of_a_worker_is_told_and_borne(
    cluster: Cluster, big: Path, curl: str
) -> None:
    """P01: what it received is lost within 20 s, and nginx sends others elsewhere."""
    (url, process), (other, _), _ = cluster.workers
    with sending(curl, url, big, "lost"):
        async with looking(other) as neighbour, looking(cluster.url) as looker:
            # What was never written to the store is gone with its worker.
            await neighbour.found("lost")
            os.kill(process, signal.SIGKILL)
            killed_at = anyio.current_time()
            seen = [snapshot async for snapshot in looker.stream("lost")]
            lasted = anyio.current_time() - killed_at
    assert seen[-1].error is not None
    assert (seen[-1].state, seen[-1].error.code) == (UploadState.FAILED, "worker_lost")
    assert lasted <= 20
    assert (await cluster.noted("lost", UploadState.FAILED))[-1][4] == "failed"

    # Three at once: one for each that nginx knows.
    with (
        sending(curl, cluster.url, big, "a") as one,
        sending(curl, cluster.url, big, "b") as two,
        sending(curl, cluster.url, big, "c") as three,
    ):
        assert [ended(each) for each in (one, two, three)] == ["201"] * 3
    for upload_id in "abc":
        await cluster.noted(upload_id, UploadState.COMPLETED)


def test_what_is_missing_is_named_and_how_to_get_it() -> None:
    with started(path="/nowhere") as process:
        said, _ = process.communicate(timeout=START_SECONDS)

    assert said == "redis-server is not installed; install it with: apt-get install redis-server\n"
    assert process.returncode == 1


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started("--port", str(port), path=os.environ["PATH"]) as process:
            said, _ = process.communicate(timeout=START_SECONDS)

    assert said == f"port {port} is in use; try another --port\n"


# --- with Docker ----------------------------------------------------------------------------------


@pytest.fixture
def composed() -> Mapping[str, Mapping[str, object]]:
    """Return the services of compose.yaml."""
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    services: Mapping[str, Mapping[str, object]] = yaml.safe_load(text)["services"]
    return services


def test_what_compose_mounts_and_builds_is_there(
    composed: Mapping[str, Mapping[str, object]],
) -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    build = composed["worker-1"]["build"]
    mounted = re.findall(r"\"(\./[\w.]+):", text)

    assert build == {"context": "../..", "dockerfile": "examples/cluster/Dockerfile"}
    assert (FOLDER / "../.." / "examples/cluster/Dockerfile").is_file()
    assert mounted == ["./nginx.conf.template", "./consumer.py"]
    assert all((FOLDER / path).is_file() for path in mounted)


def test_compose_fills_in_all_of_nginxs_template(
    composed: Mapping[str, Mapping[str, object]],
) -> None:
    template = (FOLDER / "nginx.conf.template").read_text(encoding="utf-8")

    assert set(re.findall(r"\$\{(\w+)\}", template)) == composed["nginx"]["environment"].keys()  # type: ignore[attr-defined]  # a mapping
