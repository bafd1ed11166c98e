"""A database with the tables of ``PostgresStore``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from upload_progress.backends.postgres.client import connect


@pytest.fixture
async def admin(migrated_postgres_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Yield a connection to a database with empty tables."""
    async with await connect(migrated_postgres_url) as connection:
        await connection.execute("TRUNCATE upload_progress.transfers, upload_progress.leases")
        yield connection
