"""Load client: raw sockets that count received bytes and do not parse them."""

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

from benchmarks.harness import ROOT, BenchmarkUnavailable, child_environment, pin_to_processor

TIMEOUT_SECONDS = 60.0
QUIET_SECONDS = 0.3
CHUNK = bytes(1024 * 1024)
HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"


@contextmanager
def running_server(
    url: str = "memory:", *, processor: int = 0, budget: float = 2000.0
) -> Iterator[Server]:
    """Run the server under test on one processor and this process on another.

    Args:
        url: The URL of the store and publisher.
        processor: The processor of the server; this process uses the last one.
        budget: How many records per second the server writes to the store.
    """
    with closing(socket.create_server(("127.0.0.1", 0), backlog=2048)) as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.server"),
                *(str(listener.fileno()), str(processor), url, str(budget)),
            ],
            cwd=ROOT,
            env=child_environment(),
            pass_fds=[listener.fileno()],
        )
        server = Server(listener.getsockname()[1], process.pid)
    pin_to_processor(-1)
    try:
        server.get("/plain")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def request_head(method: str, path: str, **headers: object) -> bytes:
    """Return a serialized HTTP request head."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return HEAD.format(method=method, path=path, headers=lines).encode()


@frozen
class Server:
    """The running server under test."""

    port: int
    pid: int

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_SECONDS)

    def request(self, method: str, path: str) -> bytes:
        """Send a request; return the response body."""
        with closing(self.connect()) as connection:
            connection.sendall(request_head(method, path, connection="close"))
            response = b"".join(iter(lambda: connection.recv(65536), b""))
        first, _, rest = response.partition(b"\r\n")
        if b" 200 " not in first:
            raise BenchmarkUnavailable(f"{method} {path}: {first.decode()}")
        return rest.partition(b"\r\n\r\n")[2]

    def get(self, path: str) -> bytes:
        """Return the body of a GET."""
        return self.request("GET", path)

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used."""
        return float(self.get("/cpu"))

    def resident_bytes(self) -> int:
        """Return the resident memory of the server."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()

    def statistics(self) -> dict[str, int]:
        """Return the statistics of the tracker."""
        statistics: dict[str, int] = json.loads(self.get("/statistics"))
        return statistics

    def put(self, path: str, size_bytes: int) -> float:
        """Upload *size_bytes*; return the seconds until the response."""
        with closing(self.connect()) as connection:
            started = time.perf_counter()
            connection.sendall(request_head("PUT", path, content_length=size_bytes))
            for _ in range(size_bytes // len(CHUNK)):
                connection.sendall(CHUNK)
            if b" 200 " not in connection.recv(65536):
                raise BenchmarkUnavailable(f"PUT {path} failed")
            return time.perf_counter() - started

    def fan_out(self, kind: str, *, passes: int, batch: int) -> FanOutResult:
        """Let the server send events to all clients of *kind*."""
        response = json.loads(
            self.request("POST", f"/fan?kind={kind}&passes={passes}&batch={batch}")
        )
        return FanOutResult(response["sizes"], response["cpu_seconds"])


@frozen
class FanOutResult:
    """The JSON sizes that the server sent to each client in each pass, and its CPU time."""

    sizes: list[list[int]]
    cpu_seconds: float

    def socket_bytes(self) -> int:
        """Return the bytes sent to each WebSocket: frame header, envelope, snapshot."""
        envelope = len('{"type":"progress","upload":}')
        return sum(4 + envelope + size for sizes in self.sizes for size in sizes)

    def stream_bytes(self) -> int:
        """Return the minimum of bytes sent to each event stream: field names and snapshot."""
        return sum(len("id: 1001\ndata: \n\n") + size for sizes in self.sizes for size in sizes)


@define(eq=False)
class ConnectionGroup:
    """Many connections, whose received bytes are counted."""

    connections: list[socket.socket] = field(factory=list)
    received_bytes: int = 0
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def add(self, connection: socket.socket) -> None:
        """Add a connection."""
        connection.setblocking(False)
        self.connections.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def read(self, timeout_seconds: float) -> bool:
        """Read what is available; return False if nothing arrives in time."""
        ready = self._selector.select(timeout_seconds)
        for key, _ in ready:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            self.received_bytes += len(connection.recv(1024 * 1024))
        return bool(ready)

    def discard_pending(self) -> None:
        """Read until the connections are idle, and reset the count."""
        while self.read(QUIET_SECONDS):
            pass
        self.received_bytes = 0

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()
        self._selector.close()


def open_socket(server: Server, path: str, *, subscribe: bool) -> socket.socket:
    """Open a WebSocket; the accept key of the server is not verified."""
    connection = server.connect()
    connection.sendall(
        request_head(
            "GET",
            path,
            connection="Upgrade",
            upgrade="websocket",
            sec_websocket_version=13,
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
        )
    )
    if b" 101 " not in connection.recv(65536, socket.MSG_PEEK):
        raise BenchmarkUnavailable(f"no WebSocket at {path}")
    if subscribe:
        text = b'{"type":"subscribe","all":true}'
        # Client frames are masked; the mask is zero.
        connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return connection


def open_stream(server: Server, path: str) -> socket.socket:
    """Open an event stream."""
    connection = server.connect()
    connection.sendall(request_head("GET", path, accept="text/event-stream"))
    if b" 200 " not in connection.recv(65536, socket.MSG_PEEK):
        raise BenchmarkUnavailable(f"no event stream at {path}")
    return connection


def max_connections(wanted: int) -> int:
    """Return how many of *wanted* clients the limit on open files allows, after raising it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return wanted if limit >= 2 * wanted + 200 else wanted // 2
