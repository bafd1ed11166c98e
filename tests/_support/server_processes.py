"""Server processes for tests, on free ports of 127.0.0.1, each in its own folder.

A test may kill, pause and restart a server that all tests share; ``ensure_running`` restores it for
the next test, on the same port. Output goes to a file, not to a pipe: a grandchild that inherits
a pipe keeps its reader waiting.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import define, field

__all__ = [
    "START_SECONDS",
    "ServerProcess",
    "free_port",
    "last_lines",
    "new_folder",
    "process_tree",
    "responds_to",
]

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
TAIL_LINES: Final = 30
PORTS: Final = range(12_000, 32_000)
"""Below the ephemeral ports: no client connection can occupy the port of a stopped server."""

ReadinessCheck = Callable[[], bool]


NOBODY: Final = {"user": "nobody", "group": "nogroup", "extra_groups": ()}


def free_port() -> int:
    """Return an unused port of 127.0.0.1."""
    while True:
        port = random.choice(PORTS)  # noqa: S311  # no secret
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


def new_folder(name: str) -> Path:
    """Return a new folder, owned by the user ``nobody`` if the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix=f"upload-progress-{name}-"))
    shutil.chown(folder, *(("nobody", "nogroup") if os.geteuid() == 0 else (os.getuid(),)))
    return folder


def responds_to(port: int, request: bytes, *, refusal: bytes | None = None) -> bool:
    """Return whether a server on *port* sends any response to *request*.

    Args:
        port: The port on this machine.
        request: What is sent.
        refusal: How a response begins that does not count.
    """
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(request)
        response = connection.recv(1024)
        return bool(response) and (refusal is None or not response.startswith(refusal))
    return False


def process_tree(process: int) -> list[int]:
    """Return *process* and its descendants. Those of PostgreSQL are in sessions of their own."""
    children = Path(f"/proc/{process}/task/{process}/children")
    with suppress(OSError):
        return [
            process,
            *(each for child in children.read_text().split() for each in process_tree(int(child))),
        ]
    return [process]


def last_lines(path: Path) -> str:
    """Return the last lines of a log file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


@define(eq=False)
class ServerProcess:
    """A server in a child process.

    Attributes:
        name: Name of the server, used for its log file.
        url: URL of the server, as users pass it to this library.
        port: Port of the server.
        folder: Working directory, removed by ``stop``.
        command: Command line.
        is_ready: Returns whether the server accepts requests.
        environment: Additional environment variables.
        as_nobody: Whether it refuses to run as root, and runs as ``nobody`` instead.
        stop_signal: Signal for an orderly shutdown.
        start_seconds: How long it may take to become ready.
        stop_seconds: How long it may take to shut down, before it is killed.
        companions: Processes that it needs; they are stopped after it.
    """

    name: str
    url: str
    port: int
    folder: Path
    command: Sequence[str]
    is_ready: ReadinessCheck
    environment: Mapping[str, str] = field(factory=dict)
    as_nobody: bool = False
    stop_signal: int = signal.SIGTERM
    start_seconds: float = START_SECONDS
    stop_seconds: float = STOP_SECONDS
    companions: Sequence[ServerProcess] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _is_paused: bool = field(default=False, init=False)

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / f"{self.name}.log"

    def start(self) -> ServerProcess:
        """Start the process and wait until it is ready."""
        for companion in self.companions:
            companion.ensure_running()
        drop_root = self.as_nobody and os.geteuid() == 0
        user: dict[str, Any] = NOBODY if drop_root else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,
            )
        deadline = time.monotonic() + self.start_seconds
        while not self.is_ready():
            assert self.is_running, f"{self.name} ended at once:\n{last_lines(self.log)}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{last_lines(self.log)}"
            time.sleep(POLL_SECONDS)
        return self

    def ensure_running(self) -> ServerProcess:
        """Start the process if it is not running; resume it if it is paused."""
        self.resume()
        return self if self.is_running else self.start()

    def pause(self) -> None:
        """Suspend the process: its sockets stay open, without any response."""
        self._is_paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the process."""
        if self._is_paused:
            self._is_paused = False
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process."""
        self._signal(signal.SIGKILL)
        self._wait_for_exit()

    def stop(self) -> None:
        """Shut down the process and its companions, and remove the folder."""
        self.resume()
        if self._process is not None and self.is_running:
            self._process.send_signal(self.stop_signal)
            self._wait_for_exit()
        for companion in self.companions:
            companion.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for process in process_tree(self._process.pid) if self.is_running else ():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _wait_for_exit(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
