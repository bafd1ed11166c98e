"""A driver that is not there, an event loop that it cannot use."""

from __future__ import annotations

import anyio
import pytest

from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.exceptions import InvalidValue


@pytest.mark.parametrize(
    "publisher",
    [
        RedisPublisher.open("redis://host"),
        PostgresPublisher.open("postgresql://host"),
        RabbitPublisher.open("amqp://host"),
        KafkaPublisher.open("kafka://host"),
    ],
    ids=lambda publisher: type(publisher).__name__,
)
def test_a_loop_that_is_not_asyncio_is_refused(
    publisher: BrokerSubscriber,
) -> None:
    async def enter() -> None:
        with pytest.raises(InvalidValue, match="needs asyncio"):
            await publisher.__aenter__()

    anyio.run(enter, backend="trio")
