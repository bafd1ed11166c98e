"""``KafkaPublisher``: events and messages over one topic each.

Events go to the topic ``upload-progress-events`` with the key ``<owner>.<upload>``, both hashed
(``key_of``), so that those of one upload stay in order. They are CloudEvents in binary mode: the
attributes are headers ``ce_…``, the body is the snapshot. Messages go to
``upload-progress-messages`` with the hash of their worker as key, so that no consumer of events
receives them.

Each process reads all partitions of both topics, from their ends, without a consumer group: a
process that was killed leaves nothing behind, and each receives everything. Records without a
subscription are skipped by their key, before they are decoded. When a topic has got more
partitions, or has lost the record that is to be read next, the consumer reconnects.

Sources: the Kafka protocol, and the CloudEvents binding for Kafka.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Self

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from attrs import Factory, define, field

from upload_progress._model.cloudevents import CloudEvent, attributes_of, decode_binary, encode_data
from upload_progress._runtime.yielding import yielding
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.clients import (
    KafkaWriter,
    OutgoingMessage,
    ReceivedMessage,
    stop_client,
)
from upload_progress.backends.kafka.topics import NewTopicSettings, ensure_topics
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    Channel,
    SubscriptionTable,
    check_message_size,
    key_of,
)
from upload_progress.exceptions import InvalidValue

__all__ = ["ATTRIBUTE_PREFIX", "RETENTION_MS", "KafkaAccess", "KafkaConnection", "KafkaPublisher"]

ATTRIBUTE_PREFIX: Final = "ce_"
RETENTION_MS: Final = 3_600_000
"""Retention of a topic that is created here. This library reads no old records."""

_PORTION: Final = 500
_SETTINGS: Final = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)}


@define(eq=False, repr=False)
class KafkaPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``MessageTransport`` over Kafka.

    ::

        publisher = KafkaPublisher.open("kafka://localhost:9092")
        tracker = ProgressTracker(store=store, publisher=publisher)

    Args:
        access: How to connect.
        topic: What the names of the topics begin with: ``…-events`` and ``…-messages``.
        create_partitions: The partitions of a topic that is created here; None creates no topic.
        heartbeat_seconds: After this long without traffic the broker is asked for the ends of the
            topics; without an answer within the same time the connection counts as lost.
    """

    access: KafkaAccess
    topic: str = field(default="upload-progress", kw_only=True)
    create_partitions: int | None = field(default=None, kw_only=True)
    _writer: KafkaWriter = field(
        default=Factory(
            lambda self: KafkaWriter(self.access, f"{self.topic}-events"), takes_self=True
        ),
        init=False,
    )
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)
    _has_topics: bool = field(default=False, init=False)

    @property
    def keeps_events(self) -> bool:
        """True: the broker may keep events for consumers that are not connected."""
        return True

    @property
    def _messages_topic(self) -> str:
        return f"{self.topic}-messages"

    @classmethod
    def open(
        cls,
        url: str,
        *,
        topic: str = "upload-progress",
        create_partitions: int | None = 4,
        heartbeat_seconds: float = 4.0,
    ) -> Self:
        """Return one for the brokers of a URL.

        Args:
            url: ``kafka://HOST:PORT,…`` or ``kafkas://…``; see ``KafkaAccess.from_url``.
            topic: See the class.
            create_partitions: See the class.
            heartbeat_seconds: See the class.

        Raises:
            InvalidValue: The URL is not a valid Kafka URL.
        """
        return cls(
            KafkaAccess.from_url(url),
            topic=topic,
            create_partitions=create_partitions,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, those of an upload in order, and wait until the broker has them.

        Raises:
            InvalidValue: A topic does not exist, and is not to be created.
        """
        if events:
            await self._ensure_topics()
            await self._writer.write([_message(event) for event in events])

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*.

        Raises:
            InvalidValue: It is larger than 4 KiB, or a topic does not exist.
        """
        check_message_size(message)
        await self._ensure_topics()
        key = Channel.of_worker(worker).key.encode()
        await self._writer.write([OutgoingMessage(key, message, topic=self._messages_topic)])

    async def _ensure_topics(self) -> None:
        """Create the topics that do not exist, or raise ``InvalidValue``."""
        async with self._lock:
            if self._has_topics:
                return
            new = self.create_partitions and NewTopicSettings(self.create_partitions, _SETTINGS)
            topics = [self._writer.topic, self._messages_topic]
            found = await ensure_topics(self.access, dict.fromkeys(topics, new or None))
            for topic, settings in found.items():
                if settings is None:
                    raise InvalidValue(
                        f"topic {topic!r}",
                        "does not exist; create it: kafka-topics.sh --create "
                        f"--topic {topic} --bootstrap-server …",
                    )
            self._has_topics = True

    async def _connect(self) -> "KafkaConnection":
        self._has_topics = False
        await self._ensure_topics()
        consumer = self.access.consumer("none")
        try:
            await consumer.start()
            connection = KafkaConnection(
                self._writer, self._messages_topic, consumer, self._table, self.heartbeat_seconds
            )
            await connection.start()
        except BaseException:
            await stop_client(consumer)
            raise
        return connection

    async def _close(self) -> None:
        await self._writer.close()


def _message(event: CloudEvent) -> OutgoingMessage:
    key = f"{key_of(event.owner)}.{key_of(event.subject)}".encode()
    attributes = attributes_of(event).items()
    headers = [(f"{ATTRIBUTE_PREFIX}{name}", value.encode()) for name, value in attributes]
    content_type = ("content-type", event.datacontenttype.encode())
    return OutgoingMessage(key, encode_data(event), headers=[*headers, content_type])


def _event(message: ReceivedMessage) -> CloudEvent:
    try:
        attributes = {
            name.removeprefix(ATTRIBUTE_PREFIX): value.decode()
            for name, value in message.headers
            if name.startswith(ATTRIBUTE_PREFIX)
        }
    except UnicodeDecodeError as error:
        raise InvalidValue("event", str(error)) from None
    return decode_binary(attributes, message.value or b"")


@define(eq=False, repr=False)
class KafkaConnection:
    """The consumer, and the writer that knows how many partitions there are."""

    _writer: KafkaWriter
    _messages_topic: str
    _consumer: AIOKafkaConsumer
    _table: SubscriptionTable
    _heartbeat_seconds: float
    _partitions: list[TopicPartition] = field(factory=list, init=False)
    _start_offsets: dict[Channel, Mapping[TopicPartition, int]] = field(factory=dict, init=False)
    _checked_at: float = field(default=0.0, init=False)

    async def start(self) -> None:
        """Begin to read at the current ends of the topics."""
        self._partitions = await self._known_partitions()
        ends = await self._ends()
        self._consumer.assign(self._partitions)
        for partition, offset in ends.items():
            self._consumer.seek(partition, offset)

    async def _known_partitions(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number)
            for topic in (self._writer.topic, self._messages_topic)
            for number in range(await self._writer.partitions(topic))
        ]

    async def _ends(self) -> Mapping[TopicPartition, int]:
        """Ask the broker for the ends of the topics, which is also a heartbeat."""
        self._checked_at = _now()
        return dict(await self._consumer.end_offsets(self._partitions))

    async def receive(self) -> None:
        """Deliver what arrives; raise when the connection is lost."""
        while True:
            await self._fetch()
            if _now() - self._checked_at >= self._heartbeat_seconds:
                await self._check()

    async def _fetch(self) -> None:
        timeout_ms = int(self._heartbeat_seconds * 1000)
        found = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=_PORTION)
        async for message in yielding(each for messages in found.values() for each in messages):
            self._handle(message)

    async def _check(self) -> None:
        with anyio.fail_after(self._heartbeat_seconds):
            await self._ends()
            if await self._known_partitions() != self._partitions:
                raise ConnectionResetError

    def _handle(self, message: ReceivedMessage) -> None:
        key = (message.key or b"").decode(errors="replace")
        if message.topic == self._messages_topic:
            inbox = Channel("messages", key)
            partition = TopicPartition(message.topic, message.partition)
            # What was sent before the inbox was opened is not for it.
            start_offset = self._start_offsets.get(inbox, {}).get(partition, message.offset + 1)
            if message.offset >= start_offset:
                self._table.deliver_message(message.value or b"", inbox)
            return
        owner = Channel("events", key.partition(".")[0])
        self._table.deliver_encoded_event(lambda: _event(message), owner, ALL_OWNERS_CHANNEL)

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Receive from *channels*, too. All records are read anyway; inboxes begin here."""
        inboxes = [channel for channel in channels if channel.kind == "messages"]
        if inboxes:
            self._start_offsets |= dict.fromkeys(inboxes, await self._ends())

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Receive nothing more from *channels*."""
        for channel in channels:
            self._start_offsets.pop(channel, None)

    async def close(self) -> None:
        """Disconnect."""
        await stop_client(self._consumer)


def _now() -> float:
    return asyncio.get_running_loop().time()
