"""One flusher per process: all that is due is stored as one batch and published as one batch.

A pass starts when store and broker have answered the one before, and at least 100 ms after it. So a
slow store makes reports rarer, but never grows memory and never slows an upload. Subscriptions of
this process wait for neither store nor broker.
"""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Final

import anyio
from attrs import Factory, define, evolve, field

from upload_progress._fanout.hub import Hub
from upload_progress._fanout.update import Topic, Update
from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.state import is_final
from upload_progress._model.version import SKIPPED_VERSIONS
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reporting.outbox import Outbox
from upload_progress._reporting.recent_ends import RecentEnds
from upload_progress._reporting.timers import UploadTimers
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.yielding import yielding
from upload_progress._tracking import live_record, outcomes
from upload_progress._tracking.continuation import overruling, prior_state
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.measurements import Distribution
from upload_progress._tracking.registry import Registry
from upload_progress._tracking.status import TO_BE_COMPARED, Reporting
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import Clock

__all__ = ["FLUSH_SECONDS", "MAX_UNSAVED", "PORTION", "DueUploads", "Flusher"]

FLUSH_SECONDS: Final = 0.1
MAX_UNSAVED: Final = 10_000
PORTION: Final = 1000


@define(eq=False, repr=False)
class DueUploads:
    """The uploads that have something to report: a set, so that each is reported once.

    No upload is reported twice within the flush interval. A new upload without subscribers waits
    for one interval, because most uploads have ended by then and need one report instead of
    several; a pass that is made anyway takes it along. Threads of an application may add uploads:
    hence the copies to lists.
    """

    clock: Clock
    _uploads: dict[LiveUpload, float] = field(factory=dict, init=False)
    _not_before: dict[LiveUpload, float] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of uploads."""
        return len(self._uploads)

    def add(self, upload: LiveUpload, *, has_subscribers: bool) -> bool:
        """Add *upload*; return whether it may be reported now."""
        now = self.clock.monotonic()
        not_before = self._not_before.get(upload, 0.0)
        if upload.sequence == 0 and not not_before and not has_subscribers:
            not_before = self._not_before[upload] = now + FLUSH_SECONDS
        self._uploads.setdefault(upload, now)
        return not_before <= now

    def delay(self, upload: LiveUpload, until_seconds: float) -> None:
        """Report *upload* again at that monotonic time at the earliest."""
        self._not_before[upload] = until_seconds

    def forget(self, upload: LiveUpload) -> None:
        """Forget when *upload* may be reported again."""
        self._not_before.pop(upload, None)

    def seconds_until_next(self) -> float:
        """Return for how many seconds no upload may be reported."""
        now = self.clock.monotonic()
        times = (
            0.0 if each.sequence == 0 and each.is_ended else self._not_before.get(each, 0.0)
            for each in list(self._uploads)
        )
        return max(0.0, min(times, default=inf) - now)

    def take(self, *, ends: bool, everything: bool) -> dict[LiveUpload, float]:
        """Remove and return the uploads that may be reported now; see ``Flusher.flush``.

        Returns:
            Since when each has had something to report, in monotonic seconds.
        """
        now, uploads = self.clock.monotonic(), list(self._uploads)
        ready = [
            upload
            for upload in uploads
            if everything
            or self._not_before.get(upload, 0.0) <= now
            or ((ends or upload.sequence == 0) and upload.is_ended)
        ]
        if ready:
            new = [upload for upload in uploads if upload.sequence == 0]
            ready = list(dict.fromkeys([*ready, *new]))
        return {upload: self._uploads.pop(upload) for upload in ready}


@define(eq=False, repr=False, kw_only=True)
class Flusher:
    """Delivers, stores and publishes the uploads that are due.

    Args:
        watched_seconds: How often a watched upload is reported.
        is_single_worker: Whether no other process can write into the store.

    Attributes:
        ends: The ends that were stored last, if a store outside of this process has them.
        writes: How many batches were stored.
        records: How many records were stored.
        dropped: How many ends were dropped because the store was away for too long.
    """

    hub: Hub
    clock: Clock
    loader: RecordLoader
    outbox: Outbox
    registry: Registry
    timers: UploadTimers
    log_limiter: LogLimiter
    watched_seconds: float
    is_single_worker: bool
    writes: int = field(default=0, init=False)
    records: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    ends: RecentEnds = field(
        default=Factory(lambda self: RecentEnds(self.clock), takes_self=True), init=False
    )
    _due: DueUploads = field(
        default=Factory(lambda self: DueUploads(self.clock), takes_self=True), init=False
    )
    _stored_updates: dict[Topic, Update] = field(factory=dict, init=False)
    _multi_request: dict[LiveUpload, TransferRecord] = field(factory=dict, init=False)
    _without_prior_state: dict[LiveUpload, int] = field(factory=dict, init=False)
    _unsaved: dict[LiveUpload, TransferRecord] = field(factory=dict, init=False)
    _unpublished_ends: dict[LiveUpload, Update] = field(factory=dict, init=False)
    _ended: dict[LiveUpload, None] = field(factory=dict, init=False)
    _woken: anyio.Event | None = field(default=None, init=False)
    _thread: int = field(default=0, init=False)

    def add(self, upload: LiveUpload) -> None:
        """Report *upload* in the next pass; may be called from any thread."""
        # What else is left to be stored or published, a pass does without waiting.
        was_idle = not self._due
        is_ready = self._due.add(upload, has_subscribers=self.hub.has_subscribers(upload.owner))
        # An upload that has to wait sets the timer of an idle flusher, and needs no other call.
        if (was_idle or is_ready) and threading.get_ident() == self._thread:
            self.wake()

    def publish_stored(self, update: Update) -> None:
        """Deliver and publish *update*, which is stored already."""
        self._stored_updates[update.topic] = update
        self.wake()

    def update_watched(self, upload: LiveUpload) -> None:
        """Let *upload* be reported more often while a subscription of this process matches it."""
        is_watched = self.hub.is_watched(upload.owner, upload.upload_id, upload.group)
        upload.set_watched(self.watched_seconds if is_watched else None)

    def has_receivers(self, owner: str | None) -> bool:
        """Return whether a subscription or a publisher receives updates of *owner*."""
        return self.outbox.is_used or self.hub.has_subscribers(owner)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due, and nothing is left to be stored or published."""
        return not (
            self._due
            or self._stored_updates
            or self._without_prior_state
            or self._unsaved
            or self._unpublished_ends
            or len(self.outbox)
        )

    @property
    def _left(self) -> int:
        uploads = len(self._due) + len(self._without_prior_state) + len(self._unsaved)
        return uploads + len(self.outbox)

    def wake(self) -> None:
        """Start a pass, if something is due; only from the thread of the event loop."""
        if self._woken is not None and not self.is_idle:
            self._woken.set()

    async def run(self) -> None:
        """Make passes until cancelled."""
        self._thread = threading.get_ident()
        try:
            while True:
                await self._wait()
                with anyio.CancelScope(shield=True):
                    await self.flush()
                await anyio.sleep(FLUSH_SECONDS)
        finally:
            self._woken = None

    async def _wait(self) -> None:
        """Wait until something may be reported."""
        while (seconds := self._seconds_until_next()) > 0:
            self._woken = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._woken.wait()

    def _seconds_until_next(self) -> float:
        if self._left > len(self._due) or self._stored_updates:
            return 0
        return self._due.seconds_until_next()

    async def flush(self, *, ends: bool = False, everything: bool = False) -> None:
        """Make one pass; never raises.

        Args:
            ends: Report ended uploads, also within the flush interval.
            everything: Report all that is due, also within the flush interval.
        """
        began_at = self.clock.monotonic()
        try:
            await self._pass(ends=ends, everything=everything)
        except Exception as error:  # noqa: BLE001  # it is logged, and ends nothing else
            self.log_limiter.log_warning("a pass of the flusher failed", error)
        seconds = self.clock.monotonic() - began_at
        self.registry.measurements.add(Distribution.FLUSH, seconds)

    async def finish(self) -> None:
        """Make passes until nothing is left, or nothing more succeeds; never raises."""
        try:
            await self._flush_all()
            if self._left:
                # The first call after an outage may have used a connection that is closed.
                await self._flush_all()
            # An end that could not be stored is published all the same: no other worker knows it.
            await self._publish_ends(list(self._unpublished_ends))
        finally:
            self._log_left()

    async def _flush_all(self) -> None:
        """Make passes until nothing is left, or nothing more succeeds."""
        self.loader.parts.reset()
        self.outbox.reset()
        before = -1
        while (left := self._left) != before:
            before = left
            await self.flush(everything=True)

    def _log_left(self) -> None:
        """Log what is lost with this process."""
        self.outbox.log_waiting()
        if self._ended:
            self.log_limiter.log_warning(
                f"stopped before the store had accepted the ends of {len(self._ended)} uploads",
                effect="they fail as worker_lost, unless another worker knows their ends",
                topic="unsaved at stop",
            )

    async def _pass(self, *, ends: bool, everything: bool) -> None:
        due = self._due.take(ends=ends, everything=everything)
        batch = list(due)
        await self.load_prior_state(dict.fromkeys([*self._without_prior_state, *batch]))
        updates, self._stored_updates = self._stored_updates, {}
        for update in updates.values():
            self.hub.deliver(update)
        async for upload in yielding([*batch, *self._changed_since(batch)]):
            try:
                self._commit(upload, updates)
            except Exception as error:  # noqa: BLE001  # one upload's error is not another's
                self.log_limiter.log_warning("making a report failed", error)
        self._measure_lag(due)
        versions = {upload: upload.sequence for upload in batch}
        # First the store: what it refuses is not published, nor what is outdated by then, because
        # another pass has overtaken this one.
        for upload in await self._save():
            self._multi_request.pop(upload, None)
            updates.pop(upload.topic, None)
        for upload, sequence in versions.items():
            if upload.sequence != sequence:
                updates.pop(upload.topic, None)
        await self.outbox.send(updates)
        await self._report_multi_request()
        await self._publish_ends(
            [
                upload
                for upload in self._unpublished_ends
                if upload not in self._unsaved and upload not in self._without_prior_state
            ]
        )

    def _measure_lag(self, due: Mapping[LiveUpload, float]) -> None:
        """Measure how long the watched ones of these uploads have waited for their report."""
        now = self.clock.monotonic()
        for upload, since in due.items():
            if self.hub.is_watched(upload.owner, upload.upload_id, upload.group):
                self.registry.measurements.add(Distribution.LAG, now - since)

    def overrule(self, upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
        """Report *upload*, which others have ended by mistake in the store, as its next attempt."""
        self._drop_unpublished(upload)
        overruling.overrule(upload, records)

    def deliver_end(self, upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
        """Deliver the end that another worker has stored and published, to this process alone."""
        if upload.has_ended_elsewhere:
            progress = self.loader.fold(records)
            self.hub.deliver(Update(upload.owner or "", progress))

    def _drop_unpublished(self, upload: LiveUpload) -> Update | None:
        """Publish no version of *upload* that waits for it, and return its end, if that waited."""
        self.outbox.drop(upload.topic, upload.attempt)
        return self._unpublished_ends.pop(upload, None)

    def _commit(self, upload: LiveUpload, updates: dict[Topic, Update]) -> None:
        """Make the next version of *upload*, store it later, and add its snapshot to *updates*."""
        now = upload.context.now()
        if upload.series is not None and outcomes.is_undecided(upload):
            self._due.delay(upload, now.monotonic + FLUSH_SECONDS)
            self._due.add(upload, has_subscribers=False)
            return
        if upload.has_ended_elsewhere and upload.has_late_bytes:
            record = live_record.commit(upload, now)
            self._unsaved[upload] = evolve(record, state=UploadState.PAUSED)
            return
        if upload.has_ended_elsewhere or upload.is_superseded:
            self._forget(upload)
            return
        if upload.waits_for_completion:
            # A version that is stored after the completion would change the ended upload.
            upload.reporting = Reporting.CURRENT
            self._due.delay(upload, now.monotonic + FLUSH_SECONDS)
            self._multi_request[upload] = live_record.record_of(upload, now)
            return
        if upload.is_ended:
            self._ended[upload] = None
            record = live_record.commit(upload, now)
        else:
            self.update_watched(upload)
            record = live_record.commit(upload, now)
            self._due.delay(upload, now.monotonic + FLUSH_SECONDS)
            self.timers.watch(upload)
        if not upload.is_shared:
            self.hub.deliver(Update(record.owner, live_record.snapshot_of(upload, record, now)))
            return
        if upload.has_prior_state:
            self._unsaved[upload] = record
        else:
            self._without_prior_state[upload] = upload.sequence
        if upload.series is not None:
            self._multi_request[upload] = record
        elif self.has_receivers(upload.owner):
            update = Update(record.owner, live_record.snapshot_of(upload, record, now))
            self.hub.deliver(update)
            self._add_update(upload, update, updates)

    def _add_update(self, upload: LiveUpload, update: Update, updates: dict[Topic, Update]) -> None:
        """Add *update* to those that are published now, an end to those that are stored first.

        A subscriber that comes after the event of an end finds the end in the store. What is not
        loaded yet may be an attempt before, of which another worker has published the same ids.
        """
        if not upload.is_ended:
            if upload.has_prior_state:
                updates[update.topic] = update
        elif self.outbox.is_used:
            self._unpublished_ends[upload] = update

    async def _publish_ends(self, uploads: Iterable[LiveUpload]) -> None:
        ends = [self._unpublished_ends.pop(upload) for upload in uploads]
        if ends:
            await self.outbox.send({end.topic: end for end in ends})

    async def load_prior_state(self, uploads: Iterable[LiveUpload]) -> None:
        """Load from the store what is known about uploads whose id a client has chosen."""
        wanted = {
            key: upload
            for upload in uploads
            if not (upload.has_prior_state or upload.is_superseded) and (key := upload.key)
        }
        try:
            loaded = await self.loader.load_available(wanted)
        except StoreUnavailable:
            return
        for key, upload in wanted.items():
            if key.owner in loaded.errors:
                continue
            records = loaded.records.get(key, [])
            prior_state.load_prior_state(upload, records)
            if not records and self.loader.parts.may_lack(key.owner):
                # Another worker may receive an upload of this id, whose record was lost: no event
                # of this one must have the id of another's.
                upload.sequence += SKIPPED_VERSIONS

    async def _report_multi_request(self) -> None:
        """Report uploads whose requests may reach several workers, as all workers know them.

        The records of this worker are stored by now, and those of the others are read after that,
        all in one round trip. What is published follows from stored records alone: so events with
        one sequence are the same everywhere. Subscriptions of this process see the newest bytes.
        """
        uploads, self._multi_request = self._multi_request, {}
        keys = {key: upload for upload in uploads if (key := upload.key)}
        try:
            records = (await self.loader.load_available(keys)).records
        except StoreUnavailable:
            records = {}
        updates: dict[Topic, Update] = {}
        for key, upload in keys.items():
            had_ended = upload.is_superseded or upload.has_ended_elsewhere
            if key in records:
                prior_state.update_from_store(upload, records[key])
            if upload.has_ended_elsewhere and upload.has_late_bytes:
                upload.mark_due()
            elif upload.is_superseded or upload.has_ended_elsewhere:
                self._forget(upload)
            if not had_ended and self.has_receivers(upload.owner):
                self.hub.deliver(Update(key.owner, live_record.current_snapshot(upload)))
                if self.outbox.is_used:
                    self._add_event(upload, uploads[upload], records.get(key, ()), updates)
        if updates:
            await self.outbox.send(updates)

    def _add_event(
        self,
        upload: LiveUpload,
        committed: TransferRecord,
        stored: Sequence[TransferRecord],
        updates: dict[Topic, Update],
    ) -> None:
        """Add the event of the version *committed* to those that are to be published.

        The end is published by the worker whose record ends the upload, when that is stored. While
        the store is away, a worker publishes uploads that no other one receives, as far as it
        knows.
        """
        own = (committed.transfer_id, committed.sequence)
        is_stored = any((each.transfer_id, each.sequence) == own for each in stored)
        records = stored if is_stored else live_record.records_with(upload, committed)
        if upload.has_ended_elsewhere or (upload.is_ended and not is_final(committed.state)):
            return
        if upload.is_ended and deciding(newest(records)).transfer_id != upload.transfer_id:
            return
        if is_stored or upload.is_ended or not any(each.worker for each in upload.prior_records):
            progress = self.loader.fold(records, now=0.0)
            self._add_update(upload, Update(committed.owner, progress), updates)

    def _changed_since(self, batch: Sequence[LiveUpload]) -> list[LiveUpload]:
        """Return uploads that changed since they were reported without their prior state.

        Those that have not changed are stored now; those that were superseded are forgotten.
        """
        for upload in [each for each in self._without_prior_state if each.is_superseded]:
            del self._without_prior_state[upload]
            self._unpublished_ends.pop(upload, None)
            self._forget(upload)
        loaded = [each for each in self._without_prior_state if each.has_prior_state]
        reported = {upload: self._without_prior_state.pop(upload) for upload in loaded}
        for upload, sequence in reported.items():
            if upload.sequence == sequence:
                self._unsaved[upload] = live_record.record_of(upload, upload.context.now())
        return [
            upload
            for upload, sequence in reported.items()
            if upload.sequence != sequence and upload not in batch
        ]

    async def _save(self) -> Collection[LiveUpload]:
        """Store a batch; return the uploads of which the store has refused a version."""
        self._drop_excess()
        batch = dict(islice(self._savable(), PORTION))
        if not batch:
            return ()
        entries = self.outbox.ends.entries_of(
            self._unpublished_ends[upload] for upload in batch if upload in self._unpublished_ends
        )
        try:
            answers = await self.loader.parts.save([*entries, *batch.values()])
            errors = answers.errors
            self.outbox.ends.mark_stored(each for each in entries if each.owner not in errors)
            batch = {each: record for each, record in batch.items() if record.owner not in errors}
            changed = await self._follow_refusals(batch, answers.found)
        except StoreUnavailable:
            return ()
        self.writes += 1
        self.records += len(batch)
        await self._compare_with_others(batch)
        self._mark_stored(batch, changed)
        return changed

    def _savable(self) -> Iterable[tuple[LiveUpload, TransferRecord]]:
        """Return what can be saved now: without the parts of the store that are away."""
        parts = self.loader.parts
        if not parts.is_open:
            return self._unsaved.items()
        return [each for each in self._unsaved.items() if not parts.refuses(each[1].owner)]

    async def _follow_refusals(
        self, batch: Mapping[LiveUpload, TransferRecord], refused: Sequence[TransferRecord]
    ) -> Collection[LiveUpload]:
        """Load what was refused; return the uploads that have changed in the store.

        Raises:
            StoreUnavailable: The store does not answer: the batch is saved, and refused, again.
        """
        if not refused:
            return ()
        keys = {record.key for record in refused}
        records = await self.loader.load(keys)
        changed = [
            upload
            for upload, record in batch.items()
            if record.key in keys
            and overruling.follow_refusal(upload, record, records.get(record.key, ()))
        ]
        for upload in changed:
            self.deliver_end(upload, records.get(batch[upload].key, ()))
        dropped = [end for each in changed if (end := self._drop_unpublished(each))]
        await self.outbox.ends.confirm(dropped)
        return changed

    def _mark_stored(
        self, batch: Mapping[LiveUpload, TransferRecord], changed: Collection[LiveUpload]
    ) -> None:
        for upload, record in batch.items():
            if is_final(record.state) and not self.is_single_worker and upload not in changed:
                self.ends.add(record)
            if self._unsaved.get(upload) is record:
                del self._unsaved[upload]
                # What has changed since is stored by the next pass.
                is_stored = upload.reporting is not Reporting.DUE
                is_over = upload.is_ended or upload.has_ended_elsewhere
                if is_stored and (is_over or upload.is_idle):
                    self._forget(upload)

    async def _compare_with_others(self, uploads: Iterable[LiveUpload]) -> None:
        """Load once more what was just stored: another worker may have begun an upload as well."""
        if self.is_single_worker:
            return
        keys = {
            key: upload
            for upload in uploads
            if upload.prior_state in TO_BE_COMPARED and upload.series is None
            if (key := upload.key)
        }
        try:
            records = await self.loader.load(keys)
        except StoreUnavailable:
            return
        for key, upload in keys.items():
            stored = records.get(key, [])
            prior_state.load_prior_state(upload, stored)
            if upload.is_superseded and stored:
                self._publish_end_of_newer(key.owner, stored)

    def _publish_end_of_newer(self, owner: str, records: Sequence[TransferRecord]) -> None:
        """Publish the end of an upload that has ended elsewhere, and is newer than one here.

        Its worker has published it within the attempt of the one here, of which it did not know.
        """
        progress = self.loader.fold(records)
        is_known = any(each.attempt == progress.attempt for each in records)
        if is_final(progress.state) and not is_known:
            self.publish_stored(Update(owner, progress))

    def _forget(self, upload: LiveUpload) -> None:
        self._ended.pop(upload, None)
        self._due.forget(upload)
        self.registry.remove(upload)

    def _drop_excess(self) -> None:
        """Drop the oldest ends, if too many wait for a store that stays away."""
        while len(self._ended) > MAX_UNSAVED:
            upload = next(iter(self._ended))
            self._without_prior_state.pop(upload, None)
            self._unsaved.pop(upload, None)
            self.dropped += 1
            self._forget(upload)
