"""Records the snapshots that an owner receives over a WebSocket while a real client uploads.

The client runs as a process. The socket is read while it runs, so the recorded snapshots are those
that a web page would have shown, in the same order.
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
RECEIVE_SECONDS = 0.1

Snapshot = dict[str, object]
Command = Sequence[str | Path]


@frozen
class ExampleServer:
    """A running example.

    Attributes:
        url: URL of the server.
        http: HTTP client for it, authenticated as alice.
        tls: TLS context for clients. None without TLS.
    """

    url: str
    http: httpx2.Client
    tls: ssl.SSLContext | None

    @property
    def port(self) -> str:
        """Port of the server, as text."""
        return self.url.rpartition(":")[2]

    def uploads(self, group: str | None = None) -> list[Snapshot]:
        """Return alice's uploads, or those in a group."""
        query = {"group": group} if group else {}
        response = self.http.get("/uploads/progress", params={"limit": "1000", **query})
        uploads: list[Snapshot] = response.json()["uploads"]
        return uploads


@contextmanager
def run_example(
    example: str, *options: str, bytes_per_second: int, tls: ssl.SSLContext | None = None
) -> Iterator[ExampleServer]:
    """Run an example server, which reads each request at *bytes_per_second*."""
    rate = ("--bytes-per-second", str(bytes_per_second))
    command = ("tests/servers/example_server.py", example, "--port", "0", *rate, *options)
    settings: dict[str, Any] = {"timeout": DEADLINE_SECONDS, "verify": tls or True}
    with (
        run_python_server(*command, cwd=ROOT) as url,
        httpx2.Client(base_url=url, headers={"authorization": BASIC}, **settings) as http,
    ):
        yield ExampleServer(url, http, tls)


@define
class ClientProcess:
    """A client's process, and the file with its output."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the process group: some programs only start another one."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)

    def read_output(self) -> str:
        """Return its output so far, standard error included."""
        return self.output.read_text(encoding="utf-8", errors="replace")


@define
class UploadWatcher:
    """Snapshots received over alice's WebSocket, of uploads that are new.

    Attributes:
        server: The server.
        socket: The WebSocket.
        known_ids: Uploads that existed before; they are ignored.
        seen: Snapshots by upload id, in the order of arrival.
    """

    server: ExampleServer
    socket: ClientConnection
    known_ids: frozenset[str]
    seen: dict[str, list[Snapshot]] = field(factory=dict, init=False)

    def run(self, command: Command, **environment: str) -> str:
        """Run a client, which must succeed; return its output."""
        with self.running(command, **environment) as client:
            self.read_until(lambda: not client.is_running, client)
            assert client.process.returncode == 0, client.read_output()
            self.read_until_idle()
            return client.read_output()

    def kill_midway(self, command: Command, **environment: str) -> None:
        """Run a client and kill it when the server has some of its bytes."""
        with self.running(command, **environment) as client:
            self.read_until(lambda: any(map(self.is_in_progress, self.latest())), client)
            assert client.is_running, client.read_output()
            client.kill()

    @contextmanager
    def running(self, command: Command, **environment: str) -> Iterator[ClientProcess]:
        """Run a client; kill it at the end of the block."""
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
        """Read the socket until *condition* holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            output = client.read_output() if client else ""
            assert time.monotonic() < deadline, f"{self.latest()}\n{output}"
            try:
                message = json.loads(self.socket.recv(timeout=RECEIVE_SECONDS))
            except TimeoutError:
                continue
            if (
                message["type"] == "progress"
                and message["upload"]["upload_id"] not in self.known_ids
            ):
                shown = self.seen.setdefault(message["upload"]["upload_id"], [])
                shown.append(message["upload"])

    def read_until_idle(self) -> None:
        """Read until no upload is in progress: bytes of a killed client may still be arriving."""
        self.read_until(self._is_idle)

    def _is_idle(self) -> bool:
        """Return whether the socket has told what the server lists, and nothing is in progress.

        A state that is not in progress may be followed by another one that is on its way.
        """
        listed = {str(each["upload_id"]): each["state"] for each in self.server.uploads()}
        new = {name: state for name, state in listed.items() if name not in self.known_ids}
        told = {name: shown[-1]["state"] for name, shown in self.seen.items()}
        return new == told and not {"receiving", "processing"} & set(map(str, told.values()))

    def latest(self) -> list[Snapshot]:
        """Return the newest snapshot of each upload."""
        return [shown[-1] for shown in self.seen.values()]

    def is_in_progress(self, snapshot: Snapshot) -> bool:
        """Return whether an upload has received bytes and goes on."""
        return snapshot["state"] == "receiving" and snapshot["bytes_transferred"] != 0

    def assert_progress(self, *first: str) -> None:
        """Check that bytes grew and all uploads ended ``completed``, except the *first* states."""
        assert self.distinct_values() >= 2, self.seen
        ends = [str(each["state"]) for each in self.latest()]
        assert ends[: len(first)] == list(first), self.latest()
        assert set(ends[len(first) :]) == {"completed"}, self.latest()
        for shown in self.seen.values():
            # Bytes that the application has not kept are counted as repeated.
            counts = [arrived(each) for each in shown]
            assert counts == sorted(counts), shown
        assert self.latest()[-1]["percent"] == 100.0

    def distinct_values(self) -> int:
        """Return the number of distinct byte counts received while uploads were in progress."""
        return len(
            {
                (upload_id, each["bytes_transferred"])
                for upload_id, shown in self.seen.items()
                for each in shown
                if self.is_in_progress(each)
            }
        )


def arrived(snapshot: Snapshot) -> tuple[int, int]:
    """Return the attempt, and how many bytes have arrived in it, kept or not."""
    attempt, kept, repeated = numbers(
        snapshot, "attempt", "bytes_transferred", "retransmitted_bytes"
    )
    return attempt, kept + repeated


def numbers(snapshot: Snapshot, *names: str) -> list[int]:
    """Return numeric fields of a snapshot."""
    return [int(str(snapshot[name])) for name in names]


@contextmanager
def watch_uploads(server: ExampleServer) -> Iterator[UploadWatcher]:
    """Subscribe to all uploads of alice that begin while the block runs."""
    url = f"ws{server.url.removeprefix('http')}/uploads/progress"
    headers = {"Authorization": BASIC}
    known_ids = frozenset(str(upload["upload_id"]) for upload in server.uploads())
    with connect(url, additional_headers=headers, ssl=server.tls) as socket:
        socket.send(json.dumps({"type": "subscribe", "all": True}))
        yield UploadWatcher(server, socket, known_ids)
