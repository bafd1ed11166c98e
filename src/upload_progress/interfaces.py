"""What the core asks of the world: a store, a publisher, a feed, a post, a clock, who is asking."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from attrs import frozen

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.connection import Connection
from upload_progress.identity import Identity

__all__ = [
    "Authenticate",
    "Clock",
    "EventSubscriber",
    "EventPublisher",
    "EventsMissed",
    "OnConnectionLost",
    "MessageTransport",
    "RecordPage",
    "ReportsConnectionLoss",
    "SessionStore",
    "SystemClock",
]

Authenticate = Callable[[Connection], Identity | Awaitable[Identity | None] | None]
"""Says who is asking; None for nobody. May be plain or async, and must not block."""


@runtime_checkable
class Clock(Protocol):
    """Tells the time, in seconds."""

    def monotonic(self) -> float:
        """Never goes back: for intervals."""

    def time(self) -> float:
        """Seconds since the epoch: for what people and other machines see."""


@frozen
class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic()

    def time(self) -> float:
        """Return the wall clock."""
        return time.time()


@frozen
class RecordPage:
    """One page of a store's list: the records of each upload, and where to go on."""

    uploads: tuple[tuple[TransferRecord, ...], ...]
    next: str | None = None


@runtime_checkable
class SessionStore(Protocol):
    """Keeps records until their time is over.

    A store raises whatever its driver raises; the core treats any exception, and any
    answer that takes too long, as *not available now*. ``StoreContract`` in
    ``upload_progress.testing`` holds what each method promises.
    """

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Keep *records* in one round trip; one that was overtaken changes nothing.

        Of two versions of a record the higher ``(attempt, sequence)`` stays, whichever
        comes last. A record of a newer attempt drops those of older attempts.
        """

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of those uploads, in one round trip; unknown ones add nothing."""

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_since: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the uploads of *owner*, newest first.

        Args:
            owner: Whose.
            group: Only those whose records carry this group.
            ended_since: Leave out what had ended before, in seconds since the epoch.
            cursor: ``next`` of the page before; an unknown one starts anew.
            limit: How many uploads at most.
        """

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Prolong the lease of *worker*: its open records are alive for that long."""

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* open records whose lease ran out, or that waited too long."""


@runtime_checkable
class EventPublisher(Protocol):
    """Tells other systems. Fire and forget: what is lost is healed by the next event."""

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip."""


@frozen
class EventsMissed:
    """Something may have been missed: the line was down, and is up again. Read the store."""


@runtime_checkable
class EventSubscriber(Protocol):
    """Hears what publishers of other processes tell."""

    def listen(
        self, owner: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[CloudEvent | EventsMissed]]:
        """Follow the events of *owner*, or of everybody, from now on.

        Entered, it hears: what is published afterwards comes. A line that breaks is mended
        without a word, but for a ``EventsMissed`` once it is up again.
        """


@runtime_checkable
class MessageTransport(Protocol):
    """Carries letters between the workers of one system: commands, and answers to them.

    A letter is small (below 4 KiB), and is lost when its worker is not there.
    """

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*."""

    def letters(
        self, worker: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | EventsMissed]]:
        """Empty the box of *worker*, from now on; see ``EventSubscriber.listen`` for ``EventsMissed``."""


OnConnectionLost = Callable[[BaseException], None]
"""Told that a line broke, and why."""


@runtime_checkable
class ReportsConnectionLoss(Protocol):
    """A backend that mends its own line, and says so to who has it rather than to the log."""

    on_connection_lost: OnConnectionLost | None
