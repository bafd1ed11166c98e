"""Budget 22: five thousand uploads at once, at two workers that share Redis.

How often the store is written to must depend on the flush interval, not on the uploads: counted
in virtual time, with a store in memory, against fifty uploads; then with real servers, each with
half of the uploads, which get a tenth every few seconds. There, too: what that takes the workers
of processor time and memory, against as many bare uploads, and how long one watched upload beside
them takes from one worker to the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from socket import socket

import anyio
import trio.testing
from attrs import define, field

from benchmarks.across_workers import delays, listening
from benchmarks.client import Server, head, most_connections, open_stream, serving
from benchmarks.common import CannotRun, Figure, percentile, run
from benchmarks.parallel_parts import CountedStore
from benchmarks.requests import BODY, OWNER, application, scope_of, swallow
from benchmarks.store_writes import VirtualClock
from benchmarks.updates import served
from tests._support.server_factories import redis
from upload_progress import Limits, ProgressTracker
from upload_progress._tracking.flusher import FLUSH_SECONDS
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message

CLAIM = "thousands of uploads at two workers"
FEW, MANY = 50, 5000
SECONDS = 10.0
PIECES = 10
PIECE = bytes(16 * 1024)
MOST_WRITES = 2 / FLUSH_SECONDS
"""A second: those of the two workers."""
ROUND_SECONDS = 5.0
ROUNDS = 4
BESIDE = 20


async def _put(app: UploadProgressMiddleware, number: int, uploads: int) -> None:
    """Send an upload in virtual time, evenly, its pieces between those of the others."""
    left = PIECES

    async def receive() -> Message:
        nonlocal left
        left -= 1
        await anyio.sleep(SECONDS / PIECES)
        return {"type": "http.request", "body": BODY, "more_body": left > 0}

    await anyio.sleep(SECONDS / PIECES * number / uploads)
    await app(scope_of(PIECES, f"upload-{number}"), receive, swallow)


async def _trips(uploads: int) -> int:
    store, limits = CountedStore(), Limits(tracked_per_owner=uploads, tracked_total=uploads)
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
        return store.trips


def trips(uploads: int) -> int:
    """Return the round trips to the store of so many uploads of ten seconds, in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(_trips, uploads, backend="trio", backend_options={"clock": clock})


@define(eq=False)
class Load:
    """Many uploads, which get a piece now and then, in turns."""

    connections: list[socket] = field(factory=list)
    place: int = 0

    def open(self, server: Server, path: str, user: str) -> None:
        """Begin one more."""
        connection = server.connect()
        self.connections.append(connection)
        size_bytes = len(PIECE) * PIECES
        connection.sendall(head("PUT", path, content_length=size_bytes, x_user=user))

    def send(self, seconds: float) -> None:
        """Send everybody a piece, evenly over *seconds*."""
        begun = time.monotonic()
        for number, connection in enumerate(self.connections):
            time.sleep(
                max(0.0, begun + seconds * number / len(self.connections) - time.monotonic())
            )
            connection.sendall(PIECE)

    def close(self) -> None:
        """Break off."""
        for connection in self.connections:
            with suppress(OSError):
                connection.close()


@define
class Use:
    """What the workers have used, and what they have done for it."""

    cpu_seconds: float
    writes: int
    records: int
    live: int
    resident_bytes: int
    at: float

    @classmethod
    def of(cls, workers: Sequence[Server]) -> Use:
        """Return it as it is now."""
        known = [worker.statistics() for worker in workers]
        return cls(
            sum(worker.cpu_seconds() for worker in workers),
            sum(each["store_writes"] for each in known),
            sum(each["records_written"] for each in known),
            sum(each["live_uploads"] for each in known),
            sum(worker.resident_bytes() for worker in workers),
            time.monotonic(),
        )


def loaded(workers: Sequence[Server], path: str, uploads: int) -> tuple[Use, Use, Use, list[float]]:
    """Let uploads run; return what was used before, at their middle, and after some rounds.

    And the delays of watched ones beside those that are followed.
    """
    before = Use.of(workers)
    with closing(Load()) as load:
        for number in range(uploads):
            load.open(workers[number % 2], path, f"user-{number // 100}")
        load.send(ROUND_SECONDS)
        middle = Use.of(workers)
        for _ in range(ROUNDS):
            load.send(ROUND_SECONDS)
        after = Use.of(workers)
        if path == "/followed" and after.live != uploads:
            raise CannotRun(f"{after.live} of {uploads} uploads are followed")
        beside: list[float] = []
        if path == "/followed":
            with closing(open_stream(workers[1], "/uploads/progress")) as line:
                beside = [taken for _, taken in delays(workers[0], listening(line), BESIDE)]
    time.sleep(1)
    return before, middle, after, beside


def real() -> list[Figure]:
    """Load real workers, first without and then with progress."""
    uploads = most_connections(MANY)
    with served(redis) as url, serving(url) as first, serving(url, processor=1) as second:
        bare_before, bare_middle, bare_after, _ = loaded([first, second], "/bare", uploads)
        before, middle, after, beside = loaded([first, second], "/followed", uploads)
    seconds = after.at - middle.at
    writes = (after.writes - middle.writes) / seconds
    records = (after.records - middle.records) / seconds
    cpu = (after.cpu_seconds - middle.cpu_seconds) / seconds
    bare_cpu = (bare_after.cpu_seconds - bare_middle.cpu_seconds) / (bare_after.at - bare_middle.at)
    size = (after.resident_bytes - before.resident_bytes) / uploads
    bare_size = (bare_after.resident_bytes - bare_before.resident_bytes) / uploads
    return [
        Figure(
            what=f"{uploads} uploads, {records:.0f} records a second stored: in how many batches",
            value=writes,
            unit="a second",
            budget=f"<= {MOST_WRITES:g}",
            holds=writes <= MOST_WRITES,
        ),
        Figure(
            what="the same: processor time of both workers",
            value=cpu,
            unit="CPU s/s",
            baseline=bare_cpu,
            ratio=cpu / bare_cpu,
        ),
        Figure(
            what="the same: memory of each upload, with its connection",
            value=size,
            unit="B resident",
            baseline=bare_size,
            ratio=size / bare_size,
        ),
        Figure(
            what="the same: p99 of an upload beside them, from one worker to the other",
            value=percentile(beside, 0.99),
            unit="ms",
        ),
    ]


def measure() -> list[Figure]:
    """Count in virtual time, then load real workers."""
    few, many = trips(FEW), trips(MANY)
    return [
        Figure(
            what=f"round trips of {MANY} uploads of {SECONDS:g} s, against those of {FEW}",
            value=many,
            unit="round trips",
            baseline=few,
            ratio=many / few,
            budget="ratio <= 1.1",
            holds=many <= 1.1 * few,
        ),
        *real(),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
