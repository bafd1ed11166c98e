"""Stand-ins for time and trouble."""

from collections.abc import Sequence
from typing import Literal

import anyio
from attrs import define, field

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.interfaces import RecordPage, SessionStore

__all__ = [
    "FakeClock",
    "Fault",
    "FaultyPublisher",
    "FaultyStore",
    "RecordingPublisher",
]

Fault = Literal["raise", "hang"]


@define
class FakeClock:
    """A ``Clock`` that stands still until it is told to go on.

    Attributes:
        monotonic_seconds: What ``monotonic`` says.
        epoch_seconds: What ``time`` says.
    """

    monotonic_seconds: float = 1000.0
    epoch_seconds: float = 1_800_000_000.0

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return self.monotonic_seconds

    def time(self) -> float:
        """Return the wall clock."""
        return self.epoch_seconds

    def advance(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.monotonic_seconds += seconds
        self.epoch_seconds += seconds


@define(eq=False, repr=False)
class RecordingPublisher:
    """An ``EventPublisher`` that keeps what it is given.

    Attributes:
        events: All of it, oldest first.
        batches: How many events came at once, each time.
    """

    events: list[CloudEvent] = field(factory=list, init=False)
    batches: list[int] = field(factory=list, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Keep *events*."""
        self.events += events
        self.batches.append(len(events))


async def _suffer(fault: Fault | None) -> None:
    if fault == "raise":
        raise OSError
    if fault == "hang":
        await anyio.sleep_forever()


@define(eq=False, repr=False)
class FaultyPublisher(RecordingPublisher):
    """A publisher that raises or hangs for as long as ``fault`` says so."""

    fault: Fault | None = None

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Keep *events*, or fail."""
        await _suffer(self.fault)
        await super().publish(events)


@define(eq=False, repr=False, slots=False)
class FaultyStore:
    """A store that counts, and that raises or hangs for as long as ``fault`` says so.

    Attributes:
        inner: Does the work.
        fault: What is wrong with it now.
        calls: How often it was asked, answered or not.
        saved: Every batch that was stored.
    """

    inner: SessionStore
    fault: Fault | None = None
    calls: int = field(default=0, init=False)
    saved: list[Sequence[TransferRecord]] = field(factory=list, init=False)

    async def _ask(self) -> None:
        self.calls += 1
        await _suffer(self.fault)

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Save, or fail."""
        await self._ask()
        await self.inner.save(records)
        self.saved.append(records)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Load, or fail."""
        await self._ask()
        return await self.inner.load(*keys)

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_since: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """List, or fail."""
        await self._ask()
        return await self.inner.list(
            owner, group=group, ended_since=ended_since, cursor=cursor, limit=limit
        )

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew, or fail."""
        await self._ask()
        await self.inner.renew(worker, seconds=seconds)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return what is overdue, or fail."""
        await self._ask()
        return await self.inner.overdue(limit=limit)
