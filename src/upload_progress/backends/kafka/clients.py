"""Lines to Kafka, for its store and its publisher: how to write and to read.

The driver has no types, and starts its tasks when it is asked to connect; both stay in here.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, Self

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner
from attrs import define, field, frozen

from upload_progress.backends.kafka.access import KafkaAccess

__all__ = [
    "KafkaReader",
    "KafkaWriter",
    "OutgoingMessage",
    "Place",
    "ReceivedMessage",
    "partition_of",
    "stop_client",
]

_STOP_SECONDS: Final = 3.0
_PORTION: Final = 500

_default_partition: Final = DefaultPartitioner()


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition for *key*, as all of Kafka's own clients choose it."""
    numbers = range(partitions)
    return int(_default_partition(key, numbers, numbers))


@frozen
class OutgoingMessage:
    """A message to be written; without a partition its key decides, without a topic the writer."""

    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str | None = None


@frozen
class Place:
    """Where a message lies."""

    partition: int
    offset: int


class ReceivedMessage(Protocol):
    """A message that was read."""

    @property
    def topic(self) -> str:
        """The topic that it was in."""

    @property
    def partition(self) -> int:
        """Where it was."""

    @property
    def offset(self) -> int:
        """Its number there."""

    @property
    def key(self) -> bytes | None:
        """What it is about."""

    @property
    def value(self) -> bytes | None:
        """What it says; None erases."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """What is said beside it."""


@define(eq=False, repr=False)
class KafkaWriter:
    """Writes to a topic; connects when it first has something to write."""

    access: KafkaAccess
    topic: str
    _producer: "AIOKafkaProducer | None" = field(default=None, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def write(self, messages: Sequence[OutgoingMessage]) -> Sequence[Place]:
        """Write *messages*, all at once; return where each of them lies.

        Whoever is cancelled may have written them: a producer finishes what it was given.
        """
        if not messages:
            return []
        producer = await self._connected()
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
            # Else asyncio complains of those that failed when nobody waited any more.
            each.add_done_callback(_look_at)
        await asyncio.wait(sent)
        return [Place(each.result().partition, each.result().offset) for each in sent]

    async def partitions(self, topic: str | None = None) -> int:
        """Return how many partitions its topic has, or another."""
        producer = await self._connected()
        return len(await producer.partitions_for(topic or self.topic))

    async def _connected(self) -> "AIOKafkaProducer":
        async with self._lock:
            if self._producer is None:
                producer = self.access.producer()
                try:
                    await producer.start()
                except BaseException:
                    await stop_client(producer)
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Hang up; what is on its way is sent, if that does not take long."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_client(producer)


def _look_at(sent: "asyncio.Future[object]") -> None:
    with suppress(asyncio.CancelledError):
        sent.exception()


async def stop_client(client: "AIOKafkaProducer | AIOKafkaConsumer") -> None:
    """Stop *client*, whatever state it is in."""
    with anyio.CancelScope(shield=True):
        # In a task of its own, as what it raises may look as if this one were cancelled.
        stopping = asyncio.ensure_future(client.stop())
        stopping.add_done_callback(_look_at)
        await asyncio.wait([stopping], timeout=_STOP_SECONDS)
        stopping.cancel()
        # A consumer that failed to stop has left its connections open.
        connections = client.client if isinstance(client, AIOKafkaProducer) else client._client  # noqa: SLF001  # there is no other way
        await asyncio.gather(connections.close(), return_exceptions=True)


@define(eq=False, repr=False)
class KafkaReader:
    """Reads partitions of one topic, as a group of its own."""

    topic: str
    _consumer: "AIOKafkaConsumer"

    @classmethod
    async def dial(cls, access: KafkaAccess, topic: str) -> Self:
        """Return one that is connected, and reads nothing yet."""
        consumer = access.consumer("earliest")
        try:
            await consumer.start()
        except BaseException:
            await stop_client(consumer)
            raise
        return cls(topic, consumer)

    def assign(self, positions: Mapping[int, int | None]) -> None:
        """Read these partitions, each from its position; None is where reading begins."""
        places = {TopicPartition(self.topic, number): at for number, at in positions.items()}
        self._consumer.assign(list(places))
        for place, offset in places.items():
            if offset is not None:
                self._consumer.seek(place, offset)

    async def read(self, *, wait_seconds: float) -> Sequence[ReceivedMessage]:
        """Return what has come, or nothing after so long."""
        found = await self._consumer.getmany(
            timeout_ms=int(wait_seconds * 1000), max_records=_PORTION
        )
        return [message for messages in found.values() for message in messages]

    async def position(self, partition: int) -> int:
        """Return which offset is read next."""
        return int(await self._consumer.position(TopicPartition(self.topic, partition)))

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Ask the broker what the next offsets of *partitions* will be."""
        places = [TopicPartition(self.topic, number) for number in partitions]
        found = await self._consumer.end_offsets(places)
        return {place.partition: offset for place, offset in found.items()}

    async def close(self) -> None:
        """Hang up."""
        await stop_client(self._consumer)
