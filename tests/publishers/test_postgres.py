"""Events and letters over PostgreSQL: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from upload_progress.publishers.postgres import PostgresPublisher
from upload_progress.testing import PostContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestPostgresPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher


class TestPostgresPost(PostContract):
    @pytest.fixture
    async def post(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher
