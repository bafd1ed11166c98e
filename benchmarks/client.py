"""The other side: raw sockets, in a process of its own, that look at bytes and not into them."""

from __future__ import annotations

import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.common import ROOT, CannotRun, child_environment, own_cpu

PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 0.3
PIECE = bytes(1024 * 1024)
HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"


@contextmanager
def serving(url: str = "memory:", *, processor: int = 0) -> Iterator[Server]:
    """Run the server under test while the block runs, on one processor, and stay on another.

    Args:
        url: Of its store, which is its publisher as well.
        processor: The server's; this process has the last.
    """
    with closing(socket.create_server(("127.0.0.1", 0), backlog=2048)) as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.server"),
                *(str(listener.fileno()), str(processor), url),
            ],
            cwd=ROOT,
            env=child_environment(),
            pass_fds=[listener.fileno()],
        )
        server = Server(listener.getsockname()[1], process.pid)
    own_cpu(-1)
    try:
        server.get("/plain")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def head(method: str, path: str, **headers: object) -> bytes:
    """Return the head of a request."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return HEAD.format(method=method, path=path, headers=lines).encode()


@frozen
class Server:
    """Where the server under test listens."""

    port: int
    pid: int

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def request(self, method: str, path: str) -> bytes:
        """Return the body of a small answer."""
        with closing(self.connect()) as connection:
            connection.sendall(head(method, path, connection="close"))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        first, _, rest = answer.partition(b"\r\n")
        if b" 200 " not in first:
            raise CannotRun(f"{method} {path}: {first.decode()}")
        return rest.partition(b"\r\n\r\n")[2]

    def get(self, path: str) -> bytes:
        """Return what is at *path*."""
        return self.request("GET", path)

    def cpu_seconds(self) -> float:
        """Return how much processor time the server has used."""
        return float(self.get("/cpu"))

    def resident_bytes(self) -> int:
        """Return how much memory the server has."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()

    def statistics(self) -> dict[str, int]:
        """Return what the server's tracker has done."""
        found: dict[str, int] = json.loads(self.get("/statistics"))
        return found

    def put(self, path: str, size_bytes: int) -> float:
        """Upload that much; return the seconds it took until it was answered."""
        with closing(self.connect()) as connection:
            begun = time.perf_counter()
            connection.sendall(head("PUT", path, content_length=size_bytes))
            for _ in range(size_bytes // len(PIECE)):
                connection.sendall(PIECE)
            if b" 200 " not in connection.recv(65536):
                raise CannotRun(f"PUT {path} failed")
            return time.perf_counter() - begun

    def fan(self, kind: str, *, passes: int, batch: int) -> Fanned:
        """Let the server send events to everybody of *kind*."""
        answer = json.loads(self.request("POST", f"/fan?kind={kind}&passes={passes}&batch={batch}"))
        return Fanned(answer["sizes"], answer["cpu_seconds"])


@frozen
class Fanned:
    """What the server sent to each client: the JSON sizes of each pass, and what it took."""

    sizes: list[list[int]]
    cpu_seconds: float

    def socket_bytes(self) -> int:
        """Return how many bytes each WebSocket got: frame, envelope, snapshot."""
        envelope = len('{"type":"progress","upload":}')
        return sum(4 + envelope + size for sizes in self.sizes for size in sizes)

    def stream_bytes(self) -> int:
        """Return how many bytes each event stream got, at the least: field names and snapshot."""
        return sum(len("id: 1001\ndata: \n\n") + size for sizes in self.sizes for size in sizes)


@define(eq=False)
class Crowd:
    """Many connections that are read, and of which only the bytes are counted."""

    connections: list[socket.socket] = field(factory=list)
    received_bytes: int = 0
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def join(self, connection: socket.socket) -> None:
        """Read from *connection* as well."""
        connection.setblocking(False)
        self.connections.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def read(self, timeout_seconds: float) -> bool:
        """Read what there is; return False when nothing came in time."""
        ready = self._selector.select(timeout_seconds)
        for key, _ in ready:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            self.received_bytes += len(connection.recv(1024 * 1024))
        return bool(ready)

    def load_prior_state(self) -> None:
        """Read until nothing comes any more, and begin to count anew."""
        while self.read(QUIET_SECONDS):
            pass
        self.received_bytes = 0

    def close(self) -> None:
        """Hang up."""
        for connection in self.connections:
            connection.close()
        self._selector.close()


def open_socket(server: Server, path: str, *, subscribe: bool) -> socket.socket:
    """Open a WebSocket; the upgrade is asked for, and its answer is not looked at."""
    connection = server.connect()
    connection.sendall(
        head(
            "GET",
            path,
            connection="Upgrade",
            upgrade="websocket",
            sec_websocket_version=13,
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
        )
    )
    if b" 101 " not in connection.recv(65536, socket.MSG_PEEK):
        raise CannotRun(f"no WebSocket at {path}")
    if subscribe:
        text = b'{"type":"subscribe","all":true}'
        # A masked frame, as a client's must be; the mask is zero.
        connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return connection


def open_stream(server: Server, path: str) -> socket.socket:
    """Open an event stream."""
    connection = server.connect()
    connection.sendall(head("GET", path, accept="text/event-stream"))
    if b" 200 " not in connection.recv(65536, socket.MSG_PEEK):
        raise CannotRun(f"no event stream at {path}")
    return connection


def most_connections(wanted: int) -> int:
    """Return how many clients the limit on open files allows, after raising it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return wanted if most >= 2 * wanted + 200 else wanted // 2
