"""Events and letters over RabbitMQ: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from upload_progress.publishers.rabbitmq import RabbitPublisher
from upload_progress.testing import PostContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestRabbitPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher


class TestRabbitPost(PostContract):
    @pytest.fixture
    async def post(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher
