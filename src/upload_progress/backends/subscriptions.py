"""The subscriptions of one process: which stream and which inbox receives from which channel.

One connection to a broker serves all of them. A stream keeps the newest event of each upload: a
slow consumer costs memory for the uploads that it is behind on, up to a limit. Beyond the limit the
oldest are dropped, and the stream yields ``EventsMissed``.

This module does no I/O.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from itertools import count
from typing import Final, Literal, TypeVar

from attrs import define, field, frozen

from upload_progress._model.cloudevents import CloudEvent, EventStub
from upload_progress._model.version import version_of
from upload_progress._runtime.auto_reset_event import AutoResetEvent
from upload_progress._runtime.conflating_queue import ConflatingQueue
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS, ConnectionLost, EventsMissed

__all__ = [
    "ALL_OWNERS_CHANNEL",
    "MAX_MESSAGES",
    "MAX_MESSAGE_BYTES",
    "MAX_WAITING_EVENTS",
    "Channel",
    "Decode",
    "EventQueue",
    "Inbox",
    "Notice",
    "SubscriptionTable",
    "check_message_size",
    "key_of",
]

R = TypeVar("R", bound=Hashable)

MAX_WAITING_EVENTS: Final = 10_000
"""Uploads of which an event waits in one stream."""
MAX_MESSAGES: Final = 1_000
"""Messages that wait in one inbox."""
MAX_MESSAGE_BYTES: Final = 4_096

_HASH_BYTES: Final = 16


@lru_cache(maxsize=4096)
def key_of(name: str) -> str:
    """Return the hash that stands for an owner or worker at a broker: 22 characters of base64url.

    The name itself may contain wildcards or separators of a broker, or be too long for it.
    """
    digest = sha256(name.encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:_HASH_BYTES]).rstrip(b"=").decode()


@frozen
class Channel:
    """The destination of events or messages: an owner, all owners, or the inbox of a worker.

    Attributes:
        kind: Whether it carries events or messages.
        key: The hash of the owner or worker; empty for all owners.
    """

    kind: Literal["events", "messages"]
    key: str

    @classmethod
    def of_owner(cls, owner: str | None) -> "Channel":
        """Return the channel of the events of *owner*, or of ``ALL_OWNERS``."""
        return ALL_OWNERS_CHANNEL if owner is ALL_OWNERS else cls("events", key_of(owner))

    @classmethod
    def of_worker(cls, worker: str) -> "Channel":
        """Return the channel of the messages to *worker*."""
        return cls("messages", key_of(worker))


_ALL_KEY: Final = ""
ALL_OWNERS_CHANNEL: Final = Channel("events", _ALL_KEY)


def check_message_size(message: bytes) -> bytes:
    """Return *message*.

    Raises:
        InvalidValue: It is larger than some brokers allow.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise InvalidValue("message", f"has {len(message)} bytes; {MAX_MESSAGE_BYTES} are allowed")
    return message


Notice = EventsMissed | ConnectionLost
Decode = Callable[[], CloudEvent | EventStub]


@define(eq=False, repr=False)
class EventQueue(ConflatingQueue[tuple[str, str], CloudEvent | Notice]):
    """An ``EventStream`` of events that arrive at a ``SubscriptionTable``."""

    capacity: int = field(default=MAX_WAITING_EVENTS, init=False)
    _table: "SubscriptionTable"
    _owners: set[str | None] = field(factory=set, init=False)

    async def subscribe(self, *owners: str | None) -> None:
        """Receive the events of *owners*."""
        self._owners.update(owners)
        self._table.add_stream(self, map(Channel.of_owner, owners))

    async def unsubscribe(self, *owners: str | None) -> None:
        """Receive no more events of *owners*."""
        self._owners.difference_update(owners)
        self._table.remove_stream(self, map(Channel.of_owner, owners))

    def close(self) -> None:
        """Receive nothing more."""
        self._table.remove_stream(self, map(Channel.of_owner, self._owners))

    def _is_subscribed_to(self, owner: str) -> bool:
        return owner in self._owners or ALL_OWNERS in self._owners

    def offer(self, event: CloudEvent | EventStub) -> None:
        """Keep *event*, if its owner is subscribed and no newer event of the upload waits."""
        if not self._is_subscribed_to(event.owner):
            return
        if isinstance(event, EventStub):
            self.put_urgent(EventsMissed())
            return
        key = (event.owner, event.subject)
        waiting = self.peek(key)
        if isinstance(waiting, CloudEvent) and version_of(waiting.data) > version_of(event.data):
            return
        if not self.put(key, event):
            self.put_urgent(EventsMissed())

    async def __anext__(self) -> CloudEvent | Notice:
        """Wait for the next event or notice."""
        while True:
            item = await super().__anext__()
            if not isinstance(item, CloudEvent) or self._is_subscribed_to(item.owner):
                return item


@define(eq=False, repr=False)
class Inbox(ConflatingQueue[int, bytes | Notice]):
    """Holds the messages to one worker, oldest first."""

    capacity: int = field(default=MAX_MESSAGES, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)

    def offer(self, message: bytes) -> None:
        """Keep *message*."""
        if not self.put(next(self._numbers), message):
            self.put_urgent(EventsMissed())


@define(eq=False, repr=False)
class SubscriptionTable:
    """Delivers what arrives to the streams and inboxes that are subscribed to its channel.

    Attributes:
        events: Events that were delivered to at least one stream.
        messages: Messages that were delivered to at least one inbox.
        unreadable: Events that could not be decoded.
        forged: Events that came over the channel of another owner.
    """

    events: int = field(default=0, init=False)
    messages: int = field(default=0, init=False)
    unreadable: int = field(default=0, init=False)
    forged: int = field(default=0, init=False)
    _streams: dict[Channel, dict[EventQueue, None]] = field(factory=dict, init=False)
    _inboxes: dict[Channel, dict[Inbox, None]] = field(factory=dict, init=False)
    _changed: AutoResetEvent = field(factory=AutoResetEvent, init=False)

    @property
    def channels(self) -> set[Channel]:
        """All channels that a stream or inbox is subscribed to."""
        return self._streams.keys() | self._inboxes.keys()

    async def changed(self) -> None:
        """Return when ``channels`` may have changed since the last return; for one task."""
        await self._changed.wait()

    def add_stream(self, stream: EventQueue, channels: Iterable[Channel]) -> None:
        """Deliver what arrives on *channels* to *stream*, too."""
        for channel in channels:
            self._streams.setdefault(channel, {})[stream] = None
        self._changed.set()

    def remove_stream(self, stream: EventQueue, channels: Iterable[Channel]) -> None:
        """Deliver nothing more of *channels* to *stream*."""
        for channel in channels:
            _remove(self._streams, channel, stream)
        self._changed.set()

    @contextmanager
    def inbox(self, worker: str) -> Iterator[Inbox]:
        """Deliver the messages to *worker* to a new inbox, while the block runs."""
        channel, inbox = Channel.of_worker(worker), Inbox()
        self._inboxes.setdefault(channel, {})[inbox] = None
        self._changed.set()
        try:
            yield inbox
        finally:
            _remove(self._inboxes, channel, inbox)
            self._changed.set()

    def deliver_encoded_event(self, decode: Decode, *channels: Channel) -> None:
        """Decode an event that arrived on *channels*, and deliver it.

        Args:
            decode: Returns the event, or raises ``InvalidValue``. It is not called if no stream is
                subscribed.
            channels: The channel of the owner, ``ALL_OWNERS_CHANNEL``, or both.
        """
        if not any(channel in self._streams for channel in channels):
            return
        try:
            event = decode()
        except InvalidValue:
            self.unreadable += 1
            return
        if not {channel.key for channel in channels} <= {key_of(event.owner), _ALL_KEY}:
            self.forged += 1
            return
        self.deliver_event(event, *channels)

    def deliver_event(self, event: CloudEvent | EventStub, *channels: Channel) -> None:
        """Deliver *event* once to each stream that is subscribed to one of *channels*."""
        self.events += 1
        streams = {stream: None for each in channels for stream in self._streams.get(each, ())}
        for stream in streams:
            stream.offer(event)

    def deliver_message(self, message: bytes, channel: Channel) -> None:
        """Deliver *message* to the inboxes at *channel*."""
        inboxes = self._inboxes.get(channel, ())
        self.messages += bool(inboxes)
        for inbox in inboxes:
            inbox.offer(message)

    def notify(self, notice: Notice) -> None:
        """Let all streams and inboxes yield *notice*."""
        for streams in self._streams.values():
            for stream in streams:
                stream.put_urgent(notice)
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put_urgent(notice)


def _remove(receivers: dict[Channel, dict[R, None]], channel: Channel, receiver: R) -> None:
    remaining = receivers.get(channel, {})
    remaining.pop(receiver, None)
    if not remaining:
        receivers.pop(channel, None)
