"""Budget 28: the list of all open uploads that operators read, with 10,000 of them in each store.

It is read page by page, as ``upload-progress top`` does. The store of Kafka keeps the same table in
each process as the store in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter

from attrs import evolve

from benchmarks.harness import Figure, run
from benchmarks.long_lists import ended
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import postgres, redis
from upload_progress import MemoryStore, ProgressTracker, UploadState
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.backends.redis.store import RedisStore
from upload_progress.interfaces import ALL_OWNERS, SessionStore

TITLE = "lists of operators"
UPLOADS, OWNERS, BATCH = 10_000, 100, 1000
ROUNDS = 5
PAGE_MILLISECONDS = 100.0

Opened = Callable[[str], AbstractAsyncContextManager[SessionStore]]


async def fill(store: SessionStore) -> None:
    now = time.time()
    for first in range(0, UPLOADS, BATCH):
        await store.save(
            [
                evolve(
                    ended(number, now),
                    owner=f"user-{number % OWNERS}",
                    state=UploadState.RECEIVING,
                    finished_at=None,
                    worker="worker",
                )
                for number in range(first, first + BATCH)
            ]
        )


@asynccontextmanager
async def memory_store(_url: str) -> AsyncIterator[SessionStore]:
    yield MemoryStore()


@asynccontextmanager
async def redis_store(url: str) -> AsyncIterator[SessionStore]:
    async with RedisStore.open(url) as store:
        yield store


@asynccontextmanager
async def postgres_store(url: str) -> AsyncIterator[SessionStore]:
    await migrate(url)
    async with PostgresStore.open(url) as store:
        yield store


async def read_all(tracker: ProgressTracker) -> tuple[float, int]:
    """Return the time of the slowest page in milliseconds, and the number of uploads."""
    slowest, count, cursor = 0.0, 0, None
    while True:
        began = perf_counter()
        page = await tracker.list(owner=ALL_OWNERS, cursor=cursor)
        slowest = max(slowest, (perf_counter() - began) * 1000)
        count, cursor = count + len(page.uploads), page.next
        if cursor is None:
            return slowest, count
        await asyncio.sleep(0.02)  # reads of one user take turns


async def measure_store(name: str, opened: Opened, url: str) -> Figure:
    async with opened(url) as store:
        await store.renew("worker", seconds=600)
        await fill(store)
        rounds = [await read_all(ProgressTracker(store=store)) for _ in range(ROUNDS)]
    milliseconds, counts = min(rounds)[0], {count for _, count in rounds}
    return Figure(
        name=f"{name}: slowest page of 100 of {min(counts)} open uploads",
        value=milliseconds,
        unit="ms",
        budget=f"<= {PAGE_MILLISECONDS:.0f} ms",
        is_met=counts == {UPLOADS} and milliseconds <= PAGE_MILLISECONDS,
    )


def measure() -> list[Figure]:
    """Measure the stores, one after the other."""
    figures = [asyncio.run(measure_store("memory", memory_store, ""))]
    stores = {"Redis": (redis, redis_store), "PostgreSQL": (postgres, postgres_store)}
    for name, (recipe, opened) in stores.items():
        with running_backend(recipe) as url:
            figures.append(asyncio.run(measure_store(name, opened, url)))
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
