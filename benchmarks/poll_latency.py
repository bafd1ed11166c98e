"""Budget 15: how long a poll takes while the server receives an upload.

One client polls the progress of an upload that runs at full speed, another route of the same
server answers a document of the same size; they take turns. What both wait for is the server's
loop, busy with the upload.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

from benchmarks.client import PIECE, Server, head, serving
from benchmarks.common import CannotRun, Figure, percentile, run

CLAIM = "poll during an upload"
POLLS = 3000
ROUNDS = 5
BUDGET = 1.3
UPLOAD = "polled-upload-0123456789"


class Uploader(threading.Thread):
    """Uploads for as long as it is let, at half the speed of the loopback."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.is_over = False

    def run(self) -> None:
        with closing(self.server.connect()) as connection:
            connection.sendall(head("PUT", "/followed", upload_id=UPLOAD, content_length=1 << 50))
            while not self.is_over:
                connection.sendall(PIECE)
                time.sleep(0.001)


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer, which ends with its JSON object."""
    answer = connection.recv(65536)
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    return answer


def poll(server: Server, paths: list[str]) -> dict[str, list[float]]:
    """Ask for each path in turns, over one connection; return the milliseconds each took."""
    taken: dict[str, list[float]] = {path: [] for path in paths}
    heads = [(path, head("GET", path)) for path in paths]
    with closing(server.connect()) as connection:
        for _ in range(POLLS):
            for path, request in heads:
                begun = time.perf_counter()
                connection.sendall(request)
                answer = read_answer(connection)
                taken[path].append((time.perf_counter() - begun) * 1000)
                if b" 200 " not in answer[:20]:
                    raise CannotRun(f"{path}: {answer[:100]!r}")
    return taken


def measure() -> list[Figure]:
    """Poll while an upload runs; of the rounds the one that was disturbed least counts."""
    progress = f"/uploads/{UPLOAD}/progress"
    with serving() as server:
        uploader = Uploader(server)
        uploader.start()
        while b" 200 " not in answer_of(server, progress):
            time.sleep(0.01)
        rounds = [poll(server, ["/plain", progress]) for _ in range(ROUNDS)]
        uploader.is_over = True
        uploader.join()
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        plain = sorted(percentile(each["/plain"], share) for each in rounds)
        ours = min(percentile(each[progress], share) for each in rounds)
        ratio = ours / plain[0]
        figures.append(
            Figure(
                what=name,
                value=ours,
                unit="ms",
                baseline=plain[0],
                ratio=ratio,
                control=plain[1] / plain[0],
                budget=f"ratio <= {BUDGET}" if name == "p99" else "",
                holds=ratio <= BUDGET if name == "p99" else None,
            )
        )
    return figures


def answer_of(server: Server, path: str) -> bytes:
    """Return the beginning of an answer."""
    with closing(server.connect()) as connection:
        connection.sendall(head("GET", path))
        return connection.recv(65536)[:20]


if __name__ == "__main__":
    run(CLAIM, measure)
