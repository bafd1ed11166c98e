"""Budget 10: how many updates a second the store in Redis takes, against redis-py's pipeline.

An update tells of an upload that is being received, and of more bytes than before. The pipeline
sends the same packed records, each with the time to live that every key needs; it compares no
versions, and keeps neither lists nor leases. One command at a time is what one writes at first.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis

from benchmarks.common import Figure, run
from benchmarks.updates import Batch, Ways, compared, in_turns, served
from tests._support.server_factories import redis
from upload_progress._model.codec import pack_record
from upload_progress.backends.redis.store import RedisStore

CLAIM = "updates a second in Redis"
BUDGET = 4.0
LIVE_SECONDS = 90_000


@asynccontextmanager
async def ways(url: str) -> Ways:
    """Yield the ways of writing a batch."""
    async with RedisStore.open(url) as store, Redis.from_url(url) as client:

        async def pipeline(batch: Batch) -> None:
            async with client.pipeline(transaction=False) as commands:
                for record in batch:
                    name = f"{record.owner}:{record.upload_id}"
                    commands.hset(name, record.transfer_id, pack_record(record))
                    commands.expire(name, LIVE_SECONDS)
                await commands.execute()

        async def single(batch: Batch) -> None:
            for record in batch:
                await client.set(record.upload_id, pack_record(record), ex=LIVE_SECONDS)

        yield {"store": store.save, "redis-py's pipeline": pipeline, "single commands": single}


def measure() -> list[Figure]:
    """Write batches in turns."""
    figures = []
    with served(redis) as url:
        for size in (100, 500):
            taken = in_turns(partial(ways, url), size)
            figures.append(compared(taken, size, "redis-py's pipeline", least=BUDGET))
            figures.append(compared(taken, size, "single commands"))
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
