"""Consumers of a broker that keeps events receive each end, also after a restart of the worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import aio_pika
import anyio
import pytest
from aiokafka import AIOKafkaConsumer
from attrs import define

from tests._support.connection_faults import FAULT_SECONDS, until
from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from tests._support.tcp_proxy import TcpProxy
from upload_progress import ProgressTracker

EventIds = AsyncIterator[tuple[str, str]]
"""Yields the id and the state of each event."""


@asynccontextmanager
async def rabbitmq_consumer(server: ServerProcess) -> AsyncIterator[EventIds]:
    """Consume the events from a queue, as another program does."""
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("upload-progress")
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "upload.#")

        async def ids() -> EventIds:
            async with queue.iterator() as messages:
                while True:
                    message = await anext(messages)
                    state = json.loads(message.body)["state"]
                    yield str(message.headers["ce-id"]), state

        yield ids()


@asynccontextmanager
async def kafka_consumer(server: ServerProcess) -> AsyncIterator[EventIds]:
    """Consume the events of the topic, as another program does."""
    servers = server.url.removeprefix("kafka://")
    async with AIOKafkaConsumer("upload-progress-events", bootstrap_servers=servers) as consumer:

        async def ids() -> EventIds:
            while True:
                message = await anext(consumer)
                state = json.loads(message.value)["state"]
                yield dict(message.headers)["ce_id"].decode(), state

        yield ids()


@define
class RabbitMq:
    """RabbitMQ behind a proxy."""

    server: ServerProcess
    proxy: TcpProxy

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.proxy.port}/"

    def leave(self) -> None:
        self.proxy.refuses_connections = True
        self.proxy.reset_connections()

    def come_back(self) -> None:
        self.proxy.refuses_connections = False

    def consumer(self) -> AbstractAsyncContextManager[EventIds]:
        return rabbitmq_consumer(self.server)


@define
class Kafka:
    """Kafka, which tells its clients its own address."""

    server: ServerProcess

    @property
    def url(self) -> str:
        return self.server.url

    def leave(self) -> None:
        self.server.pause()

    def come_back(self) -> None:
        self.server.resume()

    def consumer(self) -> AbstractAsyncContextManager[EventIds]:
        return kafka_consumer(self.server)


@pytest.fixture
def rabbitmq(rabbitmq_server: ServerProcess, proxy_to: ProxyTo) -> RabbitMq:
    return RabbitMq(rabbitmq_server, proxy_to(rabbitmq_server.port))


@pytest.fixture
def kafka(kafka_server: ServerProcess) -> Kafka:
    return Kafka(kafka_server)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", ["rabbitmq", "kafka"])
async def test_end_arrives_after_the_worker_was_replaced_while_the_broker_was_away(
    name: str, redis_url: str, request: pytest.FixtureRequest
) -> None:
    broker: RabbitMq | Kafka = request.getfixturevalue(name)
    first, second = (
        ProgressTracker.from_url(
            f"{redis_url.rpartition('/')[0]}/7",
            events=broker.url,
            namespace="upload-progress",
            lease_seconds=2.0,
        )
        for _ in range(2)
    )
    with anyio.fail_after(FAULT_SECONDS):
        async with AsyncExitStack() as consumers:
            async with first.lifespan():
                async with first.track(owner="ann", upload_id="before"):
                    pass
                await until(lambda: first.statistics().events_published)
                events = await consumers.enter_async_context(broker.consumer())
                async with first.track(owner="ann", upload_id=name, total_bytes=5) as upload:
                    upload.advance(5)
                    broker.leave()
            broker.come_back()
            async with second.lifespan():
                has_ended = False
                while not has_ended:
                    event_id, state = await anext(events)
                    has_ended = event_id.startswith(f"{name}/1/") and state == "completed"

    assert first.statistics().publisher_failures
