"""Budget 25: the list of an owner with 100,000 uploads, in Redis and in PostgreSQL.

The first page comes with the sum, which covers a bounded number of uploads. A later page uses the
sum of the first one, and must not depend on the number of uploads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from benchmarks.harness import Figure, run
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import postgres, redis
from upload_progress import ProgressTracker, Retention, UploadPage, UploadState
from upload_progress._model.models import TransferRecord
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.backends.redis.store import RedisStore
from upload_progress.interfaces import SessionStore

TITLE = "long lists"
UPLOADS = 100_000
BATCH = 1000
ROUNDS = 5
PAGE_MILLISECONDS, SUM_MILLISECONDS = 100.0, 300.0
RETENTION = Retention(ended_per_owner=10 * UPLOADS, waiting_per_owner=10 * UPLOADS)


def ended(number: int, now: float) -> TransferRecord:
    """Return the record of an upload that has completed within the last 50 minutes."""
    ended_at = now - number % 3000
    return TransferRecord(
        owner="ann",
        upload_id=f"{number:08}-0123456789abcdef",
        transfer_id=f"{number:016x}",
        attempt=1,
        sequence=5,
        state=UploadState.COMPLETED,
        received_bytes=12_345_678,
        total_bytes=12_345_678,
        filename="artifact.tar.gz",
        created_at=ended_at - 60,
        started_at=ended_at - 60,
        updated_at=ended_at,
        finished_at=ended_at,
    )


async def fill(store: SessionStore) -> None:
    now = time.time()
    for first in range(0, UPLOADS, BATCH):
        await store.save([ended(first + number, now) for number in range(BATCH)])


@asynccontextmanager
async def redis_store(url: str) -> AsyncIterator[SessionStore]:
    async with RedisStore.open(url, retention=RETENTION) as store:
        await fill(store)
        yield store


@asynccontextmanager
async def postgres_store(url: str) -> AsyncIterator[SessionStore]:
    await migrate(url)
    async with PostgresStore.open(url, retention=RETENTION) as store:
        await fill(store)
        connection = await connect(url)
        async with connection:
            await connection.execute("VACUUM ANALYZE upload_progress.transfers")
        yield store


async def read(tracker: ProgressTracker, cursor: str | None) -> tuple[float, UploadPage]:
    """Read a page; return the time in milliseconds, and the page."""
    await asyncio.sleep(0.5)  # after a read, the lists of an owner pause
    began = perf_counter()
    page = await tracker.list(owner="ann", states=[UploadState.COMPLETED], cursor=cursor)
    return (perf_counter() - began) * 1000, page


async def measure_pages(store: SessionStore) -> tuple[float, float]:
    """Return the shortest time of a first page with the sum, and of a later one."""
    tracker = ProgressTracker(store=store)
    firsts, laters = [], []
    for _ in range(ROUNDS):
        milliseconds, page = await read(tracker, None)
        firsts.append(milliseconds)
        milliseconds, _ = await read(tracker, page.next)
        laters.append(milliseconds)
    return min(firsts), min(laters)


def figure(name: str, milliseconds: float, budget: float) -> Figure:
    return Figure(
        name=name,
        value=milliseconds,
        unit="ms",
        budget=f"<= {budget:.0f} ms",
        is_met=milliseconds <= budget,
    )


def measure() -> list[Figure]:
    """Measure both stores, one after the other."""
    figures = []
    stores = {"Redis": (redis, redis_store), "PostgreSQL": (postgres, postgres_store)}
    for name, (recipe, opened) in stores.items():

        async def main(url: str) -> tuple[float, float]:
            async with opened(url) as store:  # noqa: B023  # it is called at once
                return await measure_pages(store)

        with running_backend(recipe) as url:
            first, later = asyncio.run(main(url))
        figures.append(figure(f"{name}: first page and sum", first, SUM_MILLISECONDS))
        figures.append(figure(f"{name}: later page", later, PAGE_MILLISECONDS))
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
