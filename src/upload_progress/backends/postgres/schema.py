"""The schema of ``PostgresStore``, and how it comes about.

All steps are one transaction under an advisory lock: several may migrate at once, and one that is
killed leaves nothing half done.
"""

from hashlib import sha256
from typing import Final, LiteralString

from attrs import frozen
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow

from upload_progress.backends.postgres.client import connect, validate_schema, validate_url
from upload_progress.backends.postgres.statements import MIGRATIONS

__all__ = [
    "NEWEST",
    "Migrated",
    "migrate",
]


NEWEST: Final = len(MIGRATIONS)


@frozen
class Migrated:
    """What a migration found and left; a newer release may have left more than is known here."""

    before: int
    after: int


async def migrate(url: str, *, schema: str = "upload_progress") -> Migrated:
    """Make the tables of ``PostgresStore``, or bring them up to date.

    The role needs the right to create a schema, or to create tables in one that is there and
    empty. Those that only save and read need ``USAGE`` on the schema, and ``SELECT``, ``INSERT``,
    ``UPDATE``, ``DELETE`` on its tables.

    Args:
        url: ``postgresql://…``.
        schema: Where the tables shall be.

    Raises:
        InvalidValue: The URL or the name is none.
    """
    validate_schema(schema)
    connection = await connect(validate_url(url))
    async with connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_of(schema),))
        before = await _version(connection, schema)
        for number in range(before, NEWEST):
            await _step(connection, schema, MIGRATIONS[number], number + 1)
    return Migrated(before, max(before, NEWEST))


def _lock_of(schema: str) -> int:
    digest = sha256(f"upload-progress migrates {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def _version(connection: AsyncConnection[TupleRow], schema: str) -> int:
    there = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
    # Asked first: "IF NOT EXISTS" wants the right to create it in any case.
    if await there.fetchone() is None:
        await _execute(connection, schema, "CREATE SCHEMA {schema}")
    await _execute(
        connection,
        schema,
        "CREATE TABLE IF NOT EXISTS {schema}.version (number integer NOT NULL)",
    )
    versions = await _execute(connection, schema, "SELECT max(number) FROM {schema}.version")
    found = await versions.fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


async def _step(
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
