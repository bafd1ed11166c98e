"""What an owner is shown of uploads while a real client runs: read from a socket, told apart by id.

A client is a process of its own, as people start it. The socket is read while it runs, so that
what is asserted afterwards is what a page would have drawn, in the order in which it came.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from attrs import define, field, frozen
from websockets.sync.client import ClientConnection, connect

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT

__all__ = [
    "DEADLINE_SECONDS",
    "ClientProcess",
    "Command",
    "ExampleServer",
    "Snapshot",
    "UploadWatcher",
    "run_example",
    "watch_uploads",
]

USER = "alice"
BASIC = "Basic " + base64.b64encode(f"{USER}:{USER}".encode()).decode()
DEADLINE_SECONDS = 60.0
LOOK_SECONDS = 0.1

Snapshot = dict[str, object]
Command = Sequence[str | Path]


@frozen
class ExampleServer:
    """A running example.

    Attributes:
        url: Its address.
        http: A client for it, signed in as alice.
        tls: How to speak TLS with it, if it does.
    """

    url: str
    http: httpx2.Client
    tls: ssl.SSLContext | None

    @property
    def port(self) -> str:
        """The number of its port."""
        return self.url.rpartition(":")[2]

    def uploads(self, group: str | None = None) -> list[Snapshot]:
        """Return what alice is told of her uploads."""
        query = {"group": group} if group else {}
        answer = self.http.get("/uploads/progress", params={"limit": "1000", **query})
        uploads: list[Snapshot] = answer.json()["uploads"]
        return uploads


@contextmanager
def run_example(
    example: str, *options: str, bytes_per_second: int, tls: ssl.SSLContext | None = None
) -> Iterator[ExampleServer]:
    """Run an example server, which reads each request at *bytes_per_second*."""
    rate = ("--bytes-per-second", str(bytes_per_second))
    command = ("tests/servers/example_server.py", example, "--port", "0", *rate, *options)
    asking: dict[str, Any] = {"timeout": DEADLINE_SECONDS, "verify": tls or True}
    with (
        run_python_server(*command, cwd=ROOT) as url,
        httpx2.Client(base_url=url, headers={"authorization": BASIC}, **asking) as http,
    ):
        yield ExampleServer(url, http, tls)


@define
class ClientProcess:
    """A client's process, and what it says."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def is_running(self) -> bool:
        """Whether it is."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it as a crash would, with what it has started: some programs only start another."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)

    def read_output(self) -> str:
        """Return what it has written to its two streams."""
        return self.output.read_text(encoding="utf-8", errors="replace")


@define
class UploadWatcher:
    """What came over alice's socket, of uploads that were not there before."""

    server: ExampleServer
    socket: ClientConnection
    old: frozenset[str]
    seen: dict[str, list[Snapshot]] = field(factory=dict, init=False)

    def run(self, command: Command, **environment: str) -> str:
        """Run a client to its end, which must be a good one; return what it said."""
        with self.running(command, **environment) as client:
            self.read_until(lambda: not client.is_running, client)
            assert client.process.returncode == 0, client.read_output()
            self.read_until_idle()
            return client.read_output()

    def kill_midway(self, command: Command, **environment: str) -> None:
        """Run a client, and kill it when the server has some of its bytes, and not all."""
        with self.running(command, **environment) as client:
            self.read_until(lambda: any(map(self.is_in_progress, self.latest())), client)
            assert client.is_running, client.read_output()
            client.kill()

    @contextmanager
    def running(self, command: Command, **environment: str) -> Iterator[ClientProcess]:
        """Run a client; it is gone when the block ends."""
        with tempfile.NamedTemporaryFile() as output:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            client = ClientProcess(process, Path(output.name))
            try:
                yield client
            finally:
                client.kill()

    def read_until(
        self, condition: Callable[[], bool], client: ClientProcess | None = None
    ) -> None:
        """Read the socket until *condition* is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            said = client.read_output() if client else ""
            assert time.monotonic() < deadline, f"{self.latest()}\n{said}"
            try:
                message = json.loads(self.socket.recv(timeout=LOOK_SECONDS))
            except TimeoutError:
                continue
            if message["type"] == "progress" and message["upload"]["upload_id"] not in self.old:
                shown = self.seen.setdefault(message["upload"]["upload_id"], [])
                shown.append(message["upload"])

    def read_until_idle(self) -> None:
        """Read until nothing arrives: what a killed client had sent is still on its way to us."""
        self.read_until(self._is_idle)

    def _is_idle(self) -> bool:
        """Tell whether all uploads that there are were shown, and none is under way."""
        new = {str(each["upload_id"]) for each in self.server.uploads()} - self.old
        busy = {"receiving", "processing"}
        return new == set(self.seen) and not any(each["state"] in busy for each in self.latest())

    def latest(self) -> list[Snapshot]:
        """Return the newest that was shown of each upload."""
        return [shown[-1] for shown in self.seen.values()]

    def is_in_progress(self, snapshot: Snapshot) -> bool:
        """Tell whether some bytes have come, and it goes on."""
        return snapshot["state"] == "receiving" and snapshot["bytes_transferred"] != 0

    def assert_progress(self, *first: str) -> None:
        """Check that bytes grew, and that all ended ``completed``, but for the *first*."""
        assert self.distinct_values() >= 2, self.seen
        ends = [str(each["state"]) for each in self.latest()]
        assert ends[: len(first)] == list(first), self.latest()
        assert set(ends[len(first) :]) == {"completed"}, self.latest()
        for shown in self.seen.values():
            counts = [numbers(each, "attempt", "bytes_transferred") for each in shown]
            assert counts == sorted(counts), shown
        assert self.latest()[-1]["percent"] == 100.0

    def distinct_values(self) -> int:
        """Return how many different numbers of bytes were shown while they arrived."""
        return len(
            {
                (upload_id, each["bytes_transferred"])
                for upload_id, shown in self.seen.items()
                for each in shown
                if self.is_in_progress(each)
            }
        )


def numbers(snapshot: Snapshot, *names: str) -> list[int]:
    """Return some of the numbers of a snapshot."""
    return [int(str(snapshot[name])) for name in names]


@contextmanager
def watch_uploads(server: ExampleServer) -> Iterator[UploadWatcher]:
    """Follow all uploads of alice that begin while the block runs."""
    address = f"ws{server.url.removeprefix('http')}/uploads/progress"
    headers = {"Authorization": BASIC}
    old = frozenset(str(upload["upload_id"]) for upload in server.uploads())
    with connect(address, additional_headers=headers, ssl=server.tls) as socket:
        socket.send(json.dumps({"type": "subscribe", "all": True}))
        yield UploadWatcher(server, socket, old)
