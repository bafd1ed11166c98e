"""Budget 15: latency of a poll while the server receives an upload.

A client alternates between polling the progress of a running upload and requesting a static
document of the same size. Both wait for the event loop, which is busy with the upload.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

from benchmarks.client import CHUNK, Server, request_head, running_server
from benchmarks.harness import BenchmarkUnavailable, Figure, percentile, run

TITLE = "poll latency during an upload"
POLLS = 3000
ROUNDS = 5
BUDGET = 1.3
UPLOAD_ID = "polled-upload-0123456789"


class Uploader(threading.Thread):
    """Uploads until stopped, at half the speed of the loopback interface."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.is_stopped = False

    def run(self) -> None:
        with closing(self.server.connect()) as connection:
            connection.sendall(
                request_head("PUT", "/tracked", upload_id=UPLOAD_ID, content_length=1 << 50)
            )
            while not self.is_stopped:
                connection.sendall(CHUNK)
                time.sleep(0.001)


def read_response(connection: socket.socket) -> bytes:
    """Read one response, which ends with its JSON object."""
    response = b""
    while not response.endswith(b"}"):
        received = connection.recv(65536)
        if not received:
            raise BenchmarkUnavailable("the server has closed the connection")
        response += received
    return response


def poll(server: Server, paths: list[str]) -> dict[str, list[float]]:
    """Request the paths alternately over one connection; return the milliseconds of each."""
    durations: dict[str, list[float]] = {path: [] for path in paths}
    request_heads = [(path, request_head("GET", path)) for path in paths]
    with closing(server.connect()) as connection:
        for _ in range(POLLS):
            for path, request in request_heads:
                started = time.perf_counter()
                connection.sendall(request)
                response = read_response(connection)
                durations[path].append((time.perf_counter() - started) * 1000)
                if b" 200 " not in response[:20]:
                    raise BenchmarkUnavailable(f"{path}: {response[:100]!r}")
    return durations


def measure() -> list[Figure]:
    """Poll while an upload runs; use the fastest round."""
    progress = f"/uploads/{UPLOAD_ID}/progress"
    with running_server() as server:
        uploader = Uploader(server)
        uploader.start()
        while b" 200 " not in response_start(server, progress):
            time.sleep(0.01)
        rounds = [poll(server, ["/plain", progress]) for _ in range(ROUNDS)]
        uploader.is_stopped = True
        uploader.join()
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        plain_latencies = sorted(percentile(each["/plain"], share) for each in rounds)
        progress_latency = min(percentile(each[progress], share) for each in rounds)
        ratio = progress_latency / plain_latencies[0]
        figures.append(
            Figure(
                name=name,
                value=progress_latency,
                unit="ms",
                baseline=plain_latencies[0],
                ratio=ratio,
                control=plain_latencies[1] / plain_latencies[0],
                budget=f"ratio <= {BUDGET}" if name == "p99" else "",
                is_met=ratio <= BUDGET if name == "p99" else None,
            )
        )
    return figures


def response_start(server: Server, path: str) -> bytes:
    """Return the start of a response."""
    with closing(server.connect()) as connection:
        connection.sendall(request_head("GET", path))
        return connection.recv(65536)[:20]


if __name__ == "__main__":
    run(TITLE, measure)
