"""``RedisPublisher``: events and messages over Redis publish/subscribe.

Channels, after a prefix: ``upload-progress:events:<owner>``, ``upload-progress:messages:<worker>``,
both names hashed (``key_of``). An event is a CloudEvent in structured JSON mode. The pattern
``upload-progress:events:*`` matches the events of all owners. The channels of database 1 begin with
``upload-progress.1:``, as Redis delivers what is published to the subscribers of all databases.

In a cluster, one node is used, and another one after an error: each node passes on to all others
what is published.

One connection subscribes for the whole process. A half-open connection would be silent for ever, so
after a silence the server is pinged. A client that reconnects by itself and subscribes again is
detected by Redis's second confirmation: then events may have been missed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, Self

import anyio
from attrs import Factory, define, field
from redis.asyncio.client import PubSub

from upload_progress._model.cloudevents import CloudEvent, decode_structured, encode_structured
from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.redis.client import (
    Client,
    PubSubClient,
    name_in_database,
    open_client,
    pubsub_clients_of,
    validate_client,
)
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    Channel,
    SubscriptionTable,
    check_message_size,
)

__all__ = ["RedisConnection", "RedisPublisher"]

_CONFIRMATIONS: Final = frozenset({"subscribe", "psubscribe"})


def _channel_name(prefix: str, channel: Channel) -> bytes:
    return f"{prefix}:{channel.kind}:{channel.key or '*'}".encode()


@define(eq=False, repr=False)
class RedisPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``MessageTransport`` over Redis.

    ::

        publisher = RedisPublisher.open("redis://localhost:6379/0")
        tracker = ProgressTracker(publisher=publisher)

    Args:
        client: A client of a server or of a cluster that does not decode responses.
        prefix: What the names of all channels begin with, followed by the number of the database
            unless that is 0.
        reopen: Makes a client like *client*, to be closed by the publisher. With it, the publisher
            can be used in several event loops and after a fork: each of them has its own client.
        heartbeat_seconds: After this long without traffic the server is pinged; without an answer
            within the same time the connection counts as lost.

    Raises:
        InvalidValue: The client decodes responses.
    """

    client: Client
    prefix: str = field(default="upload-progress", kw_only=True)
    reopen: Callable[[], Client] | None = field(default=None, kw_only=True)
    _clients: LoopBound[PubSubClient] | BorrowedClient[PubSubClient] = field(
        default=Factory(lambda self: pubsub_clients_of(self.client, self.reopen), takes_self=True),
        init=False,
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a client that decodes: bytes that are no UTF-8 would end the connection."""
        validate_client(self.client)

    @property
    def _full_prefix(self) -> str:
        return name_in_database(self.prefix, self.client)

    @classmethod
    def open(
        cls, url: str, *, prefix: str = "upload-progress", heartbeat_seconds: float = 4.0
    ) -> Self:
        """Return one with a client of its own, which it closes.

        Args:
            url: ``redis://…``, ``valkey://…`` or ``redis+sentinel://…``; see ``open_client``.
            prefix: See the class.
            heartbeat_seconds: See the class.

        Raises:
            InvalidValue: The URL is not a valid Redis URL.
        """
        reopen = partial(open_client, url)
        return cls(reopen(), prefix=prefix, heartbeat_seconds=heartbeat_seconds, reopen=reopen)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip."""
        await self._publish(
            [(Channel.of_owner(event.owner), encode_structured(event)) for event in events]
        )

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*.

        Raises:
            InvalidValue: It is larger than 4 KiB.
        """
        await self._publish([(Channel.of_worker(worker), check_message_size(message))])

    async def _publish(self, messages: Sequence[tuple[Channel, bytes]]) -> None:
        prefix, pubsub = self._full_prefix, await self._clients.get()
        client = await pubsub.get()
        try:
            async with client.pipeline(transaction=False) as batch:
                for channel, message in messages:
                    batch.publish(_channel_name(prefix, channel), message)
                await batch.execute()
        except BaseException:
            # Of a cluster, another node may be available.
            await pubsub.discard()
            raise

    async def _connect(self) -> "RedisConnection":
        client = PubSubClient((await self._clients.get()).client)
        pubsub = (await client.get()).pubsub()
        try:
            await pubsub.connect()  # type: ignore[no-untyped-call]  # redis-py has no annotation here
        except BaseException:
            await client.discard()
            raise
        return RedisConnection(
            pubsub, client, self._table, self._full_prefix, self.heartbeat_seconds
        )

    async def _close(self) -> None:
        await self._clients.aclose()


@define(eq=False, repr=False)
class RedisConnection:
    """The connection that subscribes."""

    _pubsub: PubSub
    _client: PubSubClient
    _table: SubscriptionTable
    _prefix: str
    _heartbeat_seconds: float
    _channels: dict[bytes, Channel] = field(factory=dict, init=False)
    _confirmations: dict[bytes, anyio.Event] = field(factory=dict, init=False)
    _is_silent: bool = field(default=False, init=False)

    async def receive(self) -> None:
        """Deliver what arrives; raise when the connection is lost."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_heartbeats)
            while True:
                message = await self._pubsub.get_message(timeout=None)
                self._is_silent = False
                self._handle(message)

    async def _send_heartbeats(self) -> None:
        """Ping the server after each silence, and raise if no answer comes."""
        while True:
            self._is_silent = True
            await anyio.sleep(self._heartbeat_seconds)
            if self._is_silent:
                with anyio.fail_after(self._heartbeat_seconds):
                    await self._pubsub.ping()
                await anyio.sleep(self._heartbeat_seconds)
                if self._is_silent:
                    raise TimeoutError

    def _handle(self, message: Mapping[str, object] | None) -> None:
        if message is None:
            # The answer to a ping of the client's own.
            return
        # A message that matched a pattern names the pattern, which is what was subscribed to.
        name, data = message["pattern"] or message["channel"], message["data"]
        if not isinstance(name, bytes):
            return
        if message["type"] in _CONFIRMATIONS:
            self._confirm(name)
        elif isinstance(data, bytes) and name in self._channels:
            self._deliver(self._channels[name], data)

    def _confirm(self, name: bytes) -> None:
        confirmation = self._confirmations.get(name)
        if confirmation is not None:
            if confirmation.is_set():
                # The client has reconnected by itself, and subscribed again.
                raise ConnectionResetError
            confirmation.set()

    def _deliver(self, channel: Channel, data: bytes) -> None:
        if channel.kind == "messages":
            self._table.deliver_message(data, channel)
        else:
            self._table.deliver_encoded_event(lambda: decode_structured(data), channel)

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Receive from *channels*, too; return when Redis has confirmed it."""
        named = {_channel_name(self._prefix, channel): channel for channel in channels}
        confirmations = {name: anyio.Event() for name in named}
        self._channels |= named
        self._confirmations |= confirmations
        if names := [name for name, each in named.items() if each != ALL_OWNERS_CHANNEL]:
            await self._pubsub.subscribe(*names)
        if ALL_OWNERS_CHANNEL in channels:
            await self._pubsub.psubscribe(_channel_name(self._prefix, ALL_OWNERS_CHANNEL))
        for confirmation in confirmations.values():
            await confirmation.wait()

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Receive nothing more from *channels*."""
        for channel in channels:
            del self._confirmations[_channel_name(self._prefix, channel)]
        names = [_channel_name(self._prefix, each) for each in channels if each.key]
        if names:
            await self._pubsub.unsubscribe(*names)
        if ALL_OWNERS_CHANNEL in channels:
            await self._pubsub.punsubscribe(_channel_name(self._prefix, ALL_OWNERS_CHANNEL))

    async def close(self) -> None:
        """Disconnect."""
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py has no annotation here
        await self._client.discard()
