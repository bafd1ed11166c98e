"""Three demo workers behind nginx with Redis, RabbitMQ and a consumer of their events.

Run:
    apt-get install redis-server rabbitmq-server nginx
    pip install 'upload-progress[demo,redis,rabbitmq]'
    python examples/cluster/run.py [--port 8080] [--slow 1M]

All processes listen on 127.0.0.1, write to a temporary folder, and end with Ctrl-C.
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
# Below the ephemeral ports of the system.
PORTS = range(12_000, 32_000)
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
# The program itself: the wrapper of Debian requires a system user and system folders.
RABBITMQ = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"


def program(name: str, package: str, *, pattern: str = "") -> str:
    """Return the path of a program; exit with an installation hint if it is missing."""
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    found = [*sorted(glob(pattern), reverse=True), shutil.which(name, path=folders)]  # noqa: PTH207  # absolute
    if found[0] is None:
        sys.exit(f"{name} is not installed; install it with: apt-get install {package}")
    return found[0]


def free_port() -> int:
    """Return a free TCP port."""
    while True:
        port = random.choice(PORTS)  # noqa: S311  # not secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_listening(port: int, greeting: bytes = b"") -> bool:
    """Return whether a server accepts connections and responds to *greeting*, if there is one."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(greeting)
        return not greeting or bool(connection.recv(1))
    return False


class ClusterProcess:
    """A process of the cluster; its output goes to a log file."""

    def __init__(
        self,
        folder: Path,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process in a new session, so that Ctrl-C only reaches this program."""
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # the commands below
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, is_ready: Callable[[], bool]) -> None:
        """Wait until the process is ready; exit with the end of its log if it never is."""
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                sys.exit(f"{self.name} did not start:\n{output}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Terminate the process; kill it if it does not end in time."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Cluster:
    """All processes of the cluster."""

    def __init__(self, folder: Path, exit_stack: ExitStack) -> None:
        self.folder, self.exit_stack = folder, exit_stack

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> ClusterProcess:
        """Start a process; processes are stopped in reverse order."""
        process = ClusterProcess(self.folder, name, command, environment)
        self.exit_stack.callback(process.stop)
        return process

    def redis(self, path: str) -> str:
        """Start Redis without persistence; return its URL."""
        port = free_port()
        command = [path, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = self.start("redis", [*command, "--appendonly", "no"])
        process.wait(lambda: is_listening(port, b"PING\r\n"))
        return f"redis://127.0.0.1:{port}/0"

    def rabbitmq(self, path: str, epmd: str) -> tuple[ClusterProcess, int]:
        """Start RabbitMQ and its port mapper without system folders; return it and its port."""
        home, port, mapper_port = self.folder / "rabbitmq", free_port(), free_port()
        home.mkdir()
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        (home / "enabled_plugins").write_text("[].\n")
        environment = {
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
        self.start("epmd", mapper, environment).wait(lambda: is_listening(mapper_port))
        return self.start("rabbitmq-server", [path], environment), port

    def worker(self, number: int, store: str, events: str, slow: str) -> tuple[ClusterProcess, int]:
        """Start a demo worker; all workers share one folder of files."""
        port, files = free_port(), str(self.folder / "files")
        command = [sys.executable, "-m", "upload_progress.cli", "demo", "--port", str(port)]
        command += ["--data", files, "--store", store, "--events", events]
        options = ["--slow", slow] if slow else []
        process = self.start(f"worker-{number}", [*command, *options])
        process.wait(lambda: is_listening(port))
        return process, port

    def nginx(self, path: str, port: int, workers: Sequence[int]) -> None:
        """Start nginx as a single process, without system folders."""
        values = {f"WORKER_{n}": f"127.0.0.1:{each}" for n, each in enumerate(workers, 1)}
        template = Template((HERE / "nginx.conf.template").read_text(encoding="utf-8"))
        http_block = template.safe_substitute(values, LISTEN=f"127.0.0.1:{port}")
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{name}_temp_path {self.folder}/{name};\n" for name in temporary)
        (self.folder / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {self.folder}/nginx.pid;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{folders}{http_block}}}\n",
            encoding="utf-8",
        )
        command = [path, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.start("nginx", [*command, "-e", "stderr"]).wait(lambda: is_listening(port))


def run(port: int, slow: str) -> None:
    """Start all processes, print their addresses, and wait for a signal."""
    if missing := [name for name in ("uvicorn", "redis", "aio_pika") if find_spec(name) is None]:
        extras = "pip install 'upload-progress[demo,redis,rabbitmq]'"
        sys.exit(f"{missing[0]} is not installed; install it with: {extras}")
    redis, nginx = program("redis-server", "redis-server"), program("nginx", "nginx")
    rabbitmq = program("rabbitmq-server", "rabbitmq-server", pattern=RABBITMQ)
    epmd = program("epmd", "rabbitmq-server")
    if is_listening(port):
        sys.exit(f"port {port} is in use; try another --port")
    with TemporaryDirectory(prefix="upload-progress-cluster-") as folder, ExitStack() as stack:
        cluster = Cluster(Path(folder), stack)
        broker, broker_port = cluster.rabbitmq(rabbitmq, epmd)
        store, events = cluster.redis(redis), f"amqp://guest:guest@127.0.0.1:{broker_port}/"
        broker.wait(lambda: is_listening(broker_port, AMQP_GREETING))
        workers = [cluster.worker(number, store, events, slow) for number in (1, 2, 3)]
        cluster.nginx(nginx, port, [each for _, each in workers])
        log = cluster.folder / "uploads.log"
        consumer = cluster.start(
            "consumer", [sys.executable, str(HERE / "consumer.py"), events, str(log)]
        )
        consumer.wait(log.is_file)
        print(startup_message(port, store, events, log, workers), flush=True)
        signal.pause()


def startup_message(
    port: int, store: str, events: str, log: Path, workers: Sequence[tuple[ClusterProcess, int]]
) -> str:
    """Return the addresses of all processes and commands to try."""
    url = f"http://127.0.0.1:{port}"
    lines = [f"nginx     {url}", f"store     {store}", f"events    {events}", f"consumer  {log}"]
    lines += [
        f"{worker.name}  http://127.0.0.1:{each}  stop it with: kill -9 {worker.process.pid}"
        for worker, each in workers
    ]
    lines += ["", f"curl -u alice:alice -T FILE -H 'Upload-Id: first' {url}/files/"]
    lines += [f"curl -u alice:alice {url}/uploads/first/progress", "", "Stop with Ctrl-C."]
    return "\n".join(lines)


def handle_signal(_signal: int, _frame: object) -> NoReturn:
    """Exit in order, and ignore further signals meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def main() -> None:
    """Parse the command line and run the cluster."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8080, help="port of nginx; 0 for a free one")
    parser.add_argument("--slow", default="", help="rate limit of each upload, such as 1M")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle_signal)
    run(arguments.port or free_port(), arguments.slow)


if __name__ == "__main__":
    main()
