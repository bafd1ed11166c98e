"""Budget 23: how long an application's own commits take while events are published beside them.

``NOTIFY`` takes a lock at commit that all of a server's databases share, so a thousand single ones
a second would be in everybody's way. Ours are one statement each flush interval. Two workers
publish, and the application commits small rows, and waits for each as long as it takes; phases with
and without the publishing take turns.
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

from benchmarks.common import ROOT, Figure, child_environment, percentile, run
from benchmarks.snapshots import snapshot
from benchmarks.updates import served
from tests._support.server_factories import postgres
from upload_progress._model.cloudevents import event_of
from upload_progress._tracking.flusher import FLUSH_SECONDS
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.publisher import PostgresPublisher

CLAIM = "commits of an application beside events in PostgreSQL"
WORKERS = 2
EVENTS = 25
"""For each worker and interval: two notifications each, so a thousand a second."""
PHASES = 10
PHASE_SECONDS = 2.0
START_SECONDS = 2.0
BUDGET = 1.1


async def publish(publisher: PostgresPublisher) -> None:
    """Publish for ever, as the flusher does."""
    progress = snapshot()
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
    """Be the workers."""
    async with AsyncExitStack() as stack:
        publishers = [PostgresPublisher.open(url) for _ in range(WORKERS)]
        for publisher in publishers:
            await stack.enter_async_context(publisher)
        async with anyio.create_task_group() as tasks:
            for publisher in publishers:
                tasks.start_soon(publish, publisher)


@contextmanager
def published(url: str) -> Iterator[None]:
    """Publish while the block runs, in another process."""
    code = "import asyncio, sys; from benchmarks.commits_beside import publish_all as run"
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


async def commits(connection: AsyncConnection[TupleRow]) -> list[float]:
    """Commit rows for a while; return the milliseconds that each took."""
    taken, end = [], time.perf_counter() + PHASE_SECONDS
    while (begun := time.perf_counter()) < end:
        await connection.execute("INSERT INTO application (what) VALUES ('something')")
        taken.append((time.perf_counter() - begun) * 1000)
    return taken


async def compare(url: str) -> tuple[list[float], list[float]]:
    """Return what commits took without, and with publishing beside them."""
    quiet: list[float] = []
    beside: list[float] = []
    async with await connect(url) as connection:
        await connection.execute("CREATE TABLE application (what text)")
        for _ in range(PHASES):
            quiet += await commits(connection)
            with published(url):
                beside += await commits(connection)
    return quiet, beside


def measure() -> list[Figure]:
    """Compare the median and the 99th percentile."""
    with served(postgres) as url:
        quiet, beside = asyncio.run(compare(url))
    halves = quiet[: len(quiet) // 2], quiet[len(quiet) // 2 :]
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        ratio = percentile(beside, share) / percentile(quiet, share)
        controls = sorted(percentile(half, share) for half in halves)
        figures.append(
            Figure(
                what=f"{name}, beside {WORKERS * EVENTS * 2 / FLUSH_SECONDS:g} notifications/s",
                value=percentile(beside, share),
                unit="ms",
                baseline=percentile(quiet, share),
                ratio=ratio,
                control=controls[1] / controls[0],
                budget=f"ratio <= {BUDGET}" if share > 0.5 else "",
                holds=ratio <= BUDGET if share > 0.5 else None,
            )
        )
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
