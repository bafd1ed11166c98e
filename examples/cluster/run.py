"""Three workers behind nginx, sharing Redis and RabbitMQ, and a consumer of their events.

    python examples/cluster/run.py [--port 8080] [--slow 1M]

All of it is on 127.0.0.1, in a temporary folder, and ends together with Ctrl-C. It needs
redis-server, rabbitmq-server and nginx, and ``pip install 'upload-progress[demo,redis,rabbitmq]'``.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import NoReturn

HERE = Path(__file__).resolve().parent
START_SECONDS = 90.0
STOP_SECONDS = 15.0
# Below those that the system gives to clients.
PORTS = range(12_000, 32_000)
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
# Of Debian's RabbitMQ, the program itself: its wrapper insists on a user and folders of the system.
RABBITMQ = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"


def program(name: str, package: str, *, pattern: str = "") -> str:
    """Return the path of a program, or end with how to get it."""
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    found = [*sorted(glob(pattern), reverse=True), shutil.which(name, path=folders)]  # noqa: PTH207  # absolute
    if found[0] is None:
        sys.exit(f"{name} is not installed; get it with: apt-get install {package}")
    return found[0]


def free_port() -> int:
    """Return a port on which nobody listens."""
    while True:
        port = random.choice(PORTS)  # noqa: S311  # no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int, greeting: bytes = b"") -> bool:
    """Tell whether somebody listens there and, if greeted, says something."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
        line.sendall(greeting)
        return not greeting or bool(line.recv(1))
    return False


class Part:
    """A program of the cluster: what it says goes to a file of its name."""

    def __init__(
        self,
        folder: Path,
        name: str,
        command: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, apart from the terminal: Ctrl-C is for the cluster, which stops in order."""
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # as written below
                command,
                cwd=folder,
                env={**os.environ, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it is ready; end with its last words if it never is."""
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                sys.exit(f"{self.name} did not start:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, gently first."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Cluster:
    """All parts, each in a folder of its own below one."""

    def __init__(self, folder: Path, parts: ExitStack) -> None:
        self.folder, self.parts = folder, parts

    def start(
        self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None
    ) -> Part:
        """Start a part, which stops with all the others, in the opposite order."""
        part = Part(self.folder, name, command, extra)
        self.parts.callback(part.stop)
        return part

    def redis(self, path: str) -> str:
        """Start Redis, which keeps nothing on disk; return its URL."""
        port = free_port()
        command = [path, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        part = self.start("redis", [*command, "--appendonly", "no"])
        part.wait(lambda: answers(port, b"PING\r\n"))
        return f"redis://127.0.0.1:{port}/0"

    def rabbitmq(self, path: str, epmd: str) -> tuple[Part, int]:
        """Start RabbitMQ, with nothing of the system's own, and what it finds its ports by."""
        home, port, mapper_port = self.folder / "rabbitmq", free_port(), free_port()
        home.mkdir()
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        (home / "enabled_plugins").write_text("[].\n")
        extra = {
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_BASE": str(home),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_NODENAME": f"cluster{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
        }
        mapper = [epmd, "-port", str(mapper_port), "-address", "127.0.0.1"]
        self.start("epmd", mapper, extra).wait(lambda: answers(mapper_port))
        return self.start("rabbitmq-server", [path], extra), port

    def worker(self, number: int, store: str, events: str, slow: str) -> tuple[Part, int]:
        """Start a demo; all of them keep their files in one folder, as one server would."""
        port, files = free_port(), str(self.folder / "files")
        command = [sys.executable, "-m", "upload_progress.cli", "demo", "--port", str(port)]
        command += ["--data", files, "--store", store, "--events", events]
        part = self.start(f"worker-{number}", [*command, *(["--slow", slow] if slow else [])])
        part.wait(lambda: answers(port))
        return part, port

    def nginx(self, path: str, port: int, workers: Sequence[int]) -> None:
        """Start nginx before the workers, as one process that needs no folder of the system."""
        names = {f"WORKER_{n}": f"127.0.0.1:{each}" for n, each in enumerate(workers, 1)}
        template = Template((HERE / "nginx.conf.template").read_text(encoding="utf-8"))
        inside = template.safe_substitute(names, LISTEN=f"127.0.0.1:{port}")
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{place}_temp_path {self.folder}/{place};\n" for place in places)
        (self.folder / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {self.folder}/nginx.pid;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{folders}{inside}}}\n",
            encoding="utf-8",
        )
        command = [path, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.start("nginx", [*command, "-e", "stderr"]).wait(lambda: answers(port))


def run(port: int, slow: str) -> None:
    """Start everything, say where it is, and wait to be stopped."""
    if missing := [name for name in ("uvicorn", "redis", "aio_pika") if find_spec(name) is None]:
        extras = "pip install 'upload-progress[demo,redis,rabbitmq]'"
        sys.exit(f"{missing[0]} is not installed; get it with: {extras}")
    redis, nginx = program("redis-server", "redis-server"), program("nginx", "nginx")
    rabbitmq = program("rabbitmq-server", "rabbitmq-server", pattern=RABBITMQ)
    epmd = program("epmd", "rabbitmq-server")
    if answers(port):
        sys.exit(f"port {port} is in use; try another --port")
    with TemporaryDirectory(prefix="upload-progress-cluster-") as name, ExitStack() as parts:
        cluster = Cluster(Path(name), parts)
        broker, broker_port = cluster.rabbitmq(rabbitmq, epmd)
        store, events = cluster.redis(redis), f"amqp://guest:guest@127.0.0.1:{broker_port}/"
        broker.wait(lambda: answers(broker_port, AMQP_GREETING))
        workers = [cluster.worker(number, store, events, slow) for number in (1, 2, 3)]
        cluster.nginx(nginx, port, [each for _, each in workers])
        log = cluster.folder / "uploads.log"
        consumer = cluster.start(
            "consumer", [sys.executable, str(HERE / "consumer.py"), events, str(log)]
        )
        consumer.wait(log.is_file)
        print(greeting(port, store, events, log, workers), flush=True)
        signal.pause()


def greeting(
    port: int, store: str, events: str, log: Path, workers: Sequence[tuple[Part, int]]
) -> str:
    """Say where everything is, and what to try."""
    url = f"http://127.0.0.1:{port}"
    lines = [f"nginx     {url}", f"store     {store}", f"events    {events}", f"consumer  {log}"]
    lines += [
        f"{part.name}  http://127.0.0.1:{each}  end it with: kill -9 {part.process.pid}"
        for part, each in workers
    ]
    lines += ["", f"curl -u alice:alice -T FILE -H 'Upload-Id: first' {url}/files/"]
    lines += [f"curl -u alice:alice {url}/uploads/first/progress", "", "Stop with Ctrl-C."]
    return "\n".join(lines)


def end(_signal: int, _frame: object) -> NoReturn:
    """Leave in order, and only once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def main() -> None:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8080, help="where nginx listens; 0: any")
    parser.add_argument("--slow", default="", help="read each upload so fast, such as 1M")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    run(arguments.port or free_port(), arguments.slow)


if __name__ == "__main__":
    main()
