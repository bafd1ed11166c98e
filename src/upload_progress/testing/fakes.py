"""Fakes for tests: a clock that is set by hand, and stores and publishers that record or fail."""

from collections.abc import Sequence
from typing import Literal

import anyio
from attrs import define, field

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.interfaces import ListsOpenUploads, RecordPage, SessionStore

__all__ = ["FakeClock", "Fault", "FaultyPublisher", "FaultyStore", "RecordingPublisher"]

Fault = Literal["raise", "hang"]
"""``"raise"``: each call raises ``OSError``. ``"hang"``: each call waits until it is cancelled."""


@define
class FakeClock:
    """A ``Clock`` that moves only when ``advance`` is called.

    >>> clock = FakeClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    1002.5

    Attributes:
        monotonic_seconds: The value of ``monotonic()``.
        epoch_seconds: The value of ``time()``.
    """

    monotonic_seconds: float = 1000.0
    epoch_seconds: float = 1_800_000_000.0

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return self.monotonic_seconds

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return self.epoch_seconds

    def step_wall_clock(self, seconds: float) -> None:
        """Move only the seconds since the epoch, as if the clock of the machine was set."""
        self.epoch_seconds += seconds

    def advance(self, seconds: float) -> None:
        """Move both times forward by *seconds*."""
        self.monotonic_seconds += seconds
        self.epoch_seconds += seconds


@define(eq=False, repr=False)
class RecordingPublisher:
    """An ``EventPublisher`` that keeps the events it is given.

    In a test::

        publisher = RecordingPublisher()
        tracker = ProgressTracker(publisher=publisher)
        async with tracker.lifespan(), tracker.track(owner="alice") as upload:
            upload.advance(3)
        assert publisher.events[-1].data.state is UploadState.COMPLETED

    Attributes:
        events: All events, oldest first.
        batches: Number of events in each call of ``publish``.
    """

    events: list[CloudEvent] = field(factory=list, init=False)
    batches: list[int] = field(factory=list, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Keep *events*."""
        self.events += events
        self.batches.append(len(events))


async def _apply(fault: Fault | None) -> None:
    if fault == "raise":
        raise OSError("injected fault")  # nothing else raises it
    if fault == "hang":
        await anyio.sleep_forever()


@define(eq=False, repr=False)
class FaultyPublisher(RecordingPublisher):
    """A ``RecordingPublisher`` that fails while ``fault`` is set.

    In a test::

        publisher = FaultyPublisher("hang")
        ...  # uploads go on
        publisher.fault = None

    Args:
        fault: How calls fail; None lets them succeed.
    """

    fault: Fault | None = None

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Keep *events*, or fail."""
        await _apply(self.fault)
        await super().publish(events)


@define(eq=False, repr=False, slots=False)
class FaultyStore:
    """A ``SessionStore`` that counts calls, and fails while ``fault`` is set.

    In a test::

        store = FaultyStore(MemoryStore(), fault="raise")
        tracker = ProgressTracker(store=store)
        ...  # uploads go on
        store.fault = None

    Args:
        inner: The store that is called.
        fault: How calls fail; None lets them succeed.

    Attributes:
        calls: Number of calls, including those that failed.
        saved: The records of each successful call of ``save``.
    """

    inner: SessionStore
    fault: Fault | None = None
    calls: int = field(default=0, init=False)
    saved: list[Sequence[TransferRecord]] = field(factory=list, init=False)

    async def _count_call(self) -> None:
        self.calls += 1
        await _apply(self.fault)

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*, or fail."""
        await self._count_call()
        refused = await self.inner.save(records)
        self.saved.append(records)
        return refused

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, or fail."""
        await self._count_call()
        return await self.inner.announce(record, limit=limit)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Load the uploads *keys*, or fail."""
        await self._count_call()
        return await self.inner.load(*keys)

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """List the uploads of *owner*, or fail."""
        await self._count_call()
        return await self.inner.list(
            owner,
            group=group,
            ended_within_seconds=ended_within_seconds,
            cursor=cursor,
            limit=limit,
        )

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """List open uploads, or fail; the inner store can do it."""
        await self._count_call()
        inner: object = self.inner
        assert isinstance(inner, ListsOpenUploads)  # else it has no such method
        return await inner.list_open(cursor=cursor, limit=limit)

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker*, or fail."""
        await self._count_call()
        await self.inner.renew(worker, seconds=seconds)

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return the records that *worker* receives, or fail."""
        await self._count_call()
        return await self.inner.running(worker, limit=limit)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return overdue records, or fail."""
        await self._count_call()
        return await self.inner.overdue(limit=limit)
