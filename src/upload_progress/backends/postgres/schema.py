"""Migrations of the schema of ``PostgresStore``.

All migrations run in one transaction under an advisory lock, so any number of processes may migrate
at once, and a killed one leaves nothing half done.
"""

from hashlib import sha256
from typing import Final, LiteralString

from attrs import frozen
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from upload_progress.backends.postgres.client import connect, validate_schema, validate_url
from upload_progress.backends.postgres.statements import MIGRATIONS

__all__ = ["LATEST_VERSION", "MigrationResult", "migrate"]


LATEST_VERSION: Final = len(MIGRATIONS)


@frozen
class MigrationResult:
    """Version of the schema before and after; a newer release may have left a higher one.

    Attributes:
        before: Version that was found; 0 for a new schema.
        after: Version that is there now.
    """

    before: int
    after: int


async def migrate(url: str, *, schema: str = "upload_progress") -> MigrationResult:
    """Create the tables of ``PostgresStore``, or bring them up to date.

    The role needs the right to create a schema, or to create tables in an existing empty one.
    Workers need ``USAGE`` on the schema, and ``SELECT``, ``INSERT``, ``UPDATE``, ``DELETE`` on its
    tables::

        await migrate("postgresql://owner@localhost/app")

    Args:
        url: ``postgresql://…``, or any other ``conninfo`` of libpq.
        schema: The schema of the tables.

    Returns:
        The version of the schema before and after.

    Raises:
        InvalidValue: The URL or the name of the schema is not valid.
    """
    validate_schema(schema)
    connection = await connect(validate_url(url))
    async with connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_id(schema),))
        before = await _read_version(connection, schema)
        for number in range(before, LATEST_VERSION):
            await _apply(connection, schema, MIGRATIONS[number], number + 1)
    return MigrationResult(before, max(before, LATEST_VERSION))


def _lock_id(schema: str) -> int:
    digest = sha256(f"upload-progress migrates {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _read_version(connection: AsyncConnection[TupleRow], schema: str) -> int:
    schemas = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
    # "CREATE SCHEMA IF NOT EXISTS" would require the right to create it even where it exists.
    if await schemas.fetchone() is None:
        await _execute(connection, schema, "CREATE SCHEMA {schema}")
    await _execute(
        connection,
        schema,
        "CREATE TABLE IF NOT EXISTS {schema}.version (number integer NOT NULL)",
    )
    versions = await _execute(connection, schema, "SELECT max(number) FROM {schema}.version")
    found = await versions.fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


async def _apply(
    connection: AsyncConnection[TupleRow], schema: str, statements: LiteralString, number: int
) -> None:
    await _execute(connection, schema, statements)
    await connection.execute(
        sql.SQL("INSERT INTO {}.version VALUES (%s)").format(sql.Identifier(schema)), (number,)
    )


async def _execute(
    connection: AsyncConnection[TupleRow], schema: str, statement: LiteralString
) -> AsyncCursor[TupleRow]:
    return await connection.execute(sql.SQL(statement).format(schema=sql.Identifier(schema)))
