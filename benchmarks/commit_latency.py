"""Budget 23: commit latency of an application while events are published in the same server.

``NOTIFY`` takes a lock at commit that all databases of a server share, so a thousand transactions
per second would delay all others. The publisher sends one statement per flush interval. Two
workers publish while the application commits small rows; phases with and without events alternate.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import anyio
from attrs import evolve
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from benchmarks.harness import ROOT, Figure, child_environment, percentile, run
from benchmarks.sample_snapshot import sample_snapshot
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import postgres
from upload_progress._model.cloudevents import event_of
from upload_progress._reporting.flusher import FLUSH_SECONDS
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.publisher import PostgresPublisher

TITLE = "commit latency during events in PostgreSQL"
WORKERS = 2
EVENTS = 25
"""Per worker and interval. Each event is two notifications: a thousand per second in total."""
PHASES = 10
PHASE_SECONDS = 2.0
START_SECONDS = 2.0
BUDGET = 1.1


async def publish(publisher: PostgresPublisher) -> None:
    """Publish until cancelled, as the flusher does."""
    progress = sample_snapshot()
    sequence = 0
    while True:
        sequence += 1
        events = [
            event_of(
                "benchmark", evolve(progress, upload_id=f"up-{number}", sequence=sequence), "here"
            )
            for number in range(EVENTS)
        ]
        await publisher.publish(events)
        await asyncio.sleep(FLUSH_SECONDS)


async def publish_all(url: str) -> None:
    """Run the publishers of all workers."""
    async with AsyncExitStack() as stack:
        publishers = [PostgresPublisher.open(url) for _ in range(WORKERS)]
        for publisher in publishers:
            await stack.enter_async_context(publisher)
        async with anyio.create_task_group() as tasks:
            for publisher in publishers:
                tasks.start_soon(publish, publisher)


@contextmanager
def publishing_process(url: str) -> Iterator[None]:
    """Publish in another process while the block runs."""
    code = "import asyncio, sys; from benchmarks.commit_latency import publish_all as run"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; asyncio.run(run(sys.argv[1]))", url],
        cwd=ROOT,
        env=child_environment(),
    ) as process:
        time.sleep(START_SECONDS)
        try:
            yield
        finally:
            process.kill()


async def measure_commits(connection: AsyncConnection[TupleRow]) -> list[float]:
    """Commit rows for ``PHASE_SECONDS``; return the milliseconds of each commit."""
    durations, end = [], time.perf_counter() + PHASE_SECONDS
    while (started := time.perf_counter()) < end:
        await connection.execute("INSERT INTO application (content) VALUES ('row')")
        durations.append((time.perf_counter() - started) * 1000)
    return durations


async def compare(url: str) -> tuple[list[float], list[float]]:
    """Return the latencies without and with events."""
    without_events: list[float] = []
    with_events: list[float] = []
    async with await connect(url) as connection:
        await connection.execute("CREATE TABLE application (content text)")
        for _ in range(PHASES):
            without_events += await measure_commits(connection)
            with publishing_process(url):
                with_events += await measure_commits(connection)
    return without_events, with_events


def measure() -> list[Figure]:
    """Compare the median and the 99th percentile."""
    with running_backend(postgres) as url:
        without_events, with_events = asyncio.run(compare(url))
    halves = without_events[: len(without_events) // 2], without_events[len(without_events) // 2 :]
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        ratio = percentile(with_events, share) / percentile(without_events, share)
        controls = sorted(percentile(half, share) for half in halves)
        figures.append(
            Figure(
                name=f"{name}, with {WORKERS * EVENTS * 2 / FLUSH_SECONDS:g} notifications/s",
                value=percentile(with_events, share),
                unit="ms",
                baseline=percentile(without_events, share),
                ratio=ratio,
                control=controls[1] / controls[0],
                budget=f"ratio <= {BUDGET}" if share > 0.5 else "",
                is_met=ratio <= BUDGET if share > 0.5 else None,
            )
        )
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
