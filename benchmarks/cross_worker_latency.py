"""Budget 14: latency from one worker to a subscriber of another.

Two workers share Redis. A client sends uploads in ten chunks at random times to the first worker,
and reads an event stream of the second. The latency is the time from sending a chunk until the
stream reports it, on one clock. The baseline is a PUBLISH to a SUBSCRIBE on the same Redis.
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

from benchmarks.client import Server, open_stream, request_head, running_server
from benchmarks.harness import BenchmarkUnavailable, Figure, percentile, run
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import redis
from upload_progress._reporting.flusher import FLUSH_SECONDS

TITLE = "latency from one worker to a subscriber of another"
CHUNKS = 10
CHUNK = bytes(256 * 1024)
UPLOADS = 60
PAUSE_SECONDS = (0.02, 0.3)
BUDGET_MS = FLUSH_SECONDS * 1000 + 5
TIMEOUT_SECONDS = 10.0


class ProgressMessage(msgspec.Struct):
    """The part of a snapshot that this benchmark needs."""

    upload_id: str
    bytes_transferred: int


@define(eq=False)
class StreamReader:
    """Reads an event stream and records when each byte count was first received."""

    connection: socket.socket
    received_at: dict[str, dict[int, float]] = field(factory=dict)
    condition: threading.Condition = field(factory=threading.Condition)

    def read(self) -> None:
        """Read until the stream ends."""
        with self.connection.makefile("rb") as lines:
            for text in lines:
                now = time.monotonic()
                name, _, data = text.partition(b": ")
                if name == b"data" and data.startswith(b"{"):
                    self._record(msgspec.json.decode(data, type=ProgressMessage), now)

    def _record(self, message: ProgressMessage, now: float) -> None:
        with self.condition:
            self.received_at.setdefault(message.upload_id, {}).setdefault(
                message.bytes_transferred, now
            )
            self.condition.notify_all()

    def wait_for(self, upload_id: str, size_bytes: int) -> float:
        """Return when at least *size_bytes* were first reported."""

        def reported_at() -> float | None:
            times = self.received_at.get(upload_id, {}).items()
            return min((at for size, at in times if size >= size_bytes), default=None)

        with self.condition:
            if not self.condition.wait_for(lambda: reported_at() is not None, TIMEOUT_SECONDS):
                raise BenchmarkUnavailable(f"{size_bytes} bytes of {upload_id} were not reported")
            return reported_at() or 0.0


def start_reader(connection: socket.socket) -> StreamReader:
    """Start a thread that reads the event stream of *connection*."""
    connection.settimeout(None)
    reader = StreamReader(connection)
    threading.Thread(target=reader.read, daemon=True).start()
    return reader


def upload(server: Server, upload_id: str, rng: random.Random, user: str) -> list[float]:
    """Upload in ten chunks; return when each was sent."""
    sent_at = []
    with closing(server.connect()) as connection:
        size_bytes = CHUNKS * len(CHUNK)
        connection.sendall(
            request_head(
                "PUT", "/tracked", upload_id=upload_id, content_length=size_bytes, x_user=user
            )
        )
        for _ in range(CHUNKS):
            time.sleep(rng.uniform(*PAUSE_SECONDS))
            connection.sendall(CHUNK)
            sent_at.append(time.monotonic())
        if b" 200 " not in connection.recv(65536):
            raise BenchmarkUnavailable("PUT /tracked failed")
    return sent_at


def measure_delays(
    server: Server, reader: StreamReader, uploads: int, *, user: str = "benchmark"
) -> Iterator[tuple[int, float]]:
    """Upload one after the other; yield the number of each chunk and its latency in ms."""
    rng = random.Random(14)  # not secret
    for number in range(uploads):
        upload_id = f"upload-{number}-0123456789abcdef"
        for chunk, at in enumerate(upload(server, upload_id, rng, user), start=1):
            yield chunk, (reader.wait_for(upload_id, chunk * len(CHUNK)) - at) * 1000


def measure_redis(url: str, messages: int) -> list[float]:
    """Return the latency of messages through Redis alone, in milliseconds."""
    durations = []
    with Redis.from_url(url) as client, client.pubsub() as subscription:
        subscription.subscribe("benchmark")
        subscription.get_message(timeout=TIMEOUT_SECONDS)
        for _ in range(messages):
            time.sleep(0.001)
            started = time.perf_counter()
            client.publish("benchmark", bytes(512))
            subscription.get_message(timeout=TIMEOUT_SECONDS)
            durations.append((time.perf_counter() - started) * 1000)
    return durations


def measure() -> list[Figure]:
    """Measure both; separate the first chunks, which wait for the first flush of an upload."""
    with (
        running_backend(redis) as url,
        running_server(url) as first,
        running_server(url, processor=1) as second,
    ):
        with closing(open_stream(second, "/uploads/progress")) as connection:
            # The stream is open before the first upload starts.
            durations = list(measure_delays(first, start_reader(connection), UPLOADS))
        redis_delays = measure_redis(url, 1000)
    delays = [delay for _, delay in durations]
    later = [delay for chunk, delay in durations if chunk > 1]
    p99 = percentile(delays, 0.99)
    return [
        Figure(
            name="p50",
            value=percentile(delays, 0.5),
            unit="ms",
            baseline=percentile(redis_delays, 0.5),
        ),
        Figure(
            name="p99",
            value=p99,
            unit="ms",
            baseline=percentile(redis_delays, 0.99),
            budget=f"<= {BUDGET_MS:g} ms",
            is_met=p99 <= BUDGET_MS,
        ),
        Figure(name="maximum", value=max(delays), unit="ms"),
        Figure(name="p99 without the first 10 %", value=percentile(later, 0.99), unit="ms"),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
