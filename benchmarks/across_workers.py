"""Budget 14: how long a tenth of an upload takes from one worker to a watcher at another.

Two workers share Redis. A client sends pieces of a tenth to the first, at moments of its own, and
an event stream at the second tells of them. A delay is the time from when the client had handed
over a piece until the stream told of it, on one clock. Beside it: what a bare PUBLISH takes to a
bare SUBSCRIBE on the same Redis.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import msgspec
from attrs import define, field
from redis import Redis

from benchmarks.client import Server, head, open_stream, serving
from benchmarks.common import CannotRun, Figure, percentile, run
from benchmarks.updates import served
from tests._support.server_factories import redis
from upload_progress._tracking.flusher import FLUSH_SECONDS

CLAIM = "from one worker to a watcher at another"
PIECES = 10
PIECE = bytes(256 * 1024)
UPLOADS = 60
PAUSES = (0.02, 0.3)
BUDGET_MS = FLUSH_SECONDS * 1000 + 5
PATIENCE_SECONDS = 10.0


class Told(msgspec.Struct):
    """What a watcher is told, as far as it matters here."""

    upload_id: str
    bytes_transferred: int


@define(eq=False)
class Ear:
    """Reads an event stream, and notes when it was first told of how many bytes."""

    line: socket.socket
    heard: dict[str, dict[int, float]] = field(factory=dict)
    news: threading.Condition = field(factory=threading.Condition)

    def listen(self) -> None:
        """Read until the stream ends."""
        with self.line.makefile("rb") as lines:
            for text in lines:
                now = time.monotonic()
                name, _, data = text.partition(b": ")
                if name == b"data" and data.startswith(b"{"):
                    self._note(msgspec.json.decode(data, type=Told), now)

    def _note(self, told: Told, now: float) -> None:
        with self.news:
            self.heard.setdefault(told.upload_id, {}).setdefault(told.bytes_transferred, now)
            self.news.notify_all()

    def wait_for(self, upload_id: str, size_bytes: int) -> float:
        """Return when it was told of that many bytes, or more."""

        def told() -> float | None:
            moments = self.heard.get(upload_id, {}).items()
            return min((at for size, at in moments if size >= size_bytes), default=None)

        with self.news:
            if not self.news.wait_for(lambda: told() is not None, PATIENCE_SECONDS):
                raise CannotRun(f"nobody told of {size_bytes} bytes of {upload_id}")
            return told() or 0.0


def listening(line: socket.socket) -> Ear:
    """Let a thread read the event stream on *line*."""
    line.settimeout(None)
    ear = Ear(line)
    threading.Thread(target=ear.listen, daemon=True).start()
    return ear


def upload(server: Server, upload_id: str, by: random.Random, user: str) -> list[float]:
    """Send an upload in tenths; return when each was handed over."""
    handed = []
    with closing(server.connect()) as connection:
        size_bytes = PIECES * len(PIECE)
        connection.sendall(
            head("PUT", "/followed", upload_id=upload_id, content_length=size_bytes, x_user=user)
        )
        for _ in range(PIECES):
            time.sleep(by.uniform(*PAUSES))
            connection.sendall(PIECE)
            handed.append(time.monotonic())
        if b" 200 " not in connection.recv(65536):
            raise CannotRun("PUT /followed failed")
    return handed


def delays(
    server: Server, ear: Ear, uploads: int, *, user: str = "benchmark"
) -> Iterator[tuple[int, float]]:
    """Upload, one after the other; yield each piece's number, and its delay in milliseconds."""
    by = random.Random(14)  # no secret
    for number in range(uploads):
        upload_id = f"upload-{number}-0123456789abcdef"
        for transfer_head, at in enumerate(upload(server, upload_id, by, user), start=1):
            yield transfer_head, (ear.wait_for(upload_id, transfer_head * len(PIECE)) - at) * 1000


def bare(url: str, messages: int) -> list[float]:
    """Return how long messages take through Redis alone, in milliseconds."""
    taken = []
    with Redis.from_url(url) as client, client.pubsub() as subscription:
        subscription.subscribe("bare")
        subscription.get_message(timeout=PATIENCE_SECONDS)
        for _ in range(messages):
            time.sleep(0.001)
            begun = time.perf_counter()
            client.publish("bare", bytes(512))
            subscription.get_message(timeout=PATIENCE_SECONDS)
            taken.append((time.perf_counter() - begun) * 1000)
    return taken


def measure() -> list[Figure]:
    """Measure both, and tell the first tenths apart: a new upload is held back."""
    with served(redis) as url, serving(url) as first, serving(url, processor=1) as second:
        with closing(open_stream(second, "/uploads/progress")) as line:
            # The pieces of a moment after the stream began are not of interest.
            taken = list(delays(first, listening(line), UPLOADS))
        floor = bare(url, 1000)
    everything = [delay for _, delay in taken]
    later = [delay for transfer_head, delay in taken if transfer_head > 1]
    p99 = percentile(everything, 0.99)
    return [
        Figure(
            what="p50",
            value=percentile(everything, 0.5),
            unit="ms",
            baseline=percentile(floor, 0.5),
        ),
        Figure(
            what="p99",
            value=p99,
            unit="ms",
            baseline=percentile(floor, 0.99),
            budget=f"<= {BUDGET_MS:g} ms",
            holds=p99 <= BUDGET_MS,
        ),
        Figure(what="longest", value=max(everything), unit="ms"),
        Figure(what="p99 without first tenths", value=percentile(later, 0.99), unit="ms"),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
