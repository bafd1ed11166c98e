"""Budget 10: updates per second of the Redis store, against a redis-py pipeline.

An update is a newer record of an upload that is being received. The pipeline sends the same packed
records with a time to live; unlike the store, it compares no versions and maintains neither lists
nor leases. The second baseline sends one command at a time. The floor is the smallest program that
stores the same values, and only if they are newer: one script for a batch, with two commands for
each record.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from struct import Struct

from redis.asyncio import Redis

from benchmarks.harness import Figure, run
from benchmarks.store_throughput import Batch, Writers, compare_with, interleave, running_backend
from tests._support.server_factories import redis
from upload_progress._model.codec import pack_record
from upload_progress.backends.redis.store import RedisStore
from upload_progress.backends.store_records import state_code
from upload_progress.backends.subscriptions import key_of

TITLE = "Redis store throughput"
BUDGET = 4.0
FLOOR_BUDGET = 0.87
EXPIRE_SECONDS = 90_000
FLOOR = """
local position, key, field, value = 1
while position <= #ARGV[1] do
  key, field, value, position = struct.unpack('>I4c0I4c0I4c0', ARGV[1], position)
  local stored = redis.call('HGET', key, field)
  local number = stored and string.match(stored, '^%d+')
  if not number or tonumber(number) < tonumber(string.match(value, '^%d+')) then
    redis.call('HSET', key, field, value)
  end
end
"""


def pack_for_floor(batch: Batch) -> bytes:
    """Return the argument of the floor: key, field and value of each record."""
    length, packed = Struct(">I").pack, list[bytes]()
    for record in batch:
        key = f"floor:{record.owner}:{record.upload_id}".encode()
        field = record.transfer_id.encode()
        worker = key_of(record.worker or "")
        header = f"{record.sequence}\t{record.attempt}\t{state_code(record)}\t{worker}\n"
        value = header.encode() + pack_record(record)
        packed += (length(len(key)), key, length(len(field)), field, length(len(value)), value)
    return b"".join(packed)


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

        script = client.register_script(FLOOR)

        async def floor(batch: Batch) -> None:
            await script(args=[pack_for_floor(batch)])

        yield {
            "store": store.save,
            "a redis-py pipeline": pipeline,
            "single commands": single,
            "the floor": floor,
        }


def measure() -> list[Figure]:
    """Interleave the writers."""
    figures = []
    with running_backend(redis) as url:
        for size in (100, 500):
            durations = interleave(partial(writers, url), size)
            figures.append(compare_with(durations, size, "a redis-py pipeline", minimum=BUDGET))
            figures.append(compare_with(durations, size, "single commands"))
            figures.append(compare_with(durations, size, "the floor", minimum=FLOOR_BUDGET))
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
