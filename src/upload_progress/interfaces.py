"""The interfaces between the core and its environment: store, publisher, clock, authentication."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Protocol, runtime_checkable

from attrs import frozen

from upload_progress._model.api_types import EdgeAccess
from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.connection import Connection
from upload_progress.identity import Identity

__all__ = [
    "ALL_OWNERS",
    "Authenticate",
    "Clock",
    "ConnectionLost",
    "EventPublisher",
    "EventStream",
    "EventSubscriber",
    "EventsMissed",
    "HasParts",
    "HoldsStreams",
    "IssuesTokens",
    "KeepsEvents",
    "ListsOpenUploads",
    "MessageTransport",
    "RecordPage",
    "SessionStore",
    "SystemClock",
]

Authenticate = Callable[[Connection], Identity | str | Awaitable[Identity | str | None] | None]
"""Returns the user of a request: an identity, or a name, the ``id`` of one; None if there is none.
It may be a coroutine function, and must not block."""


@runtime_checkable
class Clock(Protocol):
    """The current time, in seconds."""

    def monotonic(self) -> float:
        """Return a time that never goes back, for intervals."""

    def time(self) -> float:
        """Return seconds since the epoch, for timestamps."""


@frozen
class SystemClock:
    """The system clocks."""

    monotonic: ClassVar["staticmethod[[], float]"] = staticmethod(time.monotonic)
    time: ClassVar["staticmethod[[], float]"] = staticmethod(time.time)


@frozen
class RecordPage:
    """A page of uploads from a store.

    Attributes:
        uploads: The records of each upload, newest upload first.
        next: The cursor of the next page; None on the last page.
        cursors: For each upload, the cursor of the page that begins after it.
    """

    uploads: tuple[tuple[TransferRecord, ...], ...]
    next: str | None = None
    cursors: tuple[str, ...] = ()


@runtime_checkable
class SessionStore(Protocol):
    """Stores transfer records until they expire.

    A store may raise any exception of its driver. The core treats an exception, and a call that
    takes more than a second, as *not available*. ``StoreContract`` in ``upload_progress.testing``
    tests what each method must do.
    """

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Store *records* in one round trip; a version that is not newer changes nothing.

        Of two versions of a record the one with the higher ``(attempt, sequence)`` stays, in
        whichever order they are saved. A record of a newer attempt replaces all records of older
        attempts.

        Returns:
            The records that changed nothing, because the store has the same version, or a newer
            one: another worker may have ended the upload.
        """

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Store a new pending upload, unless its owner has *limit* of them; return whether it did.

        An upload is pending until a request carries it, and until it ends. Calls at the same time,
        also of several workers, never store more than *limit*.

        Args:
            record: The only record of the upload.
            limit: How many pending uploads the owner may have, with this one.
        """

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of these uploads, in one round trip; an unknown key adds nothing."""

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the uploads of *owner*, those that were created last first.

        Args:
            owner: The owner of the uploads.
            group: Return only uploads of this group.
            ended_within_seconds: Omit uploads whose end was saved longer ago, by the clock of the
                store.
            cursor: ``next`` of a page, or one of its ``cursors``: the position of an upload, which
                may have been deleted since. Text that is no cursor starts with the first page.
            limit: The maximum number of uploads.
        """

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Extend the lease of *worker*: its open records are alive for *seconds* from now.

        After a pause, in which no worker has renewed its lease for a third of *seconds*, the
        lease of every worker lasts for at least *seconds* from now.
        """

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives by its records."""

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* open records whose lease has run out, or that waited too long.

        A lease runs out only while leases can be renewed: if no worker renews its lease, none has
        run out. The clock of the store decides.
        """


@runtime_checkable
class ListsOpenUploads(Protocol):
    """A session store that operators can look into: all stores of this library are.

    Without it, ``?owner=*`` is answered with 404.
    """

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return uploads of all owners that have not ended, for operators.

        The order is that of the store, and stays the same: an upload that is open all the time is
        on exactly one page. A page may have fewer uploads although another one follows.

        Args:
            cursor: ``next`` of a page. Text that is no cursor starts with the first page.
            limit: The maximum number of uploads.
        """


@runtime_checkable
class HasParts(Protocol):
    """A session store of several parts, each of which may be away alone: the shards of a cluster.

    All uploads of an owner are in one part. The core calls each part on its own, with a circuit
    breaker for each, so that a part that is away stops only the uploads that are in it. A store
    without these members is one part.
    """

    @property
    def parts(self) -> Sequence[SessionStore]:
        """A store for each part: the same objects in the same order each time."""

    def part_of(self, owner: str) -> int:
        """Return the index in ``parts`` of the one that has the uploads of *owner*."""


@runtime_checkable
class EventPublisher(Protocol):
    """Publishes events to other processes. A lost event is made up for by the next one."""

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip.

        Args:
            events: Events of any owners. No events is no error.
        """


@runtime_checkable
class KeepsEvents(Protocol):
    """A publisher whose broker may keep events for consumers that are not connected.

    The tracker then publishes each end at least once, also if its worker stops before the broker
    has accepted it: the store keeps the end until then.
    """

    @property
    def keeps_events(self) -> bool:
        """Whether the broker keeps events."""


@runtime_checkable
class HoldsStreams(Protocol):
    """The edge of a tracker that is a proxy, and holds event streams in place of this process."""

    @property
    def hold_seconds(self) -> int:
        """How long a stream is held at most, until its client opens another one."""

    def is_proxied(self, connection: Connection) -> bool:
        """Return whether the proxy has passed on a request."""

    def hold(
        self, namespace: str, owner: str, *, upload_id: str | None = None, group: str | None = None
    ) -> Mapping[str, str]:
        """Return the headers of a response with which the proxy holds the stream.

        Args:
            namespace: The system that the owner belongs to.
            owner: The owner of the uploads.
            upload_id: The upload; None for all, or those of a group.
            group: The group.
        """


@runtime_checkable
class IssuesTokens(Protocol):
    """The edge of a tracker that is a push server to which watchers connect with tokens."""

    def channel(
        self, namespace: str, owner: str, *, upload_id: str | None = None, group: str | None = None
    ) -> str:
        """Return the channel of an upload, of a group, or of all uploads of *owner*."""

    def access(self, user: str, channels: Sequence[str], *, seconds: float) -> EdgeAccess | None:
        """Return the tokens with which a client connects; None if the time is too short.

        Args:
            user: The name of the user.
            channels: What the client may read.
            seconds: After that time, the last connection with these tokens has ended.
        """


@frozen
class EventsMissed:
    """Events or messages may have been lost. Read the store for what you follow.

    A stream yields it after a reconnect, after its queue has overflowed, and for an event that was
    too large for the broker.
    """


@frozen
class ConnectionLost:
    """The connection to the broker is lost. ``EventsMissed`` follows after the reconnect."""


ALL_OWNERS: Final = None
"""Subscribes an ``EventStream`` to the events of every owner."""


class EventStream(Protocol):
    """Receives the events of the owners that it is subscribed to, until its context ends.

    Of each upload only the newest event waits to be taken, and the number of uploads is bounded.
    """

    async def subscribe(self, *owners: str | None) -> None:
        """Receive the events of *owners*; return when the broker has confirmed it.

        Everything that is published after the return is received. While there is no connection,
        this waits for one. A subscription survives a reconnect.

        Args:
            owners: Names of owners, or ``ALL_OWNERS``. Subscribing twice has no effect.

        Raises:
            NotEntered: The subscriber was left meanwhile.
        """

    async def unsubscribe(self, *owners: str | None) -> None:
        """Receive no more events of *owners*, nor those that wait to be taken."""

    def __aiter__(self) -> AsyncIterator[CloudEvent | EventsMissed | ConnectionLost]:
        """Return itself."""

    async def __anext__(self) -> CloudEvent | EventsMissed | ConnectionLost:
        """Wait for the next event."""


@runtime_checkable
class EventSubscriber(Protocol):
    """Receives what the publishers of all processes publish.

    ::

        async with subscriber.events() as stream:
            await stream.subscribe("alice")
            async for event in stream:
                if isinstance(event, CloudEvent):
                    print(event.data.percent)
    """

    def events(self) -> AbstractAsyncContextManager[EventStream]:
        """Return a new stream, which is subscribed to no owner yet."""


@runtime_checkable
class MessageTransport(Protocol):
    """Carries small messages between the workers of one system, at most once.

    A message has at most 4 KiB, and is lost if its worker has no open inbox.
    """

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*."""

    def inbox(
        self, worker: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | EventsMissed | ConnectionLost]]:
        """Receive the messages to *worker*, in order, until the context ends.

        Once it is entered, everything that is sent is received. While there is no connection,
        entering waits for one.
        """
