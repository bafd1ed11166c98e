"""PostgreSQL with the tables of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from upload_progress.backends.postgres.client import connect


@pytest.fixture
async def admin(migrated_postgres_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Yield a connection to tables that are empty."""
    async with await connect(migrated_postgres_url) as connection:
        await connection.execute("TRUNCATE upload_progress.transfers, upload_progress.leases")
        yield connection
