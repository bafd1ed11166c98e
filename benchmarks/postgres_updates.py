"""Budget 11: how many updates a second the store in PostgreSQL takes, against upserts one by one.

An update tells of an upload that is being received, and of more bytes than before. Single upserts
and the bare ``unnest`` write the same packed records into a table of key and value; neither of them
looks at versions, or at who is to be heard of when its worker is gone.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from benchmarks.common import Figure, run
from benchmarks.updates import Batch, Ways, compared, in_turns, served
from tests._support.server_factories import postgres
from upload_progress._model.codec import pack_record
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore

CLAIM = "updates a second in PostgreSQL"
SINGLE_BUDGET, BARE_BUDGET = 20.0, 0.8
TABLE = """
CREATE TABLE IF NOT EXISTS bare (
    owner text, upload_id text, transfer_id text, record bytea,
    PRIMARY KEY (owner, upload_id, transfer_id)
) WITH (fillfactor = 70)
"""
UPSERT = """
INSERT INTO bare {} ON CONFLICT (owner, upload_id, transfer_id) DO UPDATE
SET record = excluded.record
"""
ONE = UPSERT.format("VALUES (%s, %s, %s, %s)")
MANY = UPSERT.format("SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[])")


def values(batch: Batch) -> list[tuple[str, str, str, bytes]]:
    """Return rows of the bare table."""
    return [(each.owner, each.upload_id, each.transfer_id, pack_record(each)) for each in batch]


async def single(connection: AsyncConnection[TupleRow], batch: Batch) -> None:
    for row in values(batch):
        await connection.execute(ONE, row)


async def unnested(connection: AsyncConnection[TupleRow], batch: Batch) -> None:
    await connection.execute(MANY, [list(column) for column in zip(*values(batch), strict=True)])


@asynccontextmanager
async def ways(url: str) -> Ways:
    """Yield the ways of writing a batch."""
    async with PostgresStore.open(url) as store, await connect(url) as connection:
        await connection.execute(TABLE)
        yield {
            "store": store.save,
            "single upserts": partial(single, connection),
            "a bare unnest": partial(unnested, connection),
        }


def measure() -> list[Figure]:
    """Write batches in turns."""
    figures = []
    with served(postgres) as url:
        asyncio.run(migrate(url))
        for size in (100, 1000):
            taken = in_turns(partial(ways, url), size)
            figures.append(compared(taken, size, "single upserts", least=SINGLE_BUDGET))
            figures.append(compared(taken, size, "a bare unnest", least=BARE_BUDGET))
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
