"""A tracker with a fake clock: hours pass in milliseconds.

Nothing sleeps: `Simulation.run` runs the work of the tracker's background tasks when it is due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import anyio
from attrs import define, field

from upload_progress import Limits, MemoryStore, ProgressTracker, Retention, UploadProgress
from upload_progress._fanout.subscription import Subscription
from upload_progress._internals import TrackerInternals
from upload_progress._model.models import TransferRecord
from upload_progress._model.state import is_final
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.identity import Identity
from upload_progress.testing import FakeClock, FaultyPublisher, FaultyStore
from upload_progress.throttling import DEFAULT_POLICY, ThrottlePolicy
from upload_progress.tracker import internals_of

ANN = Identity("ann")
STEP_SECONDS = 0.1


@define(eq=False, repr=False)
class Simulation:
    """A tracker with a fake clock, and a store and a publisher that can be made to fail."""

    policy: ThrottlePolicy = DEFAULT_POLICY
    limits: Limits = field(factory=Limits)
    retention: Retention = field(factory=Retention)
    clock: FakeClock = field(factory=FakeClock)
    memory: MemoryStore = field(init=False)
    store: FaultyStore = field(init=False)
    publisher: FaultyPublisher = field(factory=FaultyPublisher)
    tracker: ProgressTracker = field(init=False)
    _steps: int = 0

    def __attrs_post_init__(self) -> None:
        self.memory = MemoryStore(clock=self.clock, retention=self.retention)
        self.store = FaultyStore(self.memory)
        self.tracker = ProgressTracker(
            store=self.store,
            publisher=self.publisher,
            policy=self.policy,
            limits=self.limits,
            clock=self.clock,
        )

    @property
    def parts(self) -> TrackerInternals:
        return internals_of(self.tracker)

    def begin(self, upload_id: str | None = None, total: int | None = None) -> LiveUpload:
        """Admit and begin an upload of the owner Ann."""
        live = internals_of(self.tracker).admission.open(requested_id=upload_id, total_bytes=total)
        assert internals_of(self.tracker).admission.admit(live, ANN)
        live.begin()
        return live

    def add(self, live: LiveUpload, size: int) -> None:
        """Count received bytes, as the middleware does."""
        if live.meter.add(size):
            live.mark_due()

    async def run(self, seconds: float = STEP_SECONDS) -> None:
        """Advance the clock in steps of a tenth of a second, with the background work of each."""
        for _ in range(max(1, round(seconds / STEP_SECONDS))):
            self.clock.advance(STEP_SECONDS)
            self._steps += 1
            await self.parts.background.ticker.tick()
            await self.parts.flusher.flush()
            if self._steps % 10 == 0:
                await self.parts.reaper.run_once()

    def subscription(self, *upload_ids: str) -> Subscription:
        """Subscribe to these uploads of Ann, or to all of hers."""
        subscription = internals_of(self.tracker).subscribe()
        for upload_id in upload_ids:
            subscription.add_upload("ann", upload_id)
        if not upload_ids:
            subscription.add_owner("ann")
        return subscription

    def events(self, upload_id: str) -> list[UploadProgress]:
        """Return the published snapshots of an upload, in order."""
        return [event.data for event in self.publisher.events if event.subject == upload_id]

    def writes(self, upload_id: str) -> list[TransferRecord]:
        """Return the stored records of an upload, in order."""
        return [
            record
            for batch in self.store.saved
            for record in batch
            if record.upload_id == upload_id
        ]

    def is_at_baseline(self) -> bool:
        """Return whether no state of an upload or subscription is left, except in the store."""
        flusher = self.parts.flusher
        return (
            not (
                len(self.parts.registry)
                or self.parts.registry._owners
                or self.parts.registry._open
                or flusher._ended
                or len(self.parts.flusher.timers._wheel)
                or len(internals_of(self.tracker).hub)
                or internals_of(self.tracker).hub.owners()
                or self.memory._running
            )
            and flusher.is_idle
        )


def assert_monotonic(snapshots: Sequence[UploadProgress]) -> None:
    """Check that sequences rise, bytes and percent never fall, and no snapshot follows an end."""
    for before, after in pairwise(snapshots):
        assert after.sequence > before.sequence
        assert after.bytes_transferred >= before.bytes_transferred
        assert not is_final(before.state)
    percents = [snapshot.percent for snapshot in snapshots if snapshot.percent is not None]
    assert percents == sorted(percents)


@contextmanager
def deadline(seconds: float = 10.0) -> Iterator[None]:
    """Fail the test if the block takes longer than *seconds*."""
    with anyio.fail_after(seconds):
        yield
