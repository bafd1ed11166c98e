"""Budget 22: five thousand concurrent uploads on two workers that share Redis.

The number of writes to the store must depend on the flush interval, not on the number of uploads.
It is counted in virtual time with a memory store, against fifty uploads; then with real servers,
each with half of the uploads, which receive a chunk every few seconds. Also measured: CPU time and
memory of the workers, against untracked uploads, and the latency of one more upload from one worker
to the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from socket import socket

import anyio
import trio.testing
from attrs import define, field

from benchmarks.client import Server, max_connections, open_stream, request_head, running_server
from benchmarks.cross_worker_latency import measure_delays, start_reader
from benchmarks.harness import BenchmarkUnavailable, Figure, percentile, run
from benchmarks.parallel_parts import RoundTripStore
from benchmarks.store_throughput import running_backend
from benchmarks.store_writes import VirtualClock
from benchmarks.synthetic_requests import BODY, OWNER, application, discard, scope_of
from tests._support.server_factories import redis
from upload_progress import Limits, ProgressTracker
from upload_progress._reporting.flusher import FLUSH_SECONDS
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message

TITLE = "thousands of uploads on two workers"
FEW, MANY = 50, 5000
SECONDS = 10.0
CHUNKS = 10
CHUNK = bytes(16 * 1024)
MAX_WRITES_PER_SECOND = 2 / FLUSH_SECONDS
"""Of both workers."""
ROUND_SECONDS = 5.0
ROUNDS = 4
PROBES = 20


async def _put(app: UploadProgressMiddleware, number: int, uploads: int) -> None:
    """Send an upload evenly in virtual time; the uploads are interleaved."""
    remaining = CHUNKS

    async def receive() -> Message:
        nonlocal remaining
        remaining -= 1
        await anyio.sleep(SECONDS / CHUNKS)
        return {"type": "http.request", "body": BODY, "more_body": remaining > 0}

    await anyio.sleep(SECONDS / CHUNKS * number / uploads)
    await app(scope_of(CHUNKS, f"upload-{number}"), receive, discard)


async def _count_round_trips(uploads: int) -> int:
    store, limits = RoundTripStore(), Limits(tracked_per_owner=uploads, tracked_total=uploads)
    store.clock = VirtualClock()
    trackers = [ProgressTracker(store=store, clock=store.clock, limits=limits) for _ in range(2)]
    apps = [
        UploadProgressMiddleware(application, tracker=tracker, authenticate=lambda _: OWNER)
        for tracker in trackers
    ]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        async with anyio.create_task_group() as tasks:
            for number in range(uploads):
                tasks.start_soon(_put, apps[number % 2], number, uploads)
        await anyio.sleep(1)
        return store.round_trips


def count_round_trips(uploads: int) -> int:
    """Return the store round trips of *uploads* uploads of ten seconds, in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(_count_round_trips, uploads, backend="trio", backend_options={"clock": clock})


@define(eq=False)
class UploadLoad:
    """Many uploads that receive chunks in turn."""

    connections: list[socket] = field(factory=list)
    position: int = 0

    def open(self, server: Server, path: str, user: str) -> None:
        """Start one more upload."""
        connection = server.connect()
        self.connections.append(connection)
        size_bytes = len(CHUNK) * CHUNKS
        connection.sendall(request_head("PUT", path, content_length=size_bytes, x_user=user))

    def send(self, seconds: float) -> None:
        """Send a chunk of each upload, evenly over *seconds*."""
        started = time.monotonic()
        for number, connection in enumerate(self.connections):
            time.sleep(
                max(0.0, started + seconds * number / len(self.connections) - time.monotonic())
            )
            connection.sendall(CHUNK)

    def close(self) -> None:
        """Abort all uploads."""
        for connection in self.connections:
            with suppress(OSError):
                connection.close()


@define
class ResourceUsage:
    """CPU time, memory and store writes of both workers."""

    cpu_seconds: float
    writes: int
    records: int
    live_uploads: int
    resident_bytes: int
    measured_at: float

    @classmethod
    def of(cls, workers: Sequence[Server]) -> ResourceUsage:
        """Return the current usage."""
        statistics = [worker.statistics() for worker in workers]
        return cls(
            sum(worker.cpu_seconds() for worker in workers),
            sum(each["store_writes"] for each in statistics),
            sum(each["records_written"] for each in statistics),
            sum(each["live_uploads"] for each in statistics),
            sum(worker.resident_bytes() for worker in workers),
            time.monotonic(),
        )


def apply_load(
    workers: Sequence[Server], path: str, uploads: int
) -> tuple[ResourceUsage, ResourceUsage, ResourceUsage, list[float]]:
    """Run uploads; return the usage before, in the middle and after, and latencies.

    The latencies are those of further, watched uploads.
    """
    before = ResourceUsage.of(workers)
    with closing(UploadLoad()) as load:
        for number in range(uploads):
            load.open(workers[number % 2], path, f"user-{number // 100}")
        load.send(ROUND_SECONDS)
        middle = ResourceUsage.of(workers)
        for _ in range(ROUNDS):
            load.send(ROUND_SECONDS)
        after = ResourceUsage.of(workers)
        if path == "/tracked" and after.live_uploads != uploads:
            raise BenchmarkUnavailable(f"{after.live_uploads} of {uploads} uploads are tracked")
        latencies: list[float] = []
        if path == "/tracked":
            with closing(open_stream(workers[1], "/uploads/progress")) as connection:
                latencies = [
                    latency
                    for _, latency in measure_delays(workers[0], start_reader(connection), PROBES)
                ]
    time.sleep(1)
    return before, middle, after, latencies


def measure_servers() -> list[Figure]:
    """Measure real workers, without and with tracking."""
    uploads = max_connections(MANY)
    with (
        running_backend(redis) as url,
        running_server(url) as first,
        running_server(url, processor=1) as second,
    ):
        untracked_before, untracked_middle, untracked_after, _ = apply_load(
            [first, second], "/untracked", uploads
        )
        before, middle, after, latencies = apply_load([first, second], "/tracked", uploads)
    seconds = after.measured_at - middle.measured_at
    writes = (after.writes - middle.writes) / seconds
    records = (after.records - middle.records) / seconds
    cpu = (after.cpu_seconds - middle.cpu_seconds) / seconds
    untracked_cpu = (untracked_after.cpu_seconds - untracked_middle.cpu_seconds) / (
        untracked_after.measured_at - untracked_middle.measured_at
    )
    size = (after.resident_bytes - before.resident_bytes) / uploads
    untracked_size = (untracked_after.resident_bytes - untracked_before.resident_bytes) / uploads
    return [
        Figure(
            name=f"{uploads} uploads, {records:.0f} records/s: store writes",
            value=writes,
            unit="writes/s",
            budget=f"<= {MAX_WRITES_PER_SECOND:g}",
            is_met=writes <= MAX_WRITES_PER_SECOND,
        ),
        Figure(
            name="the same: CPU of both workers",
            value=cpu,
            unit="CPU s/s",
            baseline=untracked_cpu,
            ratio=cpu / untracked_cpu,
        ),
        Figure(
            name="the same: memory per upload, with its connection",
            value=size,
            unit="B resident",
            baseline=untracked_size,
            ratio=size / untracked_size,
        ),
        Figure(
            name="the same: p99 latency of one more upload, from one worker to the other",
            value=percentile(latencies, 0.99),
            unit="ms",
        ),
    ]


def measure() -> list[Figure]:
    """Count in virtual time, then measure real workers."""
    few, many = count_round_trips(FEW), count_round_trips(MANY)
    return [
        Figure(
            name=f"store round trips of {MANY} uploads of {SECONDS:g} s, against {FEW} uploads",
            value=many,
            unit="round trips",
            baseline=few,
            ratio=many / few,
            budget="ratio <= 1.1",
            is_met=many <= 1.1 * few,
        ),
        *measure_servers(),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
