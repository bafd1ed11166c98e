"""Migrations: concurrent, killed, of newer releases; and quoting of names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from tests._support.demo_process import COMMAND
from tests._support.leases import let_lease_run_out
from tests._support.records import record
from upload_progress._model.models import UploadState
from upload_progress.backends.postgres.client import connect
from upload_progress.backends.postgres.schema import LATEST_VERSION, MigrationResult, migrate
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.config import Retention
from upload_progress.testing.lease_contract import comparable

pytestmark = pytest.mark.anyio

SECONDS = 30.0
NASTY = 'we"ird; DROP SCHEMA upload_progress CASCADE; -- {} \u00fc'


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """PostgreSQL's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Yield a connection to a database without a schema, and drop the schemas at the end."""
    async with await connect(postgres_url) as connection:
        yield connection
        for name in ("fresh", "evil", NASTY):
            drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
            await connection.execute(drop.format(sql.Identifier(name)))


async def test_concurrent_migrations_run_once(
    postgres_url: str, database: AsyncConnection[TupleRow]
) -> None:
    """D01: as when all workers of a deployment start."""
    found = list[MigrationResult]()

    async def one() -> None:
        found.append(await migrate(postgres_url, schema="fresh"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)

    assert {each.after for each in found} == {LATEST_VERSION}
    assert sorted(each.before for each in found) == [0] + [LATEST_VERSION] * 19
    numbers = await database.execute("SELECT number FROM fresh.version ORDER BY number")
    assert await numbers.fetchall() == [(number + 1,) for number in range(LATEST_VERSION)]


async def test_killed_migration_leaves_nothing_behind(
    postgres_url: str, database: AsyncConnection[TupleRow]
) -> None:
    """D02: ``kill -9`` after the lock was taken and before the first table is created."""
    await database.execute("CREATE SCHEMA fresh")
    async with await connect(postgres_url) as other, other.transaction(force_rollback=True):
        # Blocks the migration until this transaction ends.
        await other.execute("DROP SCHEMA fresh")
        command = [*COMMAND, "migrate", "--schema", "fresh", postgres_url]
        async with await anyio.open_process(command) as process:
            with anyio.fail_after(SECONDS):
                await until_waiting_for_schema(database)
            process.kill()
    assert await migrate(postgres_url, schema="fresh") == MigrationResult(0, LATEST_VERSION)

    async with PostgresStore.open(postgres_url, schema="fresh") as store:
        await store.save([record()])
        assert comparable(await store.load(record().key)) == [record()]


async def until_waiting_for_schema(database: AsyncConnection[TupleRow]) -> None:
    """Return when a session waits for a lock on a schema."""
    found: TupleRow | None = None
    while found is None:
        await anyio.lowlevel.checkpoint()
        locks = await database.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND classid = 'pg_namespace'::regclass"
        )
        found = await locks.fetchone()


async def test_schema_of_newer_release_is_kept_and_used(
    postgres_url: str, database: AsyncConnection[TupleRow]
) -> None:
    """D04: the older release reports its version, and works with it."""
    await migrate(postgres_url, schema="fresh")
    await database.execute("INSERT INTO fresh.version VALUES (99)")
    await database.execute("ALTER TABLE fresh.transfers ADD COLUMN news text DEFAULT 'x'")

    assert await migrate(postgres_url, schema="fresh") == MigrationResult(99, 99)
    async with PostgresStore.open(postgres_url, schema="fresh") as store:
        await store.save([record()])
        assert len((await store.list("ann")).uploads) == 1


async def test_schema_name_is_quoted_in_each_statement(
    postgres_url: str, database: AsyncConnection[TupleRow]
) -> None:
    """D06: a name cannot inject SQL."""
    await migrate(postgres_url)
    await migrate(postgres_url, schema=NASTY)
    retention = Retention(waiting_seconds=0.1)
    async with PostgresStore.open(postgres_url, schema=NASTY, retention=retention) as store:
        waiting = record("waiting", state=UploadState.PENDING, worker=None)
        ended = record("ended", state=UploadState.FAILED, worker=None, finished_at=5.0)
        await store.save([record(attempt=2), waiting, ended])
        await let_lease_run_out(store, "w")
        assert {each.upload_id for each in await store.overdue(limit=9)} == {"up", "waiting"}
        assert len((await store.list("ann")).uploads) == 3
    kept = await database.execute("SELECT to_regclass('upload_progress.transfers') IS NOT NULL")
    assert await kept.fetchone() == (True,)


async def test_search_path_does_not_redirect_statements(
    postgres_url: str, database: AsyncConnection[TupleRow]
) -> None:
    """D06: tables of the same names, first in the path, are not used."""
    await migrate(postgres_url, schema="fresh")
    await database.execute("CREATE SCHEMA evil")
    for table in ("transfers", "leases", "version"):
        copy = sql.SQL("CREATE TABLE evil.{table} (LIKE fresh.{table} INCLUDING ALL)")
        await database.execute(copy.format(table=sql.Identifier(table)))
    async with PostgresStore.open(
        f"{postgres_url}?options=-csearch_path%3Devil", schema="fresh"
    ) as store:
        await store.save([record(attempt=2)])
        await store.renew("w", seconds=5)
        assert len(await store.load(record().key)) == 1
    for table in ("transfers", "leases"):
        query = sql.SQL("SELECT 1 FROM evil.{}").format(sql.Identifier(table))
        assert await (await database.execute(query)).fetchall() == []
