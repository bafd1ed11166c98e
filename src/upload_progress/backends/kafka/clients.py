"""A writer and a reader of Kafka topics, for the store and the publisher.

aiokafka has no type annotations, and starts background tasks when it connects. Both are confined to
this module.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, Self

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner
from attrs import Factory, define, field, frozen

from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.loop_bound import LoopBound

__all__ = [
    "KafkaReader",
    "KafkaWriter",
    "OutgoingMessage",
    "Position",
    "ReceivedMessage",
    "partition_of",
    "stop_client",
]

_STOP_SECONDS: Final = 3.0
_MAX_MESSAGES: Final = 500
"""Messages that one read returns at most."""

_default_partition: Final = DefaultPartitioner()


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of *key*, which all clients of Kafka choose in the same way."""
    numbers = range(partitions)
    return int(_default_partition(key, numbers, numbers))


@frozen
class OutgoingMessage:
    """A message to be written.

    Attributes:
        key: Its key.
        value: Its value; None is a tombstone, which deletes the key.
        partition: Where to write it; by default the key decides.
        headers: Names and values.
        topic: Where to write it; by default the topic of the writer.
    """

    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str | None = None


@frozen
class Position:
    """Where a message was written."""

    partition: int
    offset: int


class ReceivedMessage(Protocol):
    """A message that was read: the type of aiokafka's ``ConsumerRecord``."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its number in the partition."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values."""

    @property
    def timestamp(self) -> int:
        """When it was written, in milliseconds since the epoch."""


@define(eq=False, repr=False)
class KafkaWriter:
    """Writes messages; connects with the first one.

    Args:
        access: How to connect.
        topic: Topic of messages that name none.
    """

    access: KafkaAccess
    topic: str
    _producers: LoopBound["_Producer"] = field(
        default=Factory(lambda self: self._make_producers(), takes_self=True), init=False
    )

    def _make_producers(self) -> LoopBound["_Producer"]:
        return LoopBound(lambda: _Producer(self.access), _Producer.close)

    async def write(self, messages: Sequence[OutgoingMessage]) -> Sequence[Position]:
        """Write *messages* concurrently, and return where each was written.

        If the caller is cancelled, they may have been written: aiokafka sends what it has buffered.
        """
        if not messages:
            return []
        producer = await (await self._producers.get()).connected()
        sent = [
            await producer.send(
                each.topic or self.topic,
                each.value,
                key=each.key,
                partition=each.partition,
                headers=list(each.headers),
            )
            for each in messages
        ]
        for each in sent:
            # If the caller is cancelled, asyncio would log those that fail later.
            each.add_done_callback(_retrieve_exception)
        await asyncio.wait(sent)
        return [Position(each.result().partition, each.result().offset) for each in sent]

    async def partitions(self, topic: str | None = None) -> int:
        """Return the number of partitions of *topic*, or of the writer's topic."""
        producer = await (await self._producers.get()).connected()
        return len(await producer.partitions_for(topic or self.topic))

    async def close(self) -> None:
        """Send what is buffered, if that takes no more than a few seconds, and disconnect."""
        await self._producers.aclose()


@define(eq=False, repr=False)
class _Producer:
    """The producer of one event loop, started when it is first used."""

    _access: KafkaAccess
    _producer: "AIOKafkaProducer | None" = field(default=None, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def connected(self) -> "AIOKafkaProducer":
        async with self._lock:
            if self._producer is None:
                producer = self._access.producer()
                try:
                    await producer.start()
                except BaseException:
                    await stop_client(producer)
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_client(producer)


def _retrieve_exception(future: "asyncio.Future[object]") -> None:
    with suppress(asyncio.CancelledError):
        future.exception()


async def stop_client(client: "AIOKafkaProducer | AIOKafkaConsumer") -> None:
    """Stop *client*, whatever its state."""
    with anyio.CancelScope(shield=True):
        # In a task of its own, as it may raise CancelledError although this task is not cancelled.
        stopping = asyncio.ensure_future(client.stop())
        stopping.add_done_callback(_retrieve_exception)
        await asyncio.wait([stopping], timeout=_STOP_SECONDS)
        stopping.cancel()
        # A consumer that failed to stop has left its connections open.
        connections = client.client if isinstance(client, AIOKafkaProducer) else client._client  # noqa: SLF001  # there is no other way
        await asyncio.gather(connections.close(), return_exceptions=True)


@define(eq=False, repr=False)
class KafkaReader:
    """Reads partitions of one topic, without a consumer group."""

    topic: str
    _consumer: "AIOKafkaConsumer"

    @classmethod
    async def connect(cls, access: KafkaAccess, topic: str) -> Self:
        """Return a connected reader that has no partitions yet."""
        consumer = access.consumer("earliest")
        try:
            await consumer.start()
        except BaseException:
            await stop_client(consumer)
            raise
        return cls(topic, consumer)

    def assign(self, offsets: Mapping[int, int | None]) -> None:
        """Read the partitions *offsets*, each from its offset; None is the beginning."""
        partitions = {TopicPartition(self.topic, number): at for number, at in offsets.items()}
        self._consumer.assign(list(partitions))
        for partition, offset in partitions.items():
            if offset is not None:
                self._consumer.seek(partition, offset)

    async def read(self, *, wait_seconds: float) -> Sequence[ReceivedMessage]:
        """Return the messages that have arrived, or none after *wait_seconds*."""
        found = await self._consumer.getmany(
            timeout_ms=int(wait_seconds * 1000), max_records=_MAX_MESSAGES
        )
        return [message for messages in found.values() for message in messages]

    async def offset(self, partition: int) -> int:
        """Return the offset that is read next."""
        return int(await self._consumer.position(TopicPartition(self.topic, partition)))

    async def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Ask the broker for the offset of the next message of each of *partitions*."""
        found = await self._consumer.end_offsets(
            [TopicPartition(self.topic, number) for number in partitions]
        )
        return {partition.partition: offset for partition, offset in found.items()}

    async def close(self) -> None:
        """Disconnect."""
        await stop_client(self._consumer)
