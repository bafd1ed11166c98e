"""The example of a cluster: it runs as described, and survives the loss of a worker."""

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

from tests._support.cluster_clients import (
    SECONDS,
    curl_status,
    curl_upload,
    progress_client,
    socket_snapshots,
)
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
    """The servers are tested; the client needs one event loop only."""
    return "asyncio"


@define
class Cluster:
    """The example, running.

    Attributes:
        url: Of nginx.
        log: The output of the consumer.
        workers: The URL and the process id of each worker.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path
    workers: list[tuple[str, int]]

    def events_of(self, upload_id: str) -> list[list[str]]:
        """Return the lines of the consumer about an upload, split into words."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return [each for each in words if each[3] == upload_id]

    async def wait_for_event(self, upload_id: str, state: UploadState) -> list[list[str]]:
        """Wait until the consumer has received *state*, and return its lines about the upload."""
        events: list[list[str]] = []
        with anyio.fail_after(SECONDS):
            while not events or events[-1][4] != state:
                await anyio.sleep(0.02)
                events = self.events_of(upload_id)
        return events


def start_example(*arguments: str, path: str | None = None) -> subprocess.Popen[str]:
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
    """Start the example; check that it leaves nothing behind when it stops."""
    for package, names in PROGRAMS.items():
        require_program(*names, install=f"get it with: apt-get install {package}")
    with start_example("--port", "0", "--slow", "1M") as process:
        watchdog = threading.Timer(START_SECONDS, process.terminate)
        watchdog.start()
        try:
            found = read_greeting(process)
            watchdog.cancel()
            yield found
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
    assert process.returncode == 0
    assert not found.log.parent.exists()


def read_greeting(process: subprocess.Popen[str]) -> Cluster:
    """Read the greeting of the example."""
    assert process.stdout is not None
    lines = takewhile(lambda line: not line.startswith("Stop with"), process.stdout)
    greeting = "".join(lines)
    workers = re.findall(r"^worker-\d +(\S+) +stop it with: kill -9 (\d+)$", greeting, re.MULTILINE)
    found = dict(re.findall(r"^(nginx|consumer) +(\S+)$", greeting, re.MULTILINE))
    assert len(workers) == 3, f"the example did not start: {greeting!r}"
    addresses = [(url, int(number)) for url, number in workers]
    return Cluster(process, found["nginx"], Path(found["consumer"]), addresses)


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large_file.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def curl(require_program: RequireProgram) -> str:
    return require_program("curl", install="get it with: apt-get install curl")


async def test_upload_is_followed_through_nginx_and_by_the_consumer(
    cluster: Cluster, large_file: Path, curl: str
) -> None:
    """Polled, on a stream and on a socket: nginx chooses a worker for each."""
    streamed, received = list[UploadProgress](), list[UploadProgress]()
    with curl_upload(curl, cluster.url, large_file, "followed") as upload:
        async with (
            progress_client(cluster.url) as client,
            progress_client(cluster.url, "bob") as other_user,
        ):
            await client.wait_for("followed")
            assert await other_user.poll("followed") is None
            async with anyio.create_task_group() as tasks:

                async def stream() -> None:
                    streamed.extend([each async for each in client.stream("followed")])

                tasks.start_soon(stream)
                async with client.http.websocket("/uploads/followed/progress") as socket_:
                    received = [
                        each
                        async for each in socket_snapshots(socket_, until=UploadState.COMPLETED)
                    ]
            last = await client.poll("followed")
        assert curl_status(upload) == "201"

    events = await cluster.wait_for_event("followed", UploadState.COMPLETED)
    assert streamed[-1] == received[-1] == last
    assert last is not None
    assert (last.state, last.bytes_transferred) == (UploadState.COMPLETED, SIZE)
    assert min(len({each.bytes_transferred for each in seen}) for seen in (streamed, received)) >= 3
    assert {(kind, owner) for _, kind, owner, *_ in events} == {("UploadProgressUpdated", "alice")}
    assert events[-1][5:] == ["100.0", "%"]
    percents = [float(each[5]) for each in events]
    assert percents == sorted(percents)
    assert len(percents) >= 10


async def test_loss_of_a_worker_fails_its_uploads_only(
    cluster: Cluster, large_file: Path, curl: str
) -> None:
    """P01: they fail, and nginx sends new ones to other workers.

    `test_upload_of_a_lost_worker_fails_within_20_seconds` has the time limit.
    """
    (url, process), (other, _), _ = cluster.workers
    with curl_upload(curl, url, large_file, "lost"):
        async with progress_client(other) as other_client, progress_client(cluster.url) as client:
            # What was never written to the store is lost with its worker.
            await other_client.wait_for("lost")
            os.kill(process, signal.SIGKILL)
            seen = [snapshot async for snapshot in client.stream("lost")]
    assert seen[-1].error is not None
    assert (seen[-1].state, seen[-1].error.code) == (UploadState.FAILED, "worker_lost")
    assert (await cluster.wait_for_event("lost", UploadState.FAILED))[-1][4] == "failed"

    # Three at once: one for each worker that nginx knows.
    with (
        curl_upload(curl, cluster.url, large_file, "a") as one,
        curl_upload(curl, cluster.url, large_file, "b") as two,
        curl_upload(curl, cluster.url, large_file, "c") as three,
    ):
        assert [curl_status(each) for each in (one, two, three)] == ["201"] * 3
    for upload_id in "abc":
        await cluster.wait_for_event(upload_id, UploadState.COMPLETED)


def test_error_about_a_missing_program_names_the_package() -> None:
    with start_example(path="/nowhere") as process:
        output, _ = process.communicate(timeout=START_SECONDS)

    assert (
        output == "redis-server is not installed; install it with: apt-get install redis-server\n"
    )
    assert process.returncode == 1


def test_error_about_a_used_port_names_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start_example("--port", str(port), path=os.environ["PATH"]) as process:
            output, _ = process.communicate(timeout=START_SECONDS)

    assert output == f"port {port} is in use; try another --port\n"


# --- with Docker ----------------------------------------------------------------------------------


@pytest.fixture
def composed() -> Mapping[str, Mapping[str, object]]:
    """Return the services of compose.yaml."""
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    services: Mapping[str, Mapping[str, object]] = yaml.safe_load(text)["services"]
    return services


def test_files_that_compose_mounts_and_builds_exist(
    composed: Mapping[str, Mapping[str, object]],
) -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    build = composed["worker-1"]["build"]
    mounted = re.findall(r"\"(\./[\w.]+):", text)

    assert build == {"context": "../..", "dockerfile": "examples/cluster/Dockerfile"}
    assert (FOLDER / "../.." / "examples/cluster/Dockerfile").is_file()
    assert mounted == ["./nginx.conf.template", "./consumer.py"]
    assert all((FOLDER / path).is_file() for path in mounted)


def test_kubernetes_runs_the_same_programs_with_probes(
    composed: Mapping[str, Mapping[str, object]],
) -> None:
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    deployments = {
        each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Deployment"
    }
    services = {
        each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Service"
    }
    containers = {
        name: spec["template"]["spec"]["containers"][0] for name, spec in deployments.items()
    }
    images = {name: container["image"] for name, container in containers.items()}
    secret = next(each["stringData"] for each in documents if each["kind"] == "Secret")
    options = [re.split("=", each)[0] for each in containers["files"]["command"]]

    assert images == {
        "redis": composed["redis"]["image"],
        "rabbitmq": composed["rabbitmq"]["image"],
        "files": composed["worker-1"]["image"],
    }
    assert options == [re.split("=", each)[0] for each in composed["worker-1"]["command"]]  # type: ignore[attr-defined]  # a list
    assert all({"readinessProbe", "livenessProbe"} <= each.keys() for each in containers.values())
    assert services.keys() == deployments.keys()
    for name, spec in deployments.items():
        labels = spec["template"]["metadata"]["labels"]
        assert labels == spec["selector"]["matchLabels"] == services[name]["selector"]
    assert set(re.findall(r"key: ([\w-]+)", text)) == secret.keys()
    assert {"redis", "rabbitmq"} == set(re.findall(r"//(?:\S+@)?(\w+):\d", str(secret)))


def test_compose_sets_all_variables_of_the_nginx_template(
    composed: Mapping[str, Mapping[str, object]],
) -> None:
    template = (FOLDER / "nginx.conf.template").read_text(encoding="utf-8")

    assert set(re.findall(r"\$\{(\w+)\}", template)) == composed["nginx"]["environment"].keys()  # type: ignore[attr-defined]  # a mapping
