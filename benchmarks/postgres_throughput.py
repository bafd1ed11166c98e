"""Budget 11: updates per second of the PostgreSQL store, against single upserts.

An update is a newer record of an upload that is being received. Single upserts and a plain
``unnest`` upsert write the same packed records into a table; unlike the store, they compare no
versions and maintain no leases. The floor is the smallest statement that stores the same rows: an
``unnest`` upsert into the table of the store, with its columns and indexes, that compares nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from benchmarks.harness import Figure, run
from benchmarks.store_throughput import Batch, Writers, compare_with, interleave, running_backend
from tests._support.server_factories import postgres
from upload_progress._model.codec import pack_record
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.rows import to_columns
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore

TITLE = "PostgreSQL store throughput"
SINGLE_BUDGET, UNNEST_BUDGET, FLOOR_BUDGET = 25.0, 0.8, 0.87
TABLE = """
CREATE TABLE IF NOT EXISTS plain (
    owner text, upload_id text, transfer_id text, record bytea,
    PRIMARY KEY (owner, upload_id, transfer_id)
) WITH (fillfactor = 70)
"""
UPSERT = """
INSERT INTO plain {} ON CONFLICT (owner, upload_id, transfer_id) DO UPDATE
SET record = excluded.record
"""
ONE = UPSERT.format("VALUES (%s, %s, %s, %s)")
MANY = UPSERT.format("SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[])")

FLOOR = """
INSERT INTO upload_progress.transfers (
    owner, upload_id, transfer_id, attempt, sequence, state_code, changed_at, created_at,
    group_name, worker, record, format
)
SELECT batch.*, 1
FROM unnest(
    %(owner)b::bytea[], %(upload_id)b::text[], %(transfer_id)b::text[], %(attempt)s::bigint[],
    %(sequence)s::bigint[], %(state_code)s::text[], %(changed_at)b::double precision[],
    %(created_at)b::double precision[], %(group_name)b::bytea[], %(worker)b::text[],
    %(record)b::bytea[]
) AS batch
ON CONFLICT (owner, upload_id, transfer_id) DO UPDATE SET
    sequence = excluded.sequence, changed_at = excluded.changed_at, record = excluded.record
"""


def values(batch: Batch) -> list[tuple[str, str, str, bytes]]:
    """Return rows of the table."""
    return [(each.owner, each.upload_id, each.transfer_id, pack_record(each)) for each in batch]


async def single(connection: AsyncConnection[TupleRow], batch: Batch) -> None:
    for row in values(batch):
        await connection.execute(ONE, row)


async def unnested(connection: AsyncConnection[TupleRow], batch: Batch) -> None:
    await connection.execute(MANY, [list(column) for column in zip(*values(batch), strict=True)])


async def floor(connection: AsyncConnection[TupleRow], batch: Batch) -> None:
    await connection.execute(FLOOR, to_columns(batch, time.time()))


@asynccontextmanager
async def writers(url: str) -> Writers:
    """Yield the writers by name."""
    async with PostgresStore.open(url) as store, await connect(url) as connection:
        await connection.execute(TABLE)
        yield {
            "store": store.save,
            "single upserts": partial(single, connection),
            "a plain unnest": partial(unnested, connection),
            "the floor": partial(floor, connection),
        }


def measure() -> list[Figure]:
    """Interleave the writers."""
    figures = []
    with running_backend(postgres) as url:
        asyncio.run(migrate(url))
        for size in (100, 1000):
            durations = interleave(partial(writers, url), size)
            figures.append(compare_with(durations, size, "single upserts", minimum=SINGLE_BUDGET))
            figures.append(compare_with(durations, size, "a plain unnest", minimum=UNNEST_BUDGET))
            figures.append(compare_with(durations, size, "the floor", minimum=FLOOR_BUDGET))
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
