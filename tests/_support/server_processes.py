"""Real servers for tests, each a child of the tests on free ports of 127.0.0.1, in its own folder.

A server that is shared by all tests may be killed, stopped and started again by one of them, on
the same port; ``healthy`` then puts it right for the next. What it says goes to a file, never to
a pipe: a grandchild that inherits a pipe keeps whoever reads it waiting.
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
LOOK_SECONDS: Final = 0.02
TAIL_LINES: Final = 30
PORTS: Final = range(12_000, 32_000)
"""Below those that the system gives to clients: a server that is down keeps its port, and nobody
who knocks at it connects to himself."""

ReadinessCheck = Callable[[], bool]


NOBODY: Final = {"user": "nobody", "group": "nogroup", "extra_groups": ()}


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    while True:
        port = random.choice(PORTS)  # noqa: S311  # no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def new_folder(name: str) -> Path:
    """Return a new folder that ``nobody`` may use, if that is who will run the server."""
    folder = Path(tempfile.mkdtemp(prefix=f"upload-progress-{name}-"))
    shutil.chown(folder, *(("nobody", "nogroup") if os.geteuid() == 0 else (os.getuid(),)))
    return folder


def responds_to(port: int, question: bytes) -> bool:
    """Tell whether a server answers *question* with anything at all."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
        line.sendall(question)
        return bool(line.recv(1))
    return False


def process_tree(process: int) -> list[int]:
    """Return *process* and all that descend from it: PostgreSQL's have sessions of their own."""
    children = Path(f"/proc/{process}/task/{process}/children")
    with suppress(OSError):
        return [
            process,
            *(each for child in children.read_text().split() for each in process_tree(int(child))),
        ]
    return [process]


def last_lines(path: Path) -> str:
    """Return the last lines of a file that a server wrote."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


@define(eq=False)
class ServerProcess:
    """A server that the tests own.

    Attributes:
        url: Where it is, as this library's users write it.
        port: The same, for those who knock themselves.
        as_nobody: Whether it refuses to run as root; then it runs as ``nobody``.
        companions: Processes that it needs, and that are stopped after it.
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
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The file that holds what it says."""
        return self.folder / f"{self.name}.log"

    def start(self) -> ServerProcess:
        """Start it, and wait until it answers."""
        for companion in self.companions:
            companion.ensure_running()
        other = self.as_nobody and os.geteuid() == 0
        user: dict[str, Any] = NOBODY if other else {}
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
            time.sleep(LOOK_SECONDS)
        return self

    def ensure_running(self) -> ServerProcess:
        """Start it if it is not running, let it go on if it was paused."""
        self.resume()
        return self if self.is_running else self.start()

    def pause(self) -> None:
        """Let it hang: its sockets stay open, and nobody answers."""
        self._is_paused = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._is_paused:
            self._is_paused = False
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._signal(signal.SIGKILL)
        self._gone()

    def stop(self) -> None:
        """End it in an orderly way, with its companions and its folder."""
        self.resume()
        if self._process is not None and self.is_running:
            self._process.send_signal(self.stop_signal)
            self._gone()
        for companion in self.companions:
            companion.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for process in process_tree(self._process.pid) if self.is_running else ():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _gone(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
