"""Congestion at real servers: many requests at once are served with few connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

from tests._support.asgi_client import wait_until
from upload_progress import ProgressTracker, UploadNotFound, UploadState

pytestmark = pytest.mark.anyio

POLLS = 300
MAX_CONNECTIONS = 20
"""Of store and publisher, and of the test itself."""

CountConnections = Callable[[], Awaitable[int]]


@pytest.fixture
def anyio_backend() -> str:
    """The drivers run on asyncio."""
    return "asyncio"


@pytest.fixture
def redis_store(redis_url: str) -> tuple[str, CountConnections]:
    async def count() -> int:
        async with Redis.from_url(redis_url) as client:
            return int((await client.info("clients"))["connected_clients"])

    return redis_url, count


@pytest.fixture
def postgres_store(migrated_postgres_url: str) -> tuple[str, CountConnections]:
    async def count() -> int:
        async with await AsyncConnection.connect(migrated_postgres_url) as connection:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            [row] = await cursor.fetchall()
            return int(row[0])

    return migrated_postgres_url, count


@pytest.mark.parametrize("store", ["redis_store", "postgres_store"])
async def test_many_polls_at_once_harm_no_upload(
    request: pytest.FixtureRequest, store: str
) -> None:
    """No call of the store fails, and the number of connections stays small."""
    url, count_connections = request.getfixturevalue(store)
    here, elsewhere = ProgressTracker.from_url(url), ProgressTracker.from_url(url)

    async def poll(number: int) -> None:
        with pytest.raises(UploadNotFound):
            await here.get(f"unknown-{number}", owner="bob")

    async with here.lifespan(), here.track(owner="congested", total_bytes=10) as upload:
        upload.advance(1)
        await wait_until(lambda: here.statistics().records_written)
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for number in range(POLLS):
                    tasks.start_soon(poll, number)
        assert await count_connections() <= MAX_CONNECTIONS
        async with elsewhere.lifespan():
            progress = await elsewhere.get(upload.upload_id, owner="congested")

    assert progress.state is UploadState.RECEIVING
    assert here.statistics().store_failures == elsewhere.statistics().store_failures == 0
