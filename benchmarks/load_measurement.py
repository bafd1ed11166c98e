"""Measurements of the load that uploads and watchers are: real workers that share a real Redis."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from statistics import median

import anyio
import msgspec
from attrs import define, field, frozen
from redis import Redis

from benchmarks.client import Server, max_connections, request_head, running_server
from benchmarks.harness import BenchmarkUnavailable, percentile
from benchmarks.load_simulation import (
    CHUNK_BYTES,
    OWNER_UPLOADS,
    SECONDS,
    START_SECONDS,
    TOTAL_BYTES,
    WARM_SECONDS,
    Ages,
    Load,
    begin,
    watched_count,
)
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import redis
from upload_progress import Limits, ProgressTracker
from upload_progress._internals import internals_of
from upload_progress._tracking import outcomes

CHUNK = bytes(CHUNK_BYTES)
WATCHERS = 1000
TICKS = 100
"""How often in a second the next uploads get a chunk."""
PASSES = 10
PASS_SIZES = (50, 250)


class SeenSnapshot(msgspec.Struct):
    """The part of a snapshot that is needed here."""

    upload_id: str
    updated_at: datetime


@frozen
class Case:
    """How many uploads there are, and how many records per second each worker may write."""

    uploads: int
    budget: float


@frozen
class PassCost:
    """How long a pass of the flusher takes with Redis: a part, and a part for each record."""

    pass_seconds: float
    record_seconds: float


@frozen
class WatcherCost:
    """What watchers cost, each of one upload at another worker.

    Attributes:
        watchers: How many were measured.
        resident_bytes: The memory of an event stream at its worker.
        update_cpu_seconds: CPU time of that worker for an update, from Redis to the event stream.
        update_store_cpu_seconds: CPU time of Redis for an update: to store and publish it.
        p99_seconds: p99 of the time from a report until it is seen.
        connections: How many connections to Redis a worker has.
    """

    watchers: int
    resident_bytes: float
    update_cpu_seconds: float
    update_store_cpu_seconds: float
    p99_seconds: float
    connections: float


async def _measure_pass(url: str, records: int) -> float:
    tracker = ProgressTracker.from_url(url, limits=Limits(tracked_per_owner=records))
    internals = internals_of(tracker)
    lives = [begin(internals, "pass", f"pass-{records}-{number}") for number in range(records)]
    durations = []
    for _ in range(PASSES):
        for live in lives:
            live.mark_due()
        started = time.perf_counter()
        await internals.flusher.flush(everything=True)
        durations.append(time.perf_counter() - started)
    for live in lives:
        outcomes.client_disconnected(live)
    await internals.flusher.flush(everything=True)
    # The first passes connect, and store new uploads.
    return median(durations[2:])


def measure_pass(url: str) -> PassCost:
    """Measure passes of two sizes."""
    few, many = PASS_SIZES
    few_seconds, many_seconds = (anyio.run(_measure_pass, url, size) for size in PASS_SIZES)
    record_seconds = (many_seconds - few_seconds) / (many - few)
    return PassCost(max(0.0, few_seconds - few * record_seconds), record_seconds)


@contextmanager
def watching(server: Server, owner: str) -> Iterator[Ages]:
    """Read the event stream of *owner* in a thread."""
    ages, connection = Ages(), open_owner_stream(server, owner)
    connection.settimeout(None)

    def read() -> None:
        with suppress(OSError, ValueError), connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"data: {"):
                    seen = msgspec.json.decode(line[6:], type=SeenSnapshot)
                    ages.seen[seen.upload_id].append((time.time(), seen.updated_at.timestamp()))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield ages
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        connection.close()


def open_owner_stream(server: Server, owner: str) -> socket.socket:
    """Open the event stream of *owner*."""
    connection = server.connect()
    head = request_head("GET", "/uploads/progress", accept="text/event-stream", x_user=owner)
    connection.sendall(head)
    if b" 200 " not in connection.recv(65536, socket.MSG_PEEK):
        raise BenchmarkUnavailable("no event stream")
    return connection


@define(eq=False)
class Sender:
    """Sends a chunk of each upload every second, and of the watched ones every quarter.

    Attributes:
        chunks: How many were sent. On a machine that is too slow they are fewer than is said above.
    """

    path: str
    seldom: list[socket.socket] = field(factory=list)
    often: list[socket.socket] = field(factory=list)
    chunks: int = field(default=0, init=False)

    def open(self, server: Server, owner: str, upload_id: str) -> socket.socket:
        """Start an upload."""
        connection = server.connect()
        head = request_head(
            "PUT", self.path, content_length=TOTAL_BYTES, x_user=owner, upload_id=upload_id
        )
        connection.sendall(head)
        return connection

    def send(self, seconds: int) -> None:
        """Send evenly for that many seconds."""
        started = time.monotonic()
        for tick in range(seconds * TICKS):
            due_now = self.seldom[tick % TICKS :: TICKS]
            if tick % (TICKS // 4) == 0:
                due_now = [*self.often, *due_now]
            for connection in due_now:
                connection.sendall(CHUNK)
            self.chunks += len(due_now)
            time.sleep(max(0.0, started + (tick + 1) / TICKS - time.monotonic()))

    def close(self) -> None:
        """Abort all uploads."""
        for connection in [*self.seldom, *self.often]:
            connection.close()


@frozen
class Usage:
    """Counters of workers and Redis, at one moment."""

    records: int
    batches: int
    delivered: int
    cpu_seconds: float
    store_cpu_seconds: float
    resident_bytes: int
    at: float

    @classmethod
    def of(cls, workers: Sequence[Server], client: Redis) -> Usage:
        """Read the counters."""
        statistics = [each.statistics() for each in workers]
        info = client.info("cpu")
        return cls(
            sum(each["records_written"] for each in statistics),
            sum(each["store_writes"] for each in statistics),
            sum(each["updates_delivered"] for each in statistics),
            sum(each.cpu_seconds() for each in workers),
            info["used_cpu_sys"] + info["used_cpu_user"],
            sum(each.resident_bytes() for each in workers),
            time.time(),
        )


def apply_load(
    workers: Sequence[Server], client: Redis, case: Case, *, path: str = "/tracked"
) -> Load:
    """Receive the uploads of *case*, and measure what they cost."""
    uploads = case.uploads
    watched = watched_count(uploads)
    before = Usage.of(workers, client)
    with (
        watching(workers[0], "here") as here,
        watching(workers[1], "elsewhere") as elsewhere,
        closing(Sender(path)) as sender,
    ):
        for owner in ("here", "elsewhere"):
            for number in range(watched):
                sender.often.append(sender.open(workers[0], owner, f"{owner}-{number}"))
        rest = uploads - 2 * watched
        for number in range(rest):
            worker, owner = workers[number % 2], f"user-{number % 2}-{number // OWNER_UPLOADS}"
            sender.seldom.append(sender.open(worker, owner, f"upload-{number}-{uploads}"))
            time.sleep(START_SECONDS / rest / 2)
        sender.send(WARM_SECONDS)
        middle, chunks = Usage.of(workers, client), sender.chunks
        sender.send(SECONDS)
        after, chunks = Usage.of(workers, client), sender.chunks - chunks
    seconds = after.at - middle.at
    return Load(
        uploads=uploads,
        workers=len(workers),
        budget=case.budget,
        chunks=chunks / seconds,
        records=(after.records - middle.records) / seconds,
        batches=(after.batches - middle.batches) / seconds,
        here_seconds=here.p99(middle.at, after.at) if here.seen else 0.0,
        elsewhere_seconds=elsewhere.p99(middle.at, after.at) if elsewhere.seen else 0.0,
        upload_bytes=(after.resident_bytes - before.resident_bytes) / uploads,
        cpu_seconds=(after.cpu_seconds - middle.cpu_seconds) / seconds,
        store_cpu_seconds=(after.store_cpu_seconds - middle.store_cpu_seconds) / seconds,
    )


def measure_watchers(url: str, client: Redis, watchers: int = WATCHERS) -> WatcherCost:
    """Let *watchers* at one worker each follow an upload that the other one receives."""
    with ExitStack() as stack:
        first = stack.enter_context(running_server(url))
        second = stack.enter_context(running_server(url, processor=1))
        before = Usage.of([second], client)
        streams = [
            stack.enter_context(closing(open_owner_stream(second, f"watcher-{number}")))
            for number in range(watchers)
        ]
        opened = Usage.of([second], client)
        seen = stack.enter_context(watching(second, "watched"))
        sender = stack.enter_context(closing(Sender("/tracked")))
        for number in range(watchers):
            sender.seldom.append(sender.open(first, f"watcher-{number}", f"watched-{number}"))
        for number in range(10):
            sender.often.append(sender.open(first, "watched", f"seen-{number}"))
        sender.send(3)
        middle = Usage.of([second], client)
        sender.send(SECONDS)
        after = Usage.of([second], client)
        connections = client.info("clients")["connected_clients"] - 1
        for stream in streams:
            stream.shutdown(socket.SHUT_RDWR)
    latencies = [
        at - made
        for snapshots in seen.seen.values()
        for at, made in snapshots
        if middle.at < at < after.at
    ]
    delivered = after.delivered - middle.delivered
    return WatcherCost(
        watchers=watchers,
        resident_bytes=(opened.resident_bytes - before.resident_bytes) / watchers,
        update_cpu_seconds=(after.cpu_seconds - middle.cpu_seconds) / delivered,
        update_store_cpu_seconds=(after.store_cpu_seconds - middle.store_cpu_seconds) / delivered,
        p99_seconds=percentile(latencies, 0.99),
        connections=connections / 2,
    )


@frozen
class Measurements:
    """All that was measured."""

    pass_cost: PassCost
    untracked: Load
    loads: list[Load]
    watchers: WatcherCost


def measure(cases: Sequence[Case]) -> Measurements:
    """Measure these numbers of uploads at two workers, and watchers."""
    loads = []
    most = max(cases, key=lambda case: case.uploads)
    for_files = most.uploads + 100
    if max_connections(for_files) < for_files:
        raise BenchmarkUnavailable(f"the limit on open files must allow {2 * for_files + 200}")
    with running_backend(redis) as url, Redis.from_url(url) as client:
        cost = measure_pass(url)
        for case, path in [(most, "/untracked"), *((each, "/tracked") for each in cases)]:
            with (
                running_server(url, budget=case.budget) as first,
                running_server(url, processor=1, budget=case.budget) as second,
            ):
                loads.append(apply_load([first, second], client, case, path=path))
        watchers = measure_watchers(url, client)
    untracked, *tracked = loads
    return Measurements(cost, untracked, tracked, watchers)
