"""Events and letters over Kafka: a topic for each.

Events go to the topic ``upload-progress-events``, keyed ``<owner>.<upload>``, both hashed
(``key_of``), so that those of one upload stay in order. They are CloudEvents in binary mode: the
attributes are headers ``ce_…``, the body is the snapshot. Letters go to
``upload-progress-letters``, where nobody else reads along, keyed by the hash of their worker.

Each process reads all partitions of both, from the end, in no group: nothing is left behind of one
that was killed, and no two processes share a portion. What is not listened to here is passed over
by its key, before it is decoded. Where the topics have got more partitions, or have lost what was
to be read next, the line is given up and dialled again, as after any break.

Sources: Kafka's protocol, and the CloudEvents binding for Kafka.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Self

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from attrs import define, field

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
    ALL_OWNERS,
    Address,
    SubscriptionTable,
    checked_letter,
    key_of,
)
from upload_progress.exceptions import InvalidValue

__all__ = [
    "ATTRIBUTE_PREFIX",
    "RETENTION_MS",
    "KafkaAccess",
    "KafkaPublisher",
]

ATTRIBUTE_PREFIX: Final = "ce_"
RETENTION_MS: Final = 3_600_000
"""How long events and letters lie in a topic that is created here; nobody here reads old ones."""

_PORTION: Final = 500
_SETTINGS: Final = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)}


@define(eq=False, repr=False)
class KafkaPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``Post`` over Kafka.

    Args:
        access: How to connect.
        topic: The topic for events, and the beginning of that for letters: ``…-events``,
            ``…-letters``.
        create_partitions: How many partitions each gets if it is not there; None does not create
            it, and says how to.
    """

    access: KafkaAccess
    topic: str = field(default="upload-progress", kw_only=True)
    create_partitions: int | None = field(default=None, kw_only=True)
    _writer: KafkaWriter = field(init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)
    _is_prepared: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Prepare to write; nothing is connected."""
        super().__attrs_post_init__()
        self._writer = KafkaWriter(self.access, f"{self.topic}-events")

    @property
    def _letters(self) -> str:
        return f"{self.topic}-letters"

    @classmethod
    def open(
        cls,
        url: str,
        *,
        topic: str = "upload-progress",
        create_partitions: int | None = 4,
        heartbeat_seconds: float = 4.0,
    ) -> Self:
        """Return one for the brokers of *url*; see ``KafkaAccess.from_url``.

        Raises:
            InvalidValue: It is no such URL.
        """
        return cls(
            KafkaAccess.from_url(url),
            topic=topic,
            create_partitions=create_partitions,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, those of an upload in order, and wait until the broker has them."""
        if events:
            await self._prepare()
            await self._writer.write([_message(event) for event in events])

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        checked_letter(letter)
        await self._prepare()
        key = Address.of_worker(worker).key.encode()
        await self._writer.write([OutgoingMessage(key, letter, topic=self._letters)])

    async def _prepare(self) -> None:
        """See to it that the topics are there.

        Raises:
            InvalidValue: One is not, and is not to be created; says how to.
        """
        async with self._lock:
            if self._is_prepared:
                return
            new = self.create_partitions and NewTopicSettings(self.create_partitions, _SETTINGS)
            topics = [self._writer.topic, self._letters]
            found = await ensure_topics(self.access, dict.fromkeys(topics, new or None))
            for topic, settings in found.items():
                if settings is None:
                    raise InvalidValue(
                        f"topic {topic!r}",
                        "is not there; create it: kafka-topics.sh --create "
                        f"--topic {topic} --bootstrap-server …",
                    )
            self._is_prepared = True

    async def _dial(self) -> "_Line":
        self._is_prepared = False
        await self._prepare()
        consumer = self.access.consumer("none")
        try:
            await consumer.start()
            line = _Line(self._writer, self._letters, consumer, self._board, self.heartbeat_seconds)
            await line.begin()
        except BaseException:
            await stop_client(consumer)
            raise
        return line

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
class _Line:
    """The consumer that listens, and who tells how many partitions there are."""

    _writer: KafkaWriter
    _letters: str
    _consumer: AIOKafkaConsumer
    _board: SubscriptionTable
    _heartbeat_seconds: float
    _places: list[TopicPartition] = field(factory=list, init=False)
    _since: dict[Address, Mapping[TopicPartition, int]] = field(factory=dict, init=False)
    _asked_at: float = field(default=0.0, init=False)

    async def begin(self) -> None:
        """Read on from where the topics end now."""
        self._places = await self._known_places()
        ends = await self._ends()
        self._consumer.assign(self._places)
        for place, offset in ends.items():
            self._consumer.seek(place, offset)

    async def _known_places(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number)
            for topic in (self._writer.topic, self._letters)
            for number in range(await self._writer.partitions(topic))
        ]

    async def _ends(self) -> Mapping[TopicPartition, int]:
        """Ask the broker where the topics end, which is also a sign of life."""
        self._asked_at = _now()
        return dict(await self._consumer.end_offsets(self._places))

    async def hear(self) -> None:
        while True:
            await self._take_what_came()
            if _now() - self._asked_at >= self._heartbeat_seconds:
                await self._look()

    async def _take_what_came(self) -> None:
        patience_ms = int(self._heartbeat_seconds * 1000)
        found = await self._consumer.getmany(timeout_ms=patience_ms, max_records=_PORTION)
        async for message in yielding(each for messages in found.values() for each in messages):
            self._take(message)

    async def _look(self) -> None:
        with anyio.fail_after(self._heartbeat_seconds):
            await self._ends()
            if await self._known_places() != self._places:
                raise ConnectionResetError

    def _take(self, message: ReceivedMessage) -> None:
        key = (message.key or b"").decode(errors="replace")
        if message.topic == self._letters:
            box = Address("letters", key)
            place = TopicPartition(message.topic, message.partition)
            # A letter that was there before the box was is nobody's.
            if message.offset >= self._since.get(box, {}).get(place, message.offset + 1):
                self._board.bring_letter(message.value or b"", box)
            return
        owner = Address("events", key.partition(".")[0])
        self._board.bring_event(lambda: _event(message), owner, ALL_OWNERS)

    async def subscribe(self, addresses: Collection[Address]) -> None:
        boxes = [address for address in addresses if address.kind == "letters"]
        if boxes:
            self._since |= dict.fromkeys(boxes, await self._ends())

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        for address in addresses:
            self._since.pop(address, None)

    async def close(self) -> None:
        await stop_client(self._consumer)


def _now() -> float:
    return asyncio.get_running_loop().time()
