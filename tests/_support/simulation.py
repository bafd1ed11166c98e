"""A tracker with a fake clock: hours pass in milliseconds.

Nothing sleeps: `Simulation.run` runs the work of the tracker's background tasks when it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress import (
    Limits,
    MemoryStore,
    ProgressTracker,
    Retention,
    UploadProgress,
    UploadState,
)
from upload_progress._fanout.subscription import Subscription
from upload_progress._internals import TrackerInternals, internals_of
from upload_progress._model.models import ErrorCode, TransferRecord
from upload_progress._model.state import is_final
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.identity import Identity
from upload_progress.testing import FakeClock, FaultyPublisher, FaultyStore
from upload_progress.throttling import DEFAULT_POLICY, ThrottlePolicy

ANN = Identity("ann")
STEP_SECONDS = 0.1


@define(eq=False, repr=False)
class Simulation:
    """A tracker with a fake clock, and a store and a publisher that can be made to fail."""

    policy: ThrottlePolicy = DEFAULT_POLICY
    watched_interval_seconds: float = 0.25
    store_records_per_second: float = 2000.0
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
            watched_interval_seconds=self.watched_interval_seconds,
            store_records_per_second=self.store_records_per_second,
            limits=self.limits,
            clock=self.clock,
        )

    @property
    def internals(self) -> TrackerInternals:
        """The parts of the tracker."""
        return internals_of(self.tracker)

    def begin(self, upload_id: str | None = None, total: int | None = None) -> LiveUpload:
        """Admit and begin an upload of the owner Ann."""
        admission = self.internals.admission
        live = admission.open(requested_id=upload_id, total_bytes=total)
        assert admission.admit(live, ANN)
        live.begin()
        return live

    def add(self, live: LiveUpload, size: int) -> None:
        """Count received bytes, as the middleware does."""
        if live.meter.add(size):
            live.check_due(live.opened_by)

    async def run(self, seconds: float = STEP_SECONDS) -> None:
        """Advance the clock in steps of a tenth of a second, with the background work of each."""
        for _ in range(max(1, round(seconds / STEP_SECONDS))):
            self.clock.advance(STEP_SECONDS)
            self._steps += 1
            await self.internals.background.ticker.tick()
            await self.internals.flusher.flush()
            if self._steps % 10 == 0:
                await self.internals.reaper.run_once()

    def subscription(self, *upload_ids: str) -> Subscription:
        """Subscribe to these uploads of Ann, or to all of hers."""
        subscription = self.internals.subscribe()
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
        registry, hub = self.internals.registry, self.internals.hub
        flusher = self.internals.flusher
        return flusher.is_idle and not (
            len(registry)
            or registry._owners
            or registry._open
            or flusher._ended
            or len(flusher.timers._wheel)
            or len(hub)
            or hub.owners()
            or self.memory._running
        )


ENDINGS = {
    "completed": (UploadState.COMPLETED, None),
    "rejected": (UploadState.FAILED, ErrorCode.REJECTED),
    "failed": (UploadState.FAILED, ErrorCode.REJECTED),
    "raised": (UploadState.FAILED, ErrorCode.APP_ERROR),
    "aborted": (UploadState.CANCELLED, ErrorCode.APP_ERROR),
    "disconnected": (UploadState.FAILED, ErrorCode.CLIENT_DISCONNECTED),
    "cancelled": (UploadState.CANCELLED, ErrorCode.CANCELLED_BY_OWNER),
    "cancelled-while-processing": (UploadState.CANCELLED, ErrorCode.CANCELLED_BY_OWNER),
}
"""The ways in which an upload ends, with its final state and error."""


def end_upload(live: LiveUpload, ending: str) -> None:
    """End an upload in one of the ways of `ENDINGS`."""
    if ending in {"completed", "rejected", "failed", "cancelled-while-processing"}:
        live.end_body()
    if ending == "failed":
        live.mark_failed("virus")
    if ending in {"completed", "failed"}:
        outcomes.finish(live, 200)
    elif ending == "rejected":
        outcomes.finish(live, 413)
    elif ending == "raised":
        outcomes.app_raised(live)
    elif ending == "aborted":
        outcomes.app_cancelled(live)
    elif ending == "disconnected":
        outcomes.client_disconnected(live)
    else:
        live.cancel()


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


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until *condition* holds."""
    with deadline():
        while not condition():
            await checkpoint()


async def collect_snapshots(
    tracker: ProgressTracker, snapshots: list[UploadProgress], upload_id: str
) -> None:
    """Append all snapshots of an upload of Ann to *snapshots*, as they come."""
    async for snapshot in tracker.watch(upload_id, owner="ann"):
        snapshots.append(snapshot)  # noqa: PERF401  # the list is read meanwhile
