"""Events and messages over RabbitMQ: the contracts, and faults of broker and connection."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Final
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import FieldValue
from anyio import to_thread
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event

from tests._support.connection_faults import (
    FAULT_SECONDS,
    HEARTBEAT_SECONDS,
    ConnectionFaults,
    event,
    is_published,
    missed,
    publish_with_retries,
    received,
    until,
)
from tests._support.paths import ROOT
from tests._support.rabbitmq_alarms import (
    add_user,
    clear_memory_alarm,
    evaluate,
    set_memory_alarm,
)
from tests._support.server_processes import ServerProcess, free_port
from tests._support.services import ProxyTo
from upload_progress._model.cloudevents import CloudEvent, attributes_of, encode_data
from upload_progress.backends.rabbitmq import ATTRIBUTE_PREFIX, RabbitPublisher
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS
from upload_progress.testing import MessageTransportContract, PublisherContract
from upload_progress.testing.publisher_contract import next_item, subscribed

GUIDE: Final = ROOT / "docs" / "guides" / "events.md"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestRabbitPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher


class TestRabbitTransport(MessageTransportContract):
    @pytest.fixture
    async def transport(self, amqp_url: str) -> AsyncIterator[RabbitPublisher]:
        async with RabbitPublisher.open(amqp_url) as publisher:
            yield publisher


FAILED_CONNECTION = """
import asyncio, gc, sys
from upload_progress.backends.rabbitmq import RabbitPublisher

errors = []  # their tracebacks hold the connection

async def connect():
    async with RabbitPublisher.open(sys.argv[1]) as publisher:
        try:
            await publisher.client()
        except OSError as error:
            errors.append(error)

loop = asyncio.new_event_loop()
loop.run_until_complete(connect())
asyncio.set_event_loop(None)
print(len(errors))
errors.clear()
gc.collect()
loop.close()
"""


def test_failed_connection_is_collected_without_a_warning() -> None:
    url = f"amqp://127.0.0.1:{free_port()}/"
    run = [sys.executable, "-W", "error", "-c", FAILED_CONNECTION, url]
    finished = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)

    assert finished.stdout == "1\n"
    assert "Warning" not in finished.stderr


async def publish(
    url: str, owner: str, bodies: Sequence[bytes], headers: Mapping[str, FieldValue]
) -> int:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("upload-progress")
        for body in bodies:
            message = aio_pika.Message(body, headers=dict(headers))
            await exchange.publish(message, f"upload.{key_of(owner)}.{key_of('video')}")
    return len(bodies)


class TestRabbitFaults(ConnectionFaults):
    @pytest.fixture
    def server(self, rabbitmq_server: ServerProcess) -> ServerProcess:
        return rabbitmq_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> RabbitPublisher:
        return RabbitPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def publish_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        attributes = attributes_of(event(1))
        headers = {f"{ATTRIBUTE_PREFIX}{name}": value for name, value in attributes.items()}
        wrong = {**headers, f"{ATTRIBUTE_PREFIX}time": "yesterday", "other": "\0"}
        return (
            await publish(url, owner, [*payloads, bytes(10_000_000)], headers)
            + await publish(url, owner, [encode_data(event(1))], {})
            + await publish(url, owner, [encode_data(event(1))], wrong)
        )

    async def publish_forged(self, url: str, owner: str, forged: CloudEvent) -> None:
        attributes = attributes_of(forged)
        headers = {f"{ATTRIBUTE_PREFIX}{name}": value for name, value in attributes.items()}
        await publish(url, owner, [encode_data(forged)], headers)

    async def test_memory_alarm_loses_events_and_nothing_else(self, server: ServerProcess) -> None:
        async with self.open(server.url) as publisher, subscribed(publisher, "ann") as stream:
            await publisher.publish([event(1)])
            assert await received(stream, 1) == [1]
            await to_thread.run_sync(set_memory_alarm, server)
            assert not await is_published(publisher, event(2), event(3))
            assert not await is_published(publisher, event(4))
            async with subscribed(publisher, "bob") as other:
                await to_thread.run_sync(clear_memory_alarm, server)
                await publish_with_retries(publisher, event(5), event(5, "bob"))

                assert (await received(stream, 5))[-1] == 5
                assert (await received(other, 5))[-1] == 5

    async def test_deleted_queue_is_declared_again(self, server: ServerProcess) -> None:
        async with self.open(server.url) as publisher, subscribed(publisher, "ann") as stream:
            delete = "rabbit_amqqueue:delete(Queue, false, false, <<>>)"
            for_each = f"[{delete} || Queue <- rabbit_amqqueue:list()]."
            await to_thread.run_sync(evaluate, server, for_each)
            await missed(stream)
            await publisher.publish([event(1)])

            assert await received(stream, 1) == [1]


@pytest.mark.anyio
async def test_connection_that_is_passed_in_stays_open(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        for sequence in (1, 2):
            async with (
                RabbitPublisher(connection) as publisher,
                subscribed(publisher, "ann") as stream,
            ):
                await publisher.publish([event(sequence)])
                assert await received(stream, sequence) == [sequence]
        assert not connection.is_closed
        channel = await connection.channel()
        await channel.close()


@pytest.mark.anyio
async def test_durable_exchange_survives_a_restart(rabbitmq_server: ServerProcess) -> None:
    publisher = RabbitPublisher.open(rabbitmq_server.url, exchange="durable", durable=True)
    async with publisher:
        await publisher.publish([event(1)])
    await to_thread.run_sync(rabbitmq_server.kill)
    await to_thread.run_sync(rabbitmq_server.start)
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await channel.get_exchange("durable")
        await channel.exchange_delete("durable")
        await channel.exchange_delete("durable.messages")


@pytest.mark.anyio
async def test_closed_adapter_leaves_no_queue(rabbitmq_server: ServerProcess) -> None:
    async with RabbitPublisher.open(rabbitmq_server.url) as publisher:
        await until(lambda: publisher.statistics().is_connected)
    await to_thread.run_sync(evaluate, rabbitmq_server, "[] = rabbit_amqqueue:list().")


def rights_in_guide(role: str) -> dict[str, str]:
    """Return the patterns of the guide for a user who creates the exchanges, or does not."""
    command = re.search(rf"set_permissions -p / {role} '(.*)' '(.*)' '(.*)'", GUIDE.read_text())
    assert command is not None
    return dict(zip(("configure", "write", "read"), command.groups(), strict=True))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "exists"), [("uploads", False), ("uploads", True), ("uploads-only", True)]
)
async def test_user_of_the_guide_has_enough_rights(
    rabbitmq_server: ServerProcess, role: str, exists: bool
) -> None:
    """Also if the exchanges exist, with other settings, and must not be declared."""
    user = f"{role}-{exists}"
    name = f"shop-{user}"
    rights = {
        kind: pattern.replace("upload-progress", name)
        for kind, pattern in rights_in_guide(role).items()
    }
    await to_thread.run_sync(partial(add_user, rabbitmq_server, user, **rights))
    if exists:
        async with RabbitPublisher.open(rabbitmq_server.url, exchange=name, durable=True) as admin:
            await until(lambda: admin.statistics().is_connected)
    url = f"amqp://{user}:{user}@127.0.0.1:{rabbitmq_server.port}/"
    async with (
        RabbitPublisher.open(url, exchange=name) as publisher,
        subscribed(publisher, "ann") as one,
        subscribed(publisher, ALL_OWNERS) as all_owners,
        publisher.inbox("w") as inbox,
    ):
        await publisher.publish([event(1)])
        assert await received(one, 1) == [1]
        assert await received(all_owners, 1) == [1]
        await one.unsubscribe("ann")
        await publisher.send("w", b"message")
        assert await next_item(inbox) == b"message"


OWN_QUEUES: Final = r"^upload-progress\.[\w-]{16}$"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("missing", "rights", "resource"),
    [
        ("create", ("^$", ".*", ".*"), "exchange 'shop.missing'"),
        ("subscribe", (".*", ".*", OWN_QUEUES), "exchange 'upload-progress"),
        ("receive", (".*", ".*", "^$"), "queue 'upload-progress"),
    ],
)
async def test_missing_right_is_an_error_with_the_fix(
    rabbitmq_server: ServerProcess,
    caplog: pytest.LogCaptureFixture,
    missing: str,
    rights: tuple[str, str, str],
    resource: str,
) -> None:
    """The exchanges of the operator are used; what is not allowed is said once, in the log."""
    async with RabbitPublisher.open(rabbitmq_server.url) as operator:
        await operator.publish([event(1)])
    user, exchange = f"may-not-{missing}", "upload-progress"
    if missing == "create":
        exchange = "shop.missing"
    named = dict(zip(("configure", "write", "read"), rights, strict=True))
    await to_thread.run_sync(partial(add_user, rabbitmq_server, user, **named))
    url = f"amqp://{user}:{user}@127.0.0.1:{rabbitmq_server.port}/"
    async with RabbitPublisher.open(url, exchange=exchange) as publisher:
        with publisher._table.inbox("w"):
            await until(lambda: publisher.statistics().connection_failures)
        pattern = "'^" + exchange.replace(".", r"\.") + r"(\..*)?$'"
        assert f"access to {resource}" in caplog.text
        assert f"set_permissions -p / {user} {pattern} {pattern} {pattern}" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("user", "write", "topics", "fix"),
    [
        ("may-not-write", OWN_QUEUES, ".*", "set_permissions"),
        ("may-not-use-topics", ".*", "^$", "clear_topic_permissions"),
    ],
)
async def test_missing_right_to_publish_is_an_error_with_the_fix(
    rabbitmq_server: ServerProcess, user: str, write: str, topics: str, fix: str
) -> None:
    rights = {"configure": ".*", "write": write, "read": ".*", "topics": topics}
    await to_thread.run_sync(partial(add_user, rabbitmq_server, user, **rights))
    url = f"amqp://{user}:{user}@127.0.0.1:{rabbitmq_server.port}/"
    async with RabbitPublisher.open(url) as publisher:
        with pytest.raises(InvalidValue, match=f"rabbitmqctl {fix} -p / {user}"):
            await publisher.publish([event(1)])


@pytest.mark.anyio
async def test_deleted_exchange_is_created_again(amqp_url: str) -> None:
    exchange = f"deleted-{uuid4().hex}"
    async with (
        await aio_pika.connect(amqp_url) as connection,
        RabbitPublisher.open(amqp_url, exchange=exchange) as publisher,
    ):
        await publisher.publish([event(1)])
        await (await connection.channel()).exchange_delete(exchange)
        assert not await is_published(publisher, event(2))
        await publisher.publish([event(3)])


@pytest.mark.anyio
@pytest.mark.parametrize(("suffix", "right"), [("", "topic"), (".messages", "direct")])
async def test_exchange_of_another_type_is_an_error_with_the_fix(
    amqp_url: str, caplog: pytest.LogCaptureFixture, suffix: str, right: str
) -> None:
    """Events would reach no worker, or the events of all owners would reach each."""
    name = f"wrong-{uuid4().hex}{suffix}"
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(name, "fanout", auto_delete=True)
        async with RabbitPublisher.open(amqp_url, exchange=name.removesuffix(suffix)) as publisher:
            with pytest.raises(InvalidValue, match=f"type fanout instead of {right}: delete it"):
                await publisher.publish([event(1)])
            await until(lambda: publisher.statistics().connection_failures)
        await channel.exchange_delete(name)

    assert f"exchange '{name}': has the type fanout instead of {right}: delete it" in caplog.text


@pytest.mark.anyio
async def test_messages_are_cloud_events_for_other_programs(amqp_url: str) -> None:
    """The SDK of the CloudEvents project reads them, with every attribute."""
    async with (
        await aio_pika.connect(amqp_url) as connection,
        RabbitPublisher.open(amqp_url) as publisher,
    ):
        await until(lambda: publisher.statistics().is_connected)
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("upload-progress", "upload.*.*")
        sent = event(1, "Боб")
        await publisher.publish([sent])
        message = await queue.get(timeout=FAULT_SECONDS)

    headers = {name: str(value) for name, value in message.headers.items()}
    read = from_rabbitmq_event(RabbitMQMessage(headers, message.content_type, message.body))
    expected = {"specversion": "1.0", "type": sent.type, "owner": "Боб", "time": sent.time}
    assert read.get_attributes().items() >= expected.items()
    assert (read.get_id(), read.get_source()) == (sent.id, sent.source)
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data() == json.loads(encode_data(sent))


@pytest.mark.anyio
async def test_closed_connection_is_a_connection_failure(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    await connection.close()
    async with RabbitPublisher(connection) as publisher:
        await until(lambda: publisher.statistics().connection_failures)
        assert not await is_published(publisher, event(1))


@pytest.mark.anyio
async def test_reconnect_of_a_robust_connection_is_reported(
    rabbitmq_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    proxy = proxy_to(rabbitmq_server.port)
    url = rabbitmq_server.url.replace(f":{rabbitmq_server.port}", f":{proxy.port}")
    async with (
        await aio_pika.connect_robust(url, reconnect_interval=0.1) as connection,
        RabbitPublisher(connection) as publisher,
        subscribed(publisher, "ann") as stream,
    ):
        await publisher.publish([event(1)])
        assert await received(stream, 1) == [1]
        proxy.reset_connections()
        await missed(stream)
        await publish_with_retries(publisher, event(2))

        assert (await received(stream, 2))[-1] == 2
