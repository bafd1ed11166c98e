"""Events and letters over RabbitMQ: a topic exchange for events, a direct one for letters.

Events go to the exchange ``upload-progress`` with the routing key ``upload.<owner>.<upload>``, both
hashed (``key_of``): ``upload.*.*`` are everybody's, ``upload.<owner>.*`` are an owner's. They are
CloudEvents in binary mode: the attributes are headers ``cloudEvents:…``, the body is the snapshot.
Letters go to ``upload-progress.letters``, where nobody else reads along.

One queue hears for the whole process. It is the connection's own and goes with it, and it is
bounded in length and age, so that a process that was killed, or that does not read, leaves nothing
behind. Publishing has a connection to itself: a broker that runs out of memory stops reading from
those who publish, and would stop hearing who wants to listen to what.

Sources: AMQP 0-9-1, RabbitMQ's guides on confirms, memory alarms and queue arguments, and the
CloudEvents binding for AMQP, whose application properties RabbitMQ calls headers.
"""

from upload_progress._runtime.optional import require

require("aio_pika", extra="rabbitmq")

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, Self
from urllib.parse import urlsplit

import anyio
from aio_pika import Connection, DeliveryMode, ExchangeType, Message, connect
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
    FieldValue,
)
from attrs import define, field, frozen

from upload_progress._model.cloudevents import CloudEvent, attributes_of, decode_binary, encode_data
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
    "AMQP_HEARTBEAT_SECONDS",
    "ATTRIBUTE_PREFIX",
    "EXPIRES_SECONDS",
    "MAX_QUEUE_BYTES",
    "MAX_QUEUE_MESSAGES",
    "Connector",
    "RabbitPublisher",
]


ATTRIBUTE_PREFIX: Final = "cloudEvents:"
AMQP_HEARTBEAT_SECONDS: Final = 2
"""aiormq takes a line for dead after three more than that: about nine seconds."""
MAX_QUEUE_MESSAGES: Final = 10_000
MAX_QUEUE_BYTES: Final = 32 * 1_048_576
EXPIRES_SECONDS: Final = 60

_QUEUE_ARGUMENTS: Final[dict[str, FieldValue]] = {
    "x-expires": EXPIRES_SECONDS * 1000,
    "x-max-length": MAX_QUEUE_MESSAGES,
    "x-max-length-bytes": MAX_QUEUE_BYTES,
    "x-overflow": "drop-head",
}

Connector = Callable[[], Awaitable[AbstractConnection]]
"""Makes a connection, which is closed by who asked for it."""


def _routing_key(address: Address, upload: str = "*") -> str:
    return f"upload.{address.key or '*'}.{upload}" if address.kind == "events" else address.key


@frozen
class _Exchanges:
    events: AbstractExchange
    letters: AbstractExchange

    @classmethod
    async def declared(cls, channel: AbstractChannel, name: str, durable: bool) -> Self:
        declare = partial(channel.declare_exchange, durable=durable)
        return cls(
            await declare(name, ExchangeType.TOPIC),
            await declare(f"{name}.letters", ExchangeType.DIRECT),
        )

    def of(self, address: Address) -> AbstractExchange:
        return self.events if address.kind == "events" else self.letters


@define(eq=False, repr=False)
class RabbitPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``Post`` over RabbitMQ.

    Args:
        client: A ready connection of aio-pika, which stays open; or a function that makes one: it
            is asked twice, to publish and to listen, and what it makes is closed.
        exchange: The name of the exchange for events.
        durable: Whether the exchanges outlive a restart of the broker, and events are stored by the
            durable queues of others. As they were declared the first time, they stay.
    """

    client: AbstractConnection | Connector
    exchange: str = field(default="upload-progress", kw_only=True)
    durable: bool = field(default=False, kw_only=True)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)
    _sending: AbstractConnection | None = field(default=None, init=False)
    _channel: AbstractChannel | None = field(default=None, init=False)
    _exchanges: _Exchanges | None = field(default=None, init=False)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        exchange: str = "upload-progress",
        durable: bool = False,
        heartbeat_seconds: float = 4.0,
    ) -> Self:
        """Return one with two connections of its own, which it closes.

        Args:
            url: ``amqp://…`` or ``amqps://…``, as aio-pika takes it.
            exchange: As above.
            durable: As above.
            heartbeat_seconds: As above.

        Raises:
            InvalidValue: The URL is none of these.
        """
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in {"amqp", "amqps"} and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise InvalidValue("url", "is no URL of RabbitMQ: amqp://HOST:PORT/VHOST")
        dial = partial(connect, url, heartbeat=AMQP_HEARTBEAT_SECONDS, connection_class=_Dialled)
        return cls(dial, exchange=exchange, durable=durable, heartbeat_seconds=heartbeat_seconds)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, and wait until the broker has confirmed all of them."""
        if events:
            exchange = (await self._sender()).events
            mode = DeliveryMode.PERSISTENT if self.durable else DeliveryMode.NOT_PERSISTENT
            await asyncio.gather(
                *(
                    exchange.publish(
                        _message(event, mode),
                        _routing_key(Address.of_owner(event.owner), key_of(event.subject)),
                        mandatory=False,
                    )
                    for event in events
                )
            )

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        message = Message(checked_letter(letter))
        exchange = (await self._sender()).letters
        await exchange.publish(message, _routing_key(Address.of_worker(worker)), mandatory=False)

    async def _sender(self) -> _Exchanges:
        """Return the exchanges on a channel that is open."""
        async with self._lock:
            if self._exchanges is None or self._channel is None or self._channel.is_closed:
                await self._hang_up()
                if callable(self.client):
                    connection = self._sending = await self.client()
                else:
                    connection = self.client
                channel = self._channel = await connection.channel()
                self._exchanges = await _Exchanges.declared(channel, self.exchange, self.durable)
            return self._exchanges

    async def _hang_up(self) -> None:
        connection, channel = self._sending, self._channel
        self._sending = self._channel = self._exchanges = None
        if channel is not None and not channel.is_closed:
            await channel.close()
        if connection is not None:
            await connection.close()

    async def _dial(self) -> "_Line":
        connection = await self.client() if callable(self.client) else self.client
        try:
            channel = await connection.channel(publisher_confirms=False)
            exchanges = await _Exchanges.declared(channel, self.exchange, self.durable)
            queue = await channel.declare_queue(
                exclusive=True, auto_delete=True, arguments=_QUEUE_ARGUMENTS
            )
            owned = connection if callable(self.client) else None
            line = _Line(channel, exchanges, queue, owned, self._board, self.heartbeat_seconds)
            await line.begin()
        except BaseException:
            if callable(self.client):
                await connection.close()
            raise
        return line

    async def _close(self) -> None:
        await self._hang_up()


class _Dialled(Connection):
    """Closed where it could not be made: else it says so when it is collected as garbage."""

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as there
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


def _message(event: CloudEvent, mode: DeliveryMode) -> Message:
    attributes = attributes_of(event)
    return Message(
        encode_data(event),
        headers={f"{ATTRIBUTE_PREFIX}{name}": value for name, value in attributes.items()},
        content_type=event.datacontenttype,
        delivery_mode=mode,
    )


def _attributes(headers: Mapping[str, object]) -> Mapping[str, object]:
    return {
        name.removeprefix(ATTRIBUTE_PREFIX): value
        for name, value in headers.items()
        if name.startswith(ATTRIBUTE_PREFIX)
    }


@define(eq=False, repr=False)
class _Line:
    """The channel and queue that listen."""

    _channel: AbstractChannel
    _exchanges: _Exchanges
    _queue: AbstractQueue
    _owned: AbstractConnection | None
    _board: SubscriptionTable
    _heartbeat_seconds: float
    _lost: anyio.Event = field(factory=anyio.Event, init=False)

    async def begin(self) -> None:
        self._channel.close_callbacks.add(self._lose)
        await self._queue.consume(self._take, no_ack=True)

    def _lose(self, *_: object) -> None:
        self._lost.set()

    async def hear(self) -> None:
        while True:
            with anyio.move_on_after(self._heartbeat_seconds):
                await self._lost.wait()
                raise ConnectionResetError
            with anyio.fail_after(self._heartbeat_seconds):
                # Also finds out that somebody has deleted it.
                await self._channel.declare_queue(self._queue.name, passive=True)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        key = message.routing_key or ""
        if message.exchange == self._exchanges.letters.name:
            self._board.bring_letter(message.body, Address("letters", key))
            return
        owner = Address("events", key.split(".")[1])
        self._board.bring_event(
            lambda: decode_binary(_attributes(message.headers), message.body), owner, ALL_OWNERS
        )

    async def subscribe(self, addresses: Collection[Address]) -> None:
        channel = await self._channel.get_underlay_channel()
        *early, last = (
            (self._queue.name, self._exchanges.of(address).name, _routing_key(address))
            for address in addresses
        )
        for binding in early:
            await channel.queue_bind(*binding, nowait=True)
        # A broker obeys in order: that it has obeyed the last says that of all.
        await channel.queue_bind(*last)

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        for address in addresses:
            await self._queue.unbind(self._exchanges.of(address), _routing_key(address))

    async def close(self) -> None:
        await self._channel.close()
        if self._owned is not None:
            await self._owned.close()
