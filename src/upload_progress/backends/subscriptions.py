"""Who listens to what, in this process: one line to a broker serves them all.

Each listener holds one slot per upload: one that is slow gets the newest event of each, and the
memory it costs is bounded by the number of uploads it is behind on, up to a limit. What does not
fit is said: ``EventsMissed`` comes instead.

Nothing here does any I/O.
"""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from itertools import count
from typing import Final, Generic, Literal, TypeVar

import anyio
from attrs import define, field, frozen

from upload_progress._model.cloudevents import CloudEvent, EventStub
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventsMissed

__all__ = [
    "ALL_OWNERS",
    "MAX_LETTERS",
    "MAX_LETTER_BYTES",
    "MAX_WAITING",
    "Address",
    "ConflatingQueue",
    "Decode",
    "EventQueue",
    "Inbox",
    "SubscriptionTable",
    "checked_letter",
    "key_of",
]

T = TypeVar("T")

MAX_WAITING: Final = 10_000
MAX_LETTERS: Final = 1_000
MAX_LETTER_BYTES: Final = 4_096

_HASH_BYTES: Final = 16


@lru_cache(maxsize=4096)
@lru_cache(maxsize=4096)
def key_of(name: str) -> str:
    """Return what an owner or worker is called at a broker: 22 characters of base64url.

    The name itself may hold a broker's wildcards or separators, or be too long for it.
    """
    digest = sha256(name.encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:_HASH_BYTES]).rstrip(b"=").decode()


@frozen
class Address:
    """Where something is sent to: who may hear of an owner's uploads, or a worker's box."""

    kind: Literal["events", "letters"]
    key: str

    @classmethod
    def of_owner(cls, owner: str | None) -> "Address":
        """Return the address of the events of *owner*; None is everybody."""
        return ALL_OWNERS if owner is None else cls("events", key_of(owner))

    @classmethod
    def of_worker(cls, worker: str) -> "Address":
        """Return the address of the letters to *worker*."""
        return cls("letters", key_of(worker))


ALL_OWNERS: Final = Address("events", "")


def checked_letter(letter: bytes) -> bytes:
    """Return *letter*.

    Raises:
        InvalidValue: It is larger than every broker takes.
    """
    if len(letter) > MAX_LETTER_BYTES:
        raise InvalidValue("letter", f"has {len(letter)} bytes; {MAX_LETTER_BYTES} are allowed")
    return letter


@define(eq=False, repr=False)
class ConflatingQueue(AsyncIterator[T | EventsMissed], Generic[T]):
    """What waits to be taken by one task, up to *most*."""

    most: int
    _waiting: dict[Hashable, T] = field(factory=dict, init=False)
    _has_missed: bool = field(default=False, init=False)
    _woken: anyio.Event = field(factory=anyio.Event, init=False)

    def put(self, slot: Hashable, item: T) -> None:
        """Let *item* wait in *slot*, instead of what waited there."""
        self._waiting[slot] = item
        if len(self._waiting) > self.most:
            del self._waiting[next(iter(self._waiting))]
            self._has_missed = True
        self._woken.set()

    def miss(self) -> None:
        """Say that something may have been missed."""
        self._has_missed = True
        self._woken.set()

    async def __anext__(self) -> T | EventsMissed:
        while not (self._has_missed or self._waiting):
            self._woken = anyio.Event()
            await self._woken.wait()
        if self._has_missed:
            self._has_missed = False
            return EventsMissed()
        return self._waiting.pop(next(iter(self._waiting)))


@define(eq=False, repr=False)
class EventQueue(ConflatingQueue[CloudEvent]):
    """Follows the events of an owner, or of everybody: the newest of each upload."""

    most: int = field(default=MAX_WAITING, init=False)
    owner: str | None

    def offer(self, event: CloudEvent | EventStub) -> None:
        """Keep *event*, if it is of the right owner and no older than what waits."""
        if self.owner is not None and event.owner != self.owner:
            return
        if isinstance(event, EventStub):
            self.miss()
            return
        topic = event.owner, event.subject
        known = self._waiting.get(topic)
        if known is None or known.data.sequence <= event.data.sequence:
            self.put(topic, event)


@define(eq=False, repr=False)
class Inbox(ConflatingQueue[bytes]):
    """Holds the letters to a worker, oldest first."""

    most: int = field(default=MAX_LETTERS, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)

    def offer(self, letter: bytes) -> None:
        """Keep *letter*."""
        self.put(next(self._numbers), letter)


Decode = Callable[[], CloudEvent | EventStub]

P = TypeVar("P", EventQueue, Inbox)


@define(eq=False, repr=False)
class SubscriptionTable:
    """Hands what comes in to those who listen.

    Attributes:
        on_change: Called when an address is listened to by the first, or no more by the last.
        events: How many came that somebody listens to.
        letters: How many came that somebody waits for.
        unreadable: How many of the events were none, and were passed over.
        forged: How many came on the channel of an owner who is not theirs.
    """

    on_change: Callable[[], None] = field(default=lambda: None)
    events: int = field(default=0, init=False)
    letters: int = field(default=0, init=False)
    unreadable: int = field(default=0, init=False)
    forged: int = field(default=0, init=False)
    _listeners: dict[Address, dict[EventQueue, None]] = field(factory=dict, init=False)
    _boxes: dict[Address, dict[Inbox, None]] = field(factory=dict, init=False)

    @property
    def addresses(self) -> set[Address]:
        """All that somebody listens to."""
        return self._listeners.keys() | self._boxes.keys()

    def bring_event(
        self, decode: Callable[[], CloudEvent | EventStub], *addresses: Address
    ) -> None:
        """Decode what came for *addresses* and hand it on; if nobody listens, pass it over."""
        if not any(address in self._listeners for address in addresses):
            return
        try:
            event = decode()
        except InvalidValue:
            self.unreadable += 1
            return
        if not {address.key for address in addresses} <= {key_of(event.owner), ALL_OWNERS.key}:
            self.forged += 1
            return
        self.deliver(event, *addresses)

    def deliver(self, event: CloudEvent | EventStub, *addresses: Address) -> None:
        """Hand *event* to those who listen to one of *addresses*."""
        self.events += 1
        for address in addresses:
            for listener in self._listeners.get(address, ()):
                listener.offer(event)

    def bring_letter(self, letter: bytes, address: Address) -> None:
        """Put *letter* into the boxes at *address*."""
        boxes = self._boxes.get(address, ())
        self.letters += bool(boxes)
        for box in boxes:
            box.offer(letter)

    def miss(self) -> None:
        """Tell everybody that they may have missed something."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.miss()
        for boxes in self._boxes.values():
            for box in boxes:
                box.miss()

    @contextmanager
    def listening(self, owner: str | None) -> Iterator[EventQueue]:
        """Let a new listener follow the events of *owner*, or of everybody, in the block."""
        with self._plugged(self._listeners, Address.of_owner(owner), EventQueue(owner)) as listener:
            yield listener

    @contextmanager
    def emptying(self, worker: str) -> Iterator[Inbox]:
        """Let a new box take the letters to *worker*, in the block."""
        with self._plugged(self._boxes, Address.of_worker(worker), Inbox()) as box:
            yield box

    @contextmanager
    def _plugged(
        self, sockets: dict[Address, dict[P, None]], address: Address, plug: P
    ) -> Iterator[P]:
        is_first = address not in sockets
        sockets.setdefault(address, {})[plug] = None
        if is_first:
            self.on_change()
        try:
            yield plug
        finally:
            del sockets[address][plug]
            if not sockets[address]:
                del sockets[address]
                self.on_change()
