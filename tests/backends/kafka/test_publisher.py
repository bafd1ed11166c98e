"""Events and letters over Kafka: the contracts, and what may happen to the broker."""

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
    heard,
    missed,
    told_at_last,
    until,
)
from tests._support.server_processes import ServerProcess
from upload_progress._model.cloudevents import CloudEvent, attributes_of, encode_data
from upload_progress.backends.kafka.clients import KafkaWriter, OutgoingMessage
from upload_progress.backends.kafka.publisher import ATTRIBUTE_PREFIX, KafkaAccess, KafkaPublisher
from upload_progress.backends.kafka.publisher import _Line as lines
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventsMissed
from upload_progress.testing import MessageTransportContract, PublisherContract

HEARTBEAT_SECONDS = 1.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="module")
def topic() -> str:
    return f"telling-{secrets.token_hex(6)}"


class TestKafkaPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, kafka_url: str, topic: str) -> AsyncIterator[KafkaPublisher]:
        async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
            yield publisher


class TestKafkaPost(MessageTransportContract):
    @pytest.fixture
    async def post(self, kafka_url: str, topic: str) -> AsyncIterator[KafkaPublisher]:
        async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
            yield publisher


def headers(event: CloudEvent) -> Mapping[str, bytes]:
    attributes = attributes_of(event).items()
    return {f"{ATTRIBUTE_PREFIX}{name}": value.encode() for name, value in attributes}


async def tell(url: str, *messages: OutgoingMessage, topic: str = "upload-progress-events") -> None:
    """Write *messages*, whatever they are."""
    writer = KafkaWriter(KafkaAccess.from_url(url), topic)
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

    async def tell_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
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
        await tell(url, *poison, OutgoingMessage(b"\xff", b""), OutgoingMessage(b"", None))
        return len(poison)

    async def tell_as(self, url: str, owner: str, forged: CloudEvent) -> None:
        key = f"{key_of(owner)}.{key_of('video')}".encode()
        await tell(
            url, OutgoingMessage(key, encode_data(forged), headers=list(headers(forged).items()))
        )


@pytest.mark.anyio
async def test_topics_may_get_more_partitions(kafka_url: str, topic: str) -> None:
    async with (
        KafkaPublisher.open(kafka_url, topic=topic, heartbeat_seconds=0.5) as publisher,
        publisher.listen() as everybodys,
        publisher.letters("w") as box,
    ):
        async with administrator(kafka_url) as admin:
            for name in ("events", "letters"):
                await admin.create_partitions({f"{topic}-{name}": NewPartitions(16)})
        await missed(everybodys)
        owners = [f"owner {number}" for number in range(40)]
        await publisher.publish([event(1, owner) for owner in owners])
        await publisher.send("w", b"letter")

        found: set[str] = set()
        with anyio.fail_after(FAULT_SECONDS):
            while len(found) < len(owners):
                one = await anext(everybodys)
                found |= {one.owner} if isinstance(one, CloudEvent) else set()
            assert [await anext(box), await anext(box)] == [EventsMissed(), b"letter"]
        assert found == set(owners)


@pytest.mark.anyio
async def test_topics_that_are_not_there_are_asked_for(
    kafka_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"absent-{secrets.token_hex(6)}"
    async with KafkaPublisher(KafkaAccess.from_url(kafka_url), topic=name) as publisher:
        await until(lambda: publisher.statistics().breaks)
        with pytest.raises(InvalidValue, match=f"topic '{name}-events': is not there; create it"):
            await publisher.publish([event(1)])
        assert f"'{name}-events': is not there; create it: kafka-topics.sh" in caplog.text
        async with administrator(kafka_url) as admin:
            await admin.create_topics(
                [NewTopic(f"{name}-{each}", 1, 1) for each in ("events", "letters")]
            )
        with anyio.fail_after(FAULT_SECONDS):
            async with publisher.listen("ann") as hers:
                await publisher.publish([event(1)])
                assert (await heard(hers, 1))[-1] == 1


@pytest.mark.anyio
async def test_topics_that_somebody_deletes_are_made_again(kafka_url: str) -> None:
    name = f"deleted-{secrets.token_hex(6)}"
    async with (
        KafkaPublisher.open(kafka_url, topic=name, heartbeat_seconds=0.5) as publisher,
        publisher.listen("ann") as hers,
    ):
        await publisher.publish([event(1)])
        assert await heard(hers, 1) == [1]
        async with administrator(kafka_url) as admin:
            await admin.delete_topics([f"{name}-events"])
        await missed(hers)
        await told_at_last(publisher, event(2))

        assert (await heard(hers, 2))[-1] == 2


@pytest.mark.anyio
async def test_a_letter_of_before_the_box_is_nobodys(kafka_url: str, topic: str) -> None:
    async with (
        KafkaPublisher.open(kafka_url, topic=topic) as publisher,
        publisher.listen() as everybodys,
    ):
        await told_at_last(publisher, event(1))
        assert (await heard(everybodys, 1))[-1] == 1
        await publisher.send("early", b"before")
        with anyio.fail_after(FAULT_SECONDS):
            async with publisher.letters("early") as box:
                await publisher.send("early", b"after")
                assert await anext(box) == b"after"


@pytest.mark.anyio
async def test_a_line_that_cannot_begin_is_stopped_and_tried_again(
    kafka_url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, refused = lines.begin, list[object]()

    async def refuse_once(line: lines) -> None:
        if not refused:
            refused.append(line)
            raise ConnectionResetError
        await begin(line)

    monkeypatch.setattr(lines, "begin", refuse_once)
    async with KafkaPublisher.open(kafka_url, topic=topic) as publisher:
        with anyio.fail_after(FAULT_SECONDS):
            async with publisher.listen("ann") as hers:
                await told_at_last(publisher, event(1))
                assert (await heard(hers, 1))[-1] == 1
        assert publisher.statistics().breaks == 1
    assert len(refused) == 1
