"""Events and messages over Kafka: the contracts, and faults of the broker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from tests._support.connection_faults import (
    FAULT_SECONDS,
    BrokerFaults,
    event,
    missed,
    publish_with_retries,
    received,
    until,
)
from tests._support.server_processes import ServerProcess
from upload_progress._model.cloudevents import CloudEvent, attributes_of, encode_data
from upload_progress.backends.kafka.clients import KafkaWriter, OutgoingMessage
from upload_progress.backends.kafka.publisher import (
    ATTRIBUTE_PREFIX,
    KafkaAccess,
    KafkaConnection,
    KafkaPublisher,
)
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS, EventsMissed
from upload_progress.testing import MessageTransportContract, PublisherContract
from upload_progress.testing.publisher_contract import subscribed

HEARTBEAT_SECONDS = 1.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="module")
def topic() -> str:
    return f"publisher-{secrets.token_hex(6)}"


class TestKafkaPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, kafka_url: str, topic: str) -> AsyncIterator[KafkaPublisher]:
        async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
            yield publisher


class TestKafkaTransport(MessageTransportContract):
    @pytest.fixture
    async def transport(self, kafka_url: str, topic: str) -> AsyncIterator[KafkaPublisher]:
        async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
            yield publisher


def headers(event: CloudEvent) -> Mapping[str, bytes]:
    attributes = attributes_of(event).items()
    return {f"{ATTRIBUTE_PREFIX}{name}": value.encode() for name, value in attributes}


async def write(url: str, *messages: OutgoingMessage) -> None:
    """Write *messages*, which need not be events."""
    writer = KafkaWriter(KafkaAccess.from_url(url), "upload-progress-events")
    try:
        with anyio.fail_after(FAULT_SECONDS):
            await writer.write(messages)
    finally:
        await writer.close()


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = KafkaAccess.from_url(url).admin()
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


class TestKafkaFaults(BrokerFaults):
    @pytest.fixture
    def server(self, kafka_server: ServerProcess) -> ServerProcess:
        return kafka_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> KafkaPublisher:
        return KafkaPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def publish_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        key, good = f"{key_of(owner)}.{key_of('video')}".encode(), headers(event(1))
        wrong = [
            {},
            {**good, f"{ATTRIBUTE_PREFIX}time": b"yesterday", "other": b"\0"},
            {**good, f"{ATTRIBUTE_PREFIX}id": b"\xff"},
        ]
        data = encode_data(event(1))
        poison = [
            *(OutgoingMessage(key, body, headers=list(good.items())) for body in payloads),
            *(OutgoingMessage(key, data, headers=list(each.items())) for each in wrong),
            OutgoingMessage(key, None, headers=list(good.items())),
        ]
        await write(url, *poison, OutgoingMessage(b"\xff", b""), OutgoingMessage(b"", None))
        return len(poison)

    async def publish_forged(self, url: str, owner: str, forged: CloudEvent) -> None:
        key = f"{key_of(owner)}.{key_of('video')}".encode()
        await write(
            url, OutgoingMessage(key, encode_data(forged), headers=list(headers(forged).items()))
        )


@pytest.mark.anyio
async def test_additional_partitions_are_read(kafka_url: str, topic: str) -> None:
    async with (
        KafkaPublisher.open(kafka_url, topic=topic, heartbeat_seconds=0.5) as publisher,
        subscribed(publisher, ALL_OWNERS) as all_owners,
        publisher.inbox("w") as inbox,
    ):
        async with administrator(kafka_url) as admin:
            for name in ("events", "messages"):
                await admin.create_partitions({f"{topic}-{name}": NewPartitions(16)})
        await missed(all_owners)
        owners = [f"owner {number}" for number in range(40)]
        await publisher.publish([event(1, owner) for owner in owners])
        await publisher.send("w", b"message")

        found: set[str] = set()
        with anyio.fail_after(FAULT_SECONDS):
            while len(found) < len(owners):
                one = await anext(all_owners)
                found |= {one.owner} if isinstance(one, CloudEvent) else set()
            assert [await anext(inbox), await anext(inbox)] == [EventsMissed(), b"message"]
        assert found == set(owners)


@pytest.mark.anyio
async def test_error_about_missing_topics_names_the_command(
    kafka_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"absent-{secrets.token_hex(6)}"
    async with KafkaPublisher(KafkaAccess.from_url(kafka_url), topic=name) as publisher:
        await until(lambda: publisher.statistics().connection_failures)
        with pytest.raises(InvalidValue, match=f"topic '{name}-events': does not exist; create it"):
            await publisher.publish([event(1)])
        assert f"'{name}-events': does not exist; create it: kafka-topics.sh" in caplog.text
        async with administrator(kafka_url) as admin:
            await admin.create_topics(
                [NewTopic(f"{name}-{each}", 1, 1) for each in ("events", "messages")]
            )
        with anyio.fail_after(FAULT_SECONDS):
            async with subscribed(publisher, "ann") as stream:
                await publisher.publish([event(1)])
                assert (await received(stream, 1))[-1] == 1


@pytest.mark.anyio
async def test_deleted_topics_are_created_again(kafka_url: str) -> None:
    name = f"deleted-{secrets.token_hex(6)}"
    async with (
        KafkaPublisher.open(kafka_url, topic=name, heartbeat_seconds=0.5) as publisher,
        subscribed(publisher, "ann") as stream,
    ):
        await publisher.publish([event(1)])
        assert await received(stream, 1) == [1]
        async with administrator(kafka_url) as admin:
            await admin.delete_topics([f"{name}-events"])
        await missed(stream)
        await publish_with_retries(publisher, event(2))

        assert (await received(stream, 2))[-1] == 2


@pytest.mark.anyio
async def test_message_from_before_the_inbox_is_ignored(kafka_url: str, topic: str) -> None:
    async with (
        KafkaPublisher.open(kafka_url, topic=topic) as publisher,
        subscribed(publisher, ALL_OWNERS) as all_owners,
    ):
        await publish_with_retries(publisher, event(1))
        assert (await received(all_owners, 1))[-1] == 1
        await publisher.send("early", b"before")
        with anyio.fail_after(FAULT_SECONDS):
            async with publisher.inbox("early") as inbox:
                await publisher.send("early", b"after")
                assert await anext(inbox) == b"after"


@pytest.mark.anyio
async def test_connection_that_cannot_start_is_closed_and_replaced(
    kafka_url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = KafkaConnection.start, list[object]()

    async def refuse_once(connection: KafkaConnection) -> None:
        if not refused:
            refused.append(connection)
            raise ConnectionResetError
        await start(connection)

    monkeypatch.setattr(KafkaConnection, "start", refuse_once)
    async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
        with anyio.fail_after(FAULT_SECONDS):
            async with subscribed(publisher, "ann") as stream:
                await publish_with_retries(publisher, event(1))
                assert (await received(stream, 1))[-1] == 1
        assert publisher.statistics().connection_failures == 1
    assert len(refused) == 1
