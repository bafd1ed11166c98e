"""Budget 10: updates per second of the Redis store, against a redis-py pipeline.

An update is a newer record of an upload that is being received. The pipeline sends the same packed
records with a time to live; unlike the store, it compares no versions and maintains neither lists
nor leases. The second baseline sends one command at a time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis

from benchmarks.harness import Figure, run
from benchmarks.store_throughput import Batch, Writers, compare_with, interleave, running_backend
from tests._support.server_factories import redis
from upload_progress._model.codec import pack_record
from upload_progress.backends.redis.store import RedisStore

TITLE = "Redis store throughput"
BUDGET = 4.0
EXPIRE_SECONDS = 90_000


@asynccontextmanager
async def writers(url: str) -> Writers:
    """Yield the writers by name."""
    async with RedisStore.open(url) as store, Redis.from_url(url) as client:

        async def pipeline(batch: Batch) -> None:
            async with client.pipeline(transaction=False) as commands:
                for record in batch:
                    name = f"{record.owner}:{record.upload_id}"
                    commands.hset(name, record.transfer_id, pack_record(record))
                    commands.expire(name, EXPIRE_SECONDS)
                await commands.execute()

        async def single(batch: Batch) -> None:
            for record in batch:
                await client.set(record.upload_id, pack_record(record), ex=EXPIRE_SECONDS)

        yield {"store": store.save, "a redis-py pipeline": pipeline, "single commands": single}


def measure() -> list[Figure]:
    """Interleave the writers."""
    figures = []
    with running_backend(redis) as url:
        for size in (100, 500):
            durations = interleave(partial(writers, url), size)
            figures.append(compare_with(durations, size, "a redis-py pipeline", minimum=BUDGET))
            figures.append(compare_with(durations, size, "single commands"))
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
