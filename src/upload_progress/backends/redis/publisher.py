"""Events and letters over Redis: publish and subscribe.

Channels, below a prefix: ``upload-progress:events:<owner>``, ``upload-progress:letters:<worker>``,
both names hashed (``key_of``). An event is a CloudEvent in structured JSON. Who wants those of
everybody subscribes to the pattern ``upload-progress:events:*``.

One connection subscribes for the whole process. A half-open one would be silent for ever, so after
a silence it is asked for a sign of life. A client that repairs connections without a word is found
out: what it subscribes again, Redis confirms again, and then something may have been missed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Self

import anyio
from attrs import define, field
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from upload_progress._model.cloudevents import CloudEvent, decode_structured, encode_structured
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.redis.client import open_client, validate_client
from upload_progress.backends.subscriptions import (
    ALL_OWNERS,
    Address,
    SubscriptionTable,
    checked_letter,
)

__all__ = [
    "RedisPublisher",
]


_CONFIRMATIONS: Final = frozenset({"subscribe", "psubscribe"})


def _channel(prefix: str, address: Address) -> bytes:
    return f"{prefix}:{address.kind}:{address.key or '*'}".encode()


@define(eq=False, repr=False)
class RedisPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``Post`` over Redis.

    Args:
        client: A ready client that does not decode responses. It stays open.
        prefix: What the names of all channels begin with.
    """

    client: Redis
    prefix: str = field(default="upload-progress", kw_only=True)
    _is_ours: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuse a client that decodes: what is no UTF-8 would break the line for everybody."""
        validate_client(self.client)
        super().__attrs_post_init__()

    @classmethod
    def open(
        cls, url: str, *, prefix: str = "upload-progress", heartbeat_seconds: float = 4.0
    ) -> Self:
        """Return one with a client of its own, which it closes.

        Args:
            url: ``redis://…``, ``rediss://…`` or ``unix://…``, as redis-py takes it.
            prefix: As above.
            heartbeat_seconds: As above.

        Raises:
            InvalidValue: The URL is none of these.
        """
        publisher = cls(open_client(url), prefix=prefix, heartbeat_seconds=heartbeat_seconds)
        publisher._is_ours = True
        return publisher

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip."""
        async with self.client.pipeline(transaction=False) as batch:
            for event in events:
                channel = _channel(self.prefix, Address.of_owner(event.owner))
                batch.publish(channel, encode_structured(event))
            await batch.execute()

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        channel = _channel(self.prefix, Address.of_worker(worker))
        await self.client.publish(channel, checked_letter(letter))

    async def _dial(self) -> "_Line":
        subscriptions = self.client.pubsub()
        await subscriptions.connect()  # type: ignore[no-untyped-call]  # redis-py's gap
        return _Line(subscriptions, self._board, self.prefix, self.heartbeat_seconds)

    async def _close(self) -> None:
        if self._is_ours:
            await self.client.aclose()


@define(eq=False, repr=False)
class _Line:
    """The connection that subscribes."""

    _subscriptions: PubSub
    _board: SubscriptionTable
    _prefix: str
    _heartbeat_seconds: float
    _addresses: dict[bytes, Address] = field(factory=dict, init=False)
    _confirmations: dict[bytes, anyio.Event] = field(factory=dict, init=False)
    _is_silent: bool = field(default=False, init=False)

    async def hear(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._question)
            while True:
                message = await self._subscriptions.get_message(timeout=None)
                self._is_silent = False
                self._take(message)

    async def _question(self) -> None:
        """Ask for a sign of life after each silence, and raise if none comes."""
        while True:
            self._is_silent = True
            await anyio.sleep(self._heartbeat_seconds)
            if self._is_silent:
                with anyio.fail_after(self._heartbeat_seconds):
                    await self._subscriptions.ping()
                await anyio.sleep(self._heartbeat_seconds)
                if self._is_silent:
                    raise TimeoutError

    def _take(self, message: Mapping[str, object] | None) -> None:
        if message is None:
            # An answer to a question of the client's own.
            return
        # A pattern, when a message came by one, is what was subscribed to.
        channel, data = message["pattern"] or message["channel"], message["data"]
        if not isinstance(channel, bytes):
            return
        if message["type"] in _CONFIRMATIONS:
            self._confirm(channel)
        elif isinstance(data, bytes) and channel in self._addresses:
            self._bring(self._addresses[channel], data)

    def _confirm(self, channel: bytes) -> None:
        confirmation = self._confirmations.get(channel)
        if confirmation is not None:
            if confirmation.is_set():
                raise ConnectionResetError
            confirmation.set()

    def _bring(self, address: Address, data: bytes) -> None:
        if address.kind == "letters":
            self._board.bring_letter(data, address)
        else:
            self._board.bring_event(lambda: decode_structured(data), address)

    async def subscribe(self, addresses: Collection[Address]) -> None:
        named = {_channel(self._prefix, address): address for address in addresses}
        awaited = {name: anyio.Event() for name in named}
        self._addresses |= named
        self._confirmations |= awaited
        if channels := [name for name, address in named.items() if address != ALL_OWNERS]:
            await self._subscriptions.subscribe(*channels)
        if ALL_OWNERS in addresses:
            await self._subscriptions.psubscribe(_channel(self._prefix, ALL_OWNERS))
        for confirmation in awaited.values():
            await confirmation.wait()

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        for address in addresses:
            del self._confirmations[_channel(self._prefix, address)]
        channels = [_channel(self._prefix, each) for each in addresses if each != ALL_OWNERS]
        if channels:
            await self._subscriptions.unsubscribe(*channels)
        if ALL_OWNERS in addresses:
            await self._subscriptions.punsubscribe(_channel(self._prefix, ALL_OWNERS))

    async def close(self) -> None:
        await self._subscriptions.aclose()  # type: ignore[no-untyped-call]  # redis-py's gap
