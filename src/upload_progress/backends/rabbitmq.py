"""``RabbitPublisher``: events over a topic exchange, messages over a direct exchange of RabbitMQ.

Events go to the exchange ``upload-progress`` with the routing key ``upload.<owner>.<upload>``, both
hashed (``key_of``): ``upload.*.*`` matches all owners, ``upload.<owner>.*`` one. They are
CloudEvents in binary mode: the attributes are headers ``ce-…``, the body is the snapshot.
Messages go to ``upload-progress.messages``, so that no consumer of events receives them.

One queue receives for the process: ``upload-progress.`` and a random name. It is exclusive to
the connection and deleted with it, and bounded in length and age, so that a process that was killed
or does not read leaves nothing behind.
Publishing has a connection to itself: a broker that runs out of memory stops to read from the
connections that publish, and would not read their subscriptions either.

Sources: AMQP 0-9-1, RabbitMQ's guides on confirms, access control, memory alarms and queue
arguments, and the CloudEvents binding for RabbitMQ (of Knative; the SDK for Python has it).
"""

from upload_progress._runtime.optional import require

require("aio_pika", extra="rabbitmq")

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from secrets import token_urlsafe
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
from aio_pika.exceptions import (
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from attrs import Factory, define, field, frozen

from upload_progress._model.cloudevents import CloudEvent, attributes_of, decode_binary, encode_data
from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    Channel,
    SubscriptionTable,
    check_message_size,
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
    "RabbitConnection",
    "RabbitPublisher",
]


ATTRIBUTE_PREFIX: Final = "ce-"
AMQP_HEARTBEAT_SECONDS: Final = 2
"""aiormq gives a connection up after three heartbeats without an answer, and one: nine seconds."""
MAX_QUEUE_MESSAGES: Final = 10_000
MAX_QUEUE_BYTES: Final = 32 * 1_048_576
EXPIRES_SECONDS: Final = 60

_QUEUE_NAME_BYTES: Final = 12
_QUEUE_ARGUMENTS: Final[dict[str, FieldValue]] = {
    "x-expires": EXPIRES_SECONDS * 1000,
    "x-max-length": MAX_QUEUE_MESSAGES,
    "x-max-length-bytes": MAX_QUEUE_BYTES,
    "x-overflow": "drop-head",
}

_OTHER_TYPE: Final = re.compile(r"inequivalent arg 'type'.* but current is '([\w-]+)'")

_REFUSED: Final = re.compile(r"access to (\w+) '.*' in vhost '(.*)' refused for user '(.*)'")

Connector = Callable[[], Awaitable[AbstractConnection]]
"""Returns a new connection, which its caller closes."""


def _routing_key(channel: Channel, upload: str = "*") -> str:
    return f"upload.{channel.key or '*'}.{upload}" if channel.kind == "events" else channel.key


@contextmanager
def _explained(exchange: str) -> Iterator[None]:
    """Raise the refusal of a right as an error that contains the fix.

    Raises:
        InvalidValue: The user lacks a right.
    """
    try:
        yield
    except ChannelClosed as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        kind, host, user = found.groups()
        pattern = "'^" + exchange.replace(".", r"\.") + r"(\..*)?$'"
        fix = (
            f"clear_topic_permissions -p {host} {user}"
            if kind == "topic"
            else f"set_permissions -p {host} {user} {pattern} {pattern} {pattern}"
        )
        raise InvalidValue("rights in RabbitMQ", f"{found[0]}: run rabbitmqctl {fix}") from None


@frozen
class _Exchanges:
    events: AbstractExchange
    messages: AbstractExchange

    @classmethod
    async def open(
        cls, connection: AbstractConnection, channel: AbstractChannel, name: str, *, durable: bool
    ) -> Self:
        """Return the exchanges on *channel*; declare those that do not exist.

        To ask whether one exists requires no right. The broker closes the channel of a question
        with a negative answer.

        Raises:
            InvalidValue: One exists that has another type, as far as the rights suffice to see it.
        """
        names = {name: ExchangeType.TOPIC, f"{name}.messages": ExchangeType.DIRECT}
        for each, kind in names.items():
            asking = await connection.channel(publisher_confirms=False)
            try:
                await asking.get_exchange(each)
            except ChannelNotFoundEntity:
                await channel.declare_exchange(each, kind, durable=durable)
            else:
                await _check_type(asking, each, kind, durable=durable)
        events, messages = [await channel.get_exchange(each, ensure=False) for each in names]
        return cls(events, messages)

    def of(self, channel: Channel) -> AbstractExchange:
        return self.events if channel.kind == "events" else self.messages


async def _check_type(
    asking: AbstractChannel, name: str, kind: ExchangeType, *, durable: bool
) -> None:
    """Check that an existing exchange has the type *kind*, and close the channel *asking*.

    Raises:
        InvalidValue: It has another one: events would reach no queue, or all.
    """
    try:
        # Only a declaration is compared with the exchange; it changes nothing.
        await asking.declare_exchange(name, kind, durable=durable)
        await asking.close()
    except ChannelPreconditionFailed as error:
        found = _OTHER_TYPE.search(str(error))
        if found is None:
            return
        raise InvalidValue(
            f"exchange {name!r}",
            f"has the type {found[1]} instead of {kind.value}: delete it (rabbitmqadmin delete "
            f"exchange name={name}), or choose another name with exchange=…",
        ) from None
    except ChannelClosed:
        # Without the right to declare it.
        return


@define(eq=False, repr=False)
class RabbitPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``MessageTransport`` over RabbitMQ.

    ::

        publisher = RabbitPublisher.open("amqp://localhost/")
        tracker = ProgressTracker(store=store, publisher=publisher)

    Args:
        client: A connection of aio-pika, which stays open; or a function that returns a new one:
            it is called for publishing and for subscribing, and its connections are closed here.
        exchange: The name of the exchange for events.
        durable: Whether exchanges that are created here survive a restart of the broker, and
            durable queues of other consumers store events. Existing exchanges are used as they
            are.
        heartbeat_seconds: How often the queue is checked; without an answer within the same time
            the connection counts as lost.
    """

    client: AbstractConnection | Connector
    exchange: str = field(default="upload-progress", kw_only=True)
    durable: bool = field(default=False, kw_only=True)
    _channels: "LoopBound[_PublishingChannel] | BorrowedClient[_PublishingChannel]" = field(
        default=Factory(lambda self: self._make_channels(), takes_self=True), init=False
    )

    def _make_channels(
        self,
    ) -> "LoopBound[_PublishingChannel] | BorrowedClient[_PublishingChannel]":
        def make() -> _PublishingChannel:
            return _PublishingChannel(self.client, self.exchange, is_durable=self.durable)

        if callable(self.client):
            return LoopBound(make, _PublishingChannel.close)
        return BorrowedClient("client", make(), _PublishingChannel.close)

    @property
    def keeps_events(self) -> bool:
        """True: the broker may keep events for consumers that are not connected."""
        return True

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
            url: ``amqp://…`` or ``amqps://…``, as aio-pika accepts it.
            exchange: See the class.
            durable: See the class.
            heartbeat_seconds: See the class.

        Raises:
            InvalidValue: The URL is not a valid RabbitMQ URL.
        """
        try:
            parts = urlsplit(url)
            is_valid = parts.scheme in {"amqp", "amqps"} and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise InvalidValue("url", "is not a valid RabbitMQ URL: amqp://HOST:PORT/VHOST")
        connector = partial(
            connect, url, heartbeat=AMQP_HEARTBEAT_SECONDS, connection_class=_OwnedConnection
        )
        return cls(
            connector, exchange=exchange, durable=durable, heartbeat_seconds=heartbeat_seconds
        )

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, and wait until the broker has confirmed all of them."""
        if events:
            with _explained(self.exchange):
                await self._publish(events)

    async def _publish(self, events: Sequence[CloudEvent]) -> None:
        exchange = (await self._open_exchanges()).events
        mode = DeliveryMode.PERSISTENT if self.durable else DeliveryMode.NOT_PERSISTENT
        await asyncio.gather(
            *(
                exchange.publish(
                    _message(event, mode),
                    _routing_key(Channel.of_owner(event.owner), key_of(event.subject)),
                    mandatory=False,
                )
                for event in events
            )
        )

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*.

        Raises:
            InvalidValue: It is larger than 4 KiB.
        """
        body = Message(check_message_size(message))
        with _explained(self.exchange):
            exchange = (await self._open_exchanges()).messages
            await exchange.publish(body, _routing_key(Channel.of_worker(worker)), mandatory=False)

    async def _open_exchanges(self) -> _Exchanges:
        """Return the exchanges on an open channel for publishing."""
        return await (await self._channels.get()).exchanges()

    async def _close(self) -> None:
        await self._channels.aclose()

    async def _connect(self) -> "RabbitConnection":
        connection = await self.client() if callable(self.client) else self.client
        owned = connection if callable(self.client) else None
        try:
            with _explained(self.exchange):
                return await self._consume(connection, owned)
        except BaseException:
            if owned is not None:
                await owned.close()
            raise

    async def _consume(
        self, connection: AbstractConnection, owned: AbstractConnection | None
    ) -> "RabbitConnection":
        channel = await connection.channel(publisher_confirms=False)
        exchanges = await _Exchanges.open(connection, channel, self.exchange, durable=self.durable)
        queue = await channel.declare_queue(
            f"{self.exchange}.{token_urlsafe(_QUEUE_NAME_BYTES)}",
            exclusive=True,
            auto_delete=True,
            arguments=_QUEUE_ARGUMENTS,
        )
        consumer = RabbitConnection(
            channel, exchanges, queue, owned, self._table, self.heartbeat_seconds
        )
        await consumer.start()
        return consumer


@define(eq=False, repr=False)
class _PublishingChannel:
    """The channel on which one event loop publishes, opened when it is first used.

    Args:
        client: The connection, or a function that returns a new one.
        exchange: The name of the exchange for events.
        is_durable: Whether exchanges that are created here survive a restart of the broker.
    """

    _client: AbstractConnection | Connector
    _exchange: str
    _is_durable: bool = field(kw_only=True)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)
    _connection: AbstractConnection | None = field(default=None, init=False)
    _channel: AbstractChannel | None = field(default=None, init=False)
    _exchanges: _Exchanges | None = field(default=None, init=False)

    async def exchanges(self) -> _Exchanges:
        """Return the exchanges on an open channel."""
        async with self._lock:
            if self._exchanges is None or self._channel is None or self._channel.is_closed:
                await self.close()
                if callable(self._client):
                    connection = self._connection = await self._client()
                else:
                    connection = self._client
                channel = self._channel = await connection.channel()
                self._exchanges = await _Exchanges.open(
                    connection, channel, self._exchange, durable=self._is_durable
                )
            return self._exchanges

    async def close(self) -> None:
        """Close the channel, and the connection if it was made here."""
        connection, channel = self._connection, self._channel
        self._connection = self._channel = self._exchanges = None
        if channel is not None and not channel.is_closed:
            await channel.close()
        if connection is not None:
            await connection.close()


class _OwnedConnection(Connection):
    """A connection that this module closes, also after a failed attempt to connect.

    aio-pika closes it again as garbage is collected. A connection that was never made does not
    count as closed, and without a running event loop that attempt ends with a warning.
    """

    def __del__(self) -> None:
        """Do nothing."""

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # overrides
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
class RabbitConnection:
    """The channel and the queue that receive."""

    _channel: AbstractChannel
    _exchanges: _Exchanges
    _queue: AbstractQueue
    _owned: AbstractConnection | None
    _table: SubscriptionTable
    _heartbeat_seconds: float
    _closed: anyio.Event = field(factory=anyio.Event, init=False)

    async def start(self) -> None:
        """Begin to consume."""
        self._channel.close_callbacks.add(self._on_close)
        await self._queue.consume(self._handle, no_ack=True)

    def _on_close(self, *_: object) -> None:
        self._closed.set()

    async def receive(self) -> None:
        """Wait until the connection is lost, and raise. What arrives is handled by a callback."""
        while True:
            with anyio.move_on_after(self._heartbeat_seconds):
                await self._closed.wait()
                raise ConnectionResetError
            with anyio.fail_after(self._heartbeat_seconds):
                # Also fails if the queue was deleted.
                await self._channel.declare_queue(self._queue.name, passive=True)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        key = message.routing_key or ""
        if message.exchange == self._exchanges.messages.name:
            self._table.deliver_message(message.body, Channel("messages", key))
            return
        owner = Channel("events", key.split(".")[1])
        self._table.deliver_encoded_event(
            lambda: decode_binary(_attributes(message.headers), message.body),
            owner,
            ALL_OWNERS_CHANNEL,
        )

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Receive from *channels*, too; return when RabbitMQ has confirmed it."""
        amqp_channel = await self._channel.get_underlay_channel()
        *first, last = (
            (self._queue.name, self._exchanges.of(channel).name, _routing_key(channel))
            for channel in channels
        )
        for binding in first:
            await amqp_channel.queue_bind(*binding, nowait=True)
        # A broker works in order: its confirmation of the last binding is that of all.
        with _explained(self._exchanges.events.name):
            await amqp_channel.queue_bind(*last)

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Receive nothing more from *channels*."""
        for channel in channels:
            await self._queue.unbind(self._exchanges.of(channel), _routing_key(channel))

    async def close(self) -> None:
        """Close the channel, and the connection if it is ours."""
        await self._channel.close()
        if self._owned is not None:
            await self._owned.close()
