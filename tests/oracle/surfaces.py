"""Where uploads are shown: queries and watchers. Each checks what it is shown at once."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from attrs import define, evolve, field

from tests.oracle.ledger import Ledger
from upload_progress import (
    ProgressTracker,
    StoreUnavailable,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.state import is_final
from upload_progress.identity import Identity

__all__ = ["ANN", "Surface", "Trace", "Watcher", "facts_of"]

ANN = Identity("ann")
Trace = Callable[[str], None]


def text_of(snapshot: UploadProgress) -> str:
    """Return what failures say of a snapshot."""
    error = f" {snapshot.error.code}" if snapshot.error else ""
    size = f"{snapshot.bytes_transferred}/{snapshot.total_bytes}"
    version = f"attempt {snapshot.attempt} sequence {snapshot.sequence}"
    return f"{snapshot.upload_id} {snapshot.state}{error} {size}, {version}"


def facts_of(snapshot: UploadProgress) -> tuple[object, ...]:
    """Return what all surfaces show equally when nothing happens."""
    return (
        snapshot.attempt,
        snapshot.sequence,
        snapshot.state,
        snapshot.bytes_transferred,
        snapshot.total_bytes,
        snapshot.filename,
        snapshot.group,
        snapshot.parts,
        snapshot.error,
    )


@define(eq=False)
class Surface:
    """One place where uploads are shown: a query at a worker, or one watcher.

    Attributes:
        name: Its name in failures.
        ledger: What has happened.
        trace: Notes what is shown.
        shown: The newest snapshot of each upload.
        undecided: The uploads whose newest snapshot was shown while two workers did not know of
            each other yet, see ``Ledger.is_undecided``.
    """

    name: str
    ledger: Ledger
    trace: Trace
    shown: dict[str, UploadProgress] = field(factory=dict)
    undecided: set[str] = field(factory=set)

    def show(self, snapshot: UploadProgress) -> None:
        """Check *snapshot* by itself, and against the one before it."""
        upload_id = snapshot.upload_id
        before = self.shown.get(upload_id)
        self.shown[upload_id] = snapshot
        if before is None or text_of(before) != text_of(snapshot):
            self.trace(f"    {self.name}: {text_of(snapshot)}")
        if before is not None:
            assert before.attempt <= snapshot.attempt, f"{self.name}: the attempt fell"
        now = anyio.current_time()
        # What arrives at another worker after the end is not counted, and may be shown until then.
        is_end = is_final(snapshot.state) and self.ledger.has_request_in_progress(now)
        if is_end or self.ledger.is_undecided(now):
            self.undecided.add(upload_id)
        elif before is not None and upload_id not in self.undecided:
            self._compare(before, snapshot)
        else:
            self.undecided.discard(upload_id)
        self._check(snapshot)

    def _compare(self, before: UploadProgress, snapshot: UploadProgress) -> None:
        """Check what may not change from one snapshot to the next."""
        assert before.sequence <= snapshot.sequence, f"{self.name}: the sequence fell"
        is_over = is_final(before.state) and before.attempt == snapshot.attempt
        has_changed = before.state is not snapshot.state
        assert not (is_over and has_changed), f"{self.name}: a state follows an end"

    def _check(self, snapshot: UploadProgress) -> None:
        size, total = snapshot.bytes_transferred, snapshot.total_bytes
        assert size <= self.ledger.wire_bytes, f"{self.name}: more bytes than were received"
        assert total is None or size <= total, f"{self.name}: more bytes than the total"
        assert snapshot.percent != 100.0 or size == total, f"{self.name}: 100 % too early"
        if snapshot.state is UploadState.COMPLETED:
            assert self.ledger.completions, f"{self.name}: the application has not the whole"


@define(eq=False)
class Watcher:
    """A watcher of one upload, or of all uploads of the owner.

    Attributes:
        tracker: The worker at which it subscribes.
        surface: What it is shown.
        upload_id: The upload; None for all.
        misses_events: Whether the broker loses events without a sign.
        has_ended: Whether its stream has ended.
    """

    tracker: ProgressTracker
    surface: Surface
    upload_id: str | None
    misses_events: bool = False
    has_ended: bool = False

    async def run(self) -> None:
        """Read until the end of the upload, or until cancelled."""
        try:
            await (self._watch_all() if self.upload_id is None else self._watch(self.upload_id))
        except (UploadNotFound, StoreUnavailable) as error:
            self.surface.trace(f"    {self.surface.name}: {type(error).__name__}")
            self.surface.shown.clear()
        self.has_ended = True

    async def _watch(self, upload_id: str) -> None:
        async with self.tracker.watch(upload_id, owner=ANN) as watch:
            async for snapshot in watch:
                self.surface.show(snapshot)

    async def _watch_all(self) -> None:
        """Read all uploads, as an event stream does."""
        internals = internals_of(self.tracker)
        subscription = internals.subscribe()
        try:
            subscription.add_owner(ANN.id)
            page = await self.tracker.list(owner=ANN, states=set(UploadState), limit=100)
            for snapshot in page.uploads:
                subscription.offer(Update(ANN.id, snapshot))
            while True:
                for update in await internals.wait(subscription):
                    self.surface.show(update.progress)
        finally:
            subscription.close()

    def problem(self, snapshots: dict[str, UploadProgress]) -> str | None:
        """Return what is wrong with what it was shown, when all has settled.

        Args:
            snapshots: What the workers show now.
        """
        if self.misses_events and self.upload_id is None:
            # Only the store of uploads that are named is read after a silence.
            return None
        if self.upload_id in snapshots and not (self.surface.shown or self.has_ended):
            return f"{self.surface.name} was shown nothing"
        for upload_id, last in self.surface.shown.items():
            current = snapshots.get(upload_id)
            was_told_an_end = self.has_ended and is_final(last.state)
            if was_told_an_end and current is not None and current.attempt > last.attempt:
                continue
            if current is not None and self._is_same_end(last, current):
                continue
            if current is None or facts_of(current) != facts_of(last):
                return f"{self.surface.name} was last shown {text_of(last)}"
            if self.upload_id is not None and is_final(last.state) and not self.has_ended:
                return f"{self.surface.name} does not end"
        if self.upload_id is None and snapshots.keys() - self.surface.shown.keys():
            return f"{self.surface.name} was not shown all uploads"
        return None

    def _is_same_end(self, last: UploadProgress, current: UploadProgress) -> bool:
        """Return whether it was told the end, and another worker has stored its record since.

        That grows the sequence, may add the file name or tell another error of the same moment, and
        is no event. Of an end in a race, more may change.
        """
        if not self.surface.ledger.application.has_many_workers:
            return False
        is_same = last.attempt == current.attempt and is_final(last.state)
        if last.upload_id in self.surface.undecided:
            return is_same and is_final(current.state)
        # Of two ends at one moment, the name of the record decides.
        is_tie = last.finished_at == current.finished_at
        error = current.error if is_tie else last.error
        same = evolve(last, sequence=current.sequence, filename=current.filename, error=error)
        return is_same and facts_of(current) == facts_of(same)
