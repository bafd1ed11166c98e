"""Events and letters over RabbitMQ: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import aio_pika
import pytest
from aio_pika.abc import FieldValue
from anyio import to_thread

from tests._support.connection_faults import (
    HEARTBEAT_SECONDS,
    LineFaults,
    event,
    heard,
    missed,
    told,
    told_at_last,
    until,
)
from tests._support.rabbitmq_alarms import clear_memory_alarm, control, set_memory_alarm
from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from upload_progress._model.cloudevents import CloudEvent, attributes_of, encode_data
from upload_progress.backends.rabbitmq import ATTRIBUTE_PREFIX, RabbitPublisher
from upload_progress.backends.subscriptions import key_of
from upload_progress.testing import MessageTransportContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestRabbitPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher


class TestRabbitPost(MessageTransportContract):
    @pytest.fixture
    async def post(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher


async def tell(
    url: str, owner: str, bodies: Sequence[bytes], headers: Mapping[str, FieldValue]
) -> int:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("upload-progress")
        for body in bodies:
            message = aio_pika.Message(body, headers=dict(headers))
            await exchange.publish(message, f"upload.{key_of(owner)}.{key_of('video')}")
    return len(bodies)


class TestRabbitFaults(LineFaults):
    @pytest.fixture
    def server(self, rabbitmq_server: ServerProcess) -> ServerProcess:
        return rabbitmq_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> RabbitPublisher:
        return RabbitPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def tell_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        attributes = attributes_of(event(1))
        headers = {f"{ATTRIBUTE_PREFIX}{name}": value for name, value in attributes.items()}
        wrong = {**headers, f"{ATTRIBUTE_PREFIX}time": "yesterday", "other": "\0"}
        return (
            await tell(url, owner, [*payloads, bytes(10_000_000)], headers)
            + await tell(url, owner, [encode_data(event(1))], {})
            + await tell(url, owner, [encode_data(event(1))], wrong)
        )

    async def tell_as(self, url: str, owner: str, forged: CloudEvent) -> None:
        attributes = attributes_of(forged)
        headers = {f"{ATTRIBUTE_PREFIX}{name}": value for name, value in attributes.items()}
        await tell(url, owner, [encode_data(forged)], headers)

    async def test_a_memory_alarm_loses_events_and_nothing_else(
        self, server: ServerProcess
    ) -> None:
        async with self.open(server.url) as publisher, publisher.listen("ann") as hers:
            await publisher.publish([event(1)])
            assert await heard(hers, 1) == [1]
            await to_thread.run_sync(set_memory_alarm, server)
            assert not await told(publisher, event(2), event(3))
            assert not await told(publisher, event(4))
            async with publisher.listen("bob") as his:
                await to_thread.run_sync(clear_memory_alarm, server)
                await told_at_last(publisher, event(5), event(5, "bob"))

                assert (await heard(hers, 5))[-1] == 5
                assert (await heard(his, 5))[-1] == 5

    async def test_a_queue_that_somebody_deletes_is_made_again(self, server: ServerProcess) -> None:
        async with self.open(server.url) as publisher, publisher.listen("ann") as hers:
            delete = "rabbit_amqqueue:delete(Queue, false, false, <<>>)"
            for_each = f"[{delete} || Queue <- rabbit_amqqueue:list()]."
            await to_thread.run_sync(control, server, for_each)
            await missed(hers)
            await publisher.publish([event(1)])

            assert await heard(hers, 1) == [1]


@pytest.mark.anyio
async def test_a_connection_that_is_given_stays_open(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        for sequence in (1, 2):
            async with RabbitPublisher(connection) as publisher, publisher.listen("ann") as hers:
                await publisher.publish([event(sequence)])
                assert await heard(hers, sequence) == [sequence]
        assert not connection.is_closed
        channel = await connection.channel()
        await channel.close()


@pytest.mark.anyio
async def test_a_durable_exchange_outlives_the_broker(rabbitmq_server: ServerProcess) -> None:
    publisher = RabbitPublisher.open(rabbitmq_server.url, exchange="lasting", durable=True)
    async with publisher:
        await publisher.publish([event(1)])
    await to_thread.run_sync(rabbitmq_server.kill)
    await to_thread.run_sync(rabbitmq_server.start)
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await channel.get_exchange("lasting")
        await channel.exchange_delete("lasting")
        await channel.exchange_delete("lasting.letters")


@pytest.mark.anyio
async def test_a_process_that_is_gone_leaves_no_queue(rabbitmq_server: ServerProcess) -> None:
    async with RabbitPublisher.open(rabbitmq_server.url) as publisher:
        await until(lambda: publisher.statistics().is_connected)
    await to_thread.run_sync(control, rabbitmq_server, "[] = rabbit_amqqueue:list().")


@pytest.mark.anyio
async def test_an_exchange_that_is_another_is_no_line(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("taken", aio_pika.ExchangeType.FANOUT)
        async with RabbitPublisher.open(amqp_url, exchange="taken") as publisher:
            await until(lambda: publisher.statistics().breaks)
            assert not await told(publisher, event(1))
            assert not publisher.statistics().is_connected
        await channel.exchange_delete("taken")


@pytest.mark.anyio
async def test_a_connection_that_is_given_closed_is_no_line(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    await connection.close()
    async with RabbitPublisher(connection) as publisher:
        await until(lambda: publisher.statistics().breaks)
        assert not await told(publisher, event(1))


@pytest.mark.anyio
async def test_a_robust_connection_heals_by_itself_and_says_so(
    rabbitmq_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(rabbitmq_server.port)
    url = rabbitmq_server.url.replace(f":{rabbitmq_server.port}", f":{proxy.port}")
    async with (
        await aio_pika.connect_robust(url, reconnect_interval=0.1) as connection,
        RabbitPublisher(connection) as publisher,
        publisher.listen("ann") as hers,
    ):
        await publisher.publish([event(1)])
        assert await heard(hers, 1) == [1]
        proxy.reset_connections()
        await missed(hers)
        await told_at_last(publisher, event(2))

        assert (await heard(hers, 2))[-1] == 2
