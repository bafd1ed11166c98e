"""Events and letters over Redis: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from upload_progress.publishers.redis import RedisPublisher
from upload_progress.testing import PostContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestRedisPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with RedisPublisher.open(redis_url) as publisher:
            yield publisher


class TestRedisPost(PostContract):
    @pytest.fixture
    async def post(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with RedisPublisher.open(redis_url) as publisher:
            yield publisher
