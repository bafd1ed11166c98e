"""A live upload: the newest state of an upload that this process receives.

A ``LiveUpload`` counts bytes, handles signals and asks for reports. It never writes, publishes or
waits: the flusher takes what is due when it is ready. After the end, no call changes anything.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from attrs import define, evolve, field, frozen

from upload_progress._model.activity import OBSERVE_SECONDS, Activity, judge_arrival
from upload_progress._model.fold import fold, newest
from upload_progress._model.models import (
    Arrival,
    Metadata,
    TransferRecord,
    UploadError,
    UploadKey,
    UploadProgress,
    UploadState,
    truncate_text,
)
from upload_progress._model.state import (
    ABORTED,
    CANCELLED,
    DISCONNECTED,
    LOST,
    RAISED,
    Signal,
    is_final,
    is_receiving,
    next_state,
    result_of,
)
from upload_progress._model.validation import MAX_COUNT
from upload_progress._tracking.stage import StageHandle
from upload_progress.config import TrackerConfig
from upload_progress.identity import Identity
from upload_progress.throttling import NEVER, Meter

__all__ = ["FAILURE_MESSAGE_CHARACTERS", "LiveUpload", "Moment", "UploadContext"]

FAILURE_MESSAGE_CHARACTERS: Final = 1000
_DESCRIPTION: Final = ("filename", "content_type", "metadata", "group")


class Moment(NamedTuple):
    """One reading of both clocks.

    Attributes:
        monotonic: Seconds on the monotonic clock.
        wall: Seconds since the Unix epoch.
    """

    monotonic: float
    wall: float


@frozen(eq=False, repr=False, kw_only=True)
class UploadContext:
    """The part of a tracker that a live upload calls.

    Attributes:
        config: The settings of the tracker.
        on_due: Called with an upload that has something to report.
        on_ended: Called with an upload, tracked or not, that has just ended.
        admit: Tracks an upload for an identity; returns whether there was room.
        remember_resource: Called with owner, resource id and upload id: requests of that owner to
            that resource belong to that upload.
    """

    config: TrackerConfig
    on_due: Callable[["LiveUpload"], None]
    on_ended: Callable[["LiveUpload"], None]
    admit: Callable[["LiveUpload", Identity], bool]
    remember_resource: Callable[[str, str, str], None]

    def now(self) -> Moment:
        """Read both clocks."""
        clock = self.config.clock
        return Moment(clock.monotonic(), clock.time())


@define(eq=False, repr=False, kw_only=True)
class LiveUpload:
    """An upload while this process receives it; endpoints hold it through an ``Upload``."""

    upload_id: str
    transfer_id: str
    meter: Meter
    context: UploadContext
    worker: str
    owner: str | None = None
    current_stage: StageHandle | None = None
    is_tracked: bool = False
    id_is_sent: bool = False
    is_proxied: bool = False
    group: str | None = None
    filename: str | None = None
    content_type: str | None = None
    metadata: Metadata | None = None
    state: UploadState = UploadState.PENDING
    error: UploadError | None = None
    is_due: bool = False
    has_prior_state: bool = False
    is_superseded: bool = False
    is_idle: bool = False
    is_answered: bool = False
    merged_into: "LiveUpload | None" = None
    attempt: int = 1
    sequence: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    not_before: float = 0.0
    timer_at: float | None = None
    activity: Activity | None = None
    arrival: Arrival | None = None
    prior_records: tuple[TransferRecord, ...] = ()
    on_cancel: Callable[[], None] | None = None
    _failure_message: str | None = None
    _claimant: Identity | None = None
    _set_by_app: set[str] = field(factory=set)
    _reported_at: float = 0.0
    _final_bytes: int | None = None
    _end_is_reported: bool = False

    def __repr__(self) -> str:
        """Show id, state and size; no owner and no names."""
        return f"<Upload {self.upload_id} {self.state} {self.received_bytes} bytes>"

    @property
    def received_bytes(self) -> int:
        """The body bytes received so far; constant after the end."""
        return self.meter.received_bytes if self._final_bytes is None else self._final_bytes

    @property
    def is_ended(self) -> bool:
        """Whether the upload is in a final state."""
        return is_final(self.state)

    @property
    def is_replaceable(self) -> bool:
        """Whether another upload may take its key: after the end, or after a redirect."""
        return self.is_ended or self.is_idle

    @property
    def key(self) -> UploadKey | None:
        """The key of the upload; None while it has no owner."""
        return None if self.owner is None else UploadKey(self.owner, self.upload_id)

    # Called by the application

    def set_attribute(self, name: str, value: object) -> None:
        """Set an attribute by the application, which takes precedence over announcements."""
        if not self.is_ended:
            setattr(self, name, value)
            self._set_by_app.add(name)

    def claim(self, identity: Identity) -> bool:
        """Make *identity* the owner, unless there is one; return whether it is the owner."""
        if self.owner is not None:
            return self.owner == identity.owner_of(self.upload_id)
        if self.started_at is None:
            self._claimant = self._claimant or identity
            return self._claimant == identity
        return not self.is_ended and self.context.admit(self, identity)

    def mark_failed(self, message: str) -> None:
        """Let the upload end as rejected, whatever the status of the response."""
        self._failure_message = truncate_text(message, FAILURE_MESSAGE_CHARACTERS)

    def show_stage(self, stage: StageHandle | None) -> None:
        """Show *stage*, or none, from now on."""
        if not self.is_ended:
            self.current_stage = stage
            self.mark_due()

    # Called by the middleware and the tracker

    def begin(self) -> None:
        """Start to receive: the first byte may come now."""
        state = next_state(self.state, Signal.BEGIN)
        if state is None:
            return
        self.state = state
        now = self.context.now()
        self.started_at, self._reported_at = now.wall, now.monotonic
        received = self.meter.received_bytes
        last_byte_at = now.wall if received else None
        self.activity = Activity(now.monotonic, received, last_byte_at=last_byte_at)
        if self.owner is None and self._claimant is not None:
            self.context.admit(self, self._claimant)
        self.mark_due()

    def end_body(self) -> None:
        """Record that the last byte was received; the application has not responded yet."""
        state = next_state(self.state, Signal.BODY_END)
        if state is None:
            return
        now = self.context.now()
        self.observe(now)
        self.state = state
        self.arrival = self._judge_arrival(now.monotonic)
        self.mark_due()

    def _judge_arrival(self, monotonic: float) -> Arrival | None:
        if self.activity is None or self.started_at is None:
            return None
        announced_at = min(
            (record.created_at for record in self.prior_records), default=self.started_at
        )
        return judge_arrival(
            received_bytes=self.received_bytes,
            body_seconds=monotonic - self.activity.began_at,
            waited_seconds=self.started_at - announced_at,
            is_proxied=self.is_proxied,
            is_led_by_client=self.activity.is_led_by_client,
        )

    def finish(self, status: int | None) -> None:
        """End by the response of the application, or without HTTP (*status* None)."""
        has_whole_body = self.state is UploadState.PROCESSING
        signal, error = result_of(status, self._failure_message, has_whole_body=has_whole_body)
        if signal is Signal.REDIRECT:
            self._redirect()
        else:
            self._end(signal, error)

    def _redirect(self) -> None:
        """Wait for the client to repeat the request elsewhere: nothing of this one counts."""
        state = next_state(self.state, Signal.REDIRECT)
        if state is None:
            return
        self.state, self.current_stage, self.activity, self.arrival = state, None, None, None
        self._final_bytes = 0
        self.is_idle = True
        self.mark_due()

    def app_raised(self) -> None:
        """End by an exception of the application, whose text is left to the server's log."""
        if self._failure_message is None:
            self._end(Signal.RAISE, RAISED)
        else:
            self.finish(None)

    def app_cancelled(self) -> None:
        """End because the server cancelled the task of the application."""
        self._end(Signal.CANCEL, ABORTED)

    def client_disconnected(self) -> None:
        """End because the client disconnected; after the last byte this changes nothing."""
        self._end(Signal.DISCONNECT, DISCONNECTED)

    def cancel(self) -> None:
        """End by the owner's wish, and stop the running transfer.

        It is too late if the client receives the response to the whole body already.
        """
        if self.is_answered and self.state is UploadState.PROCESSING:
            return
        if self._end(Signal.CANCEL, CANCELLED) and self.on_cancel is not None:
            self.on_cancel()

    def lose(self) -> None:
        """End because other workers declared this one dead, and ended the upload in the store."""
        self._end(Signal.LOSE, LOST)

    def _end(self, signal: Signal, error: UploadError | None) -> bool:
        state = next_state(self.state, signal)
        if state is None:
            return False
        now = self.context.now()
        self.observe(now)
        self.state, self.error, self.current_stage = state, error, None
        self._final_bytes = self.meter.received_bytes
        self.finished_at = now.wall
        self.context.on_ended(self)
        self.mark_due()
        return True

    def mark_due(self) -> None:
        """Ask for a report, unless one is due already or the end was reported."""
        if not self.is_tracked or self._end_is_reported:
            return
        self.meter.gate_bytes = NEVER
        if not self.is_due:
            self.is_due = True
            self.context.on_due(self)

    # Time

    def observe(self, now: Moment) -> None:
        """Update last byte, silence and stall from the number of bytes received so far."""
        if self.activity is not None and is_receiving(self.state):
            self._observe(now, self.meter.received_bytes, is_waiting=self.meter.is_waiting)

    def _observe(self, now: Moment, received_bytes: int, *, is_waiting: bool) -> None:
        assert self.activity is not None  # noqa: S101  # checked by the callers
        has_changed = self.activity.observe(
            now.monotonic,
            now.wall,
            received_bytes,
            self.context.config.stall_after_seconds,
            is_waiting=is_waiting,
        )
        if has_changed:
            self.mark_due()

    def tick(self) -> float | None:
        """Observe, ask for a report if the policy's interval is over.

        Returns:
            When to call this again, in monotonic seconds; None for never.
        """
        if self.is_ended or self.is_idle:
            return None
        moment = self.context.now()
        self.observe(moment)
        now = moment.monotonic
        meter = self.meter if self.current_stage is None else self.current_stage.meter
        silent_seconds = now - self._reported_at
        if self.activity is not None and silent_seconds >= OBSERVE_SECONDS:
            self.activity.update_rate(now)
        if not self.is_due and meter.elapse(silent_seconds):
            self.mark_due()
        if self.activity is None or not is_receiving(self.state):
            return now + OBSERVE_SECONDS
        # A report that is due will be made now: the next one is counted from here.
        since, passed = (now, 0.0) if self.is_due else (self._reported_at, silent_seconds)
        gates = [since + seconds for seconds in self.meter.later_than(passed)]
        return self.activity.next_observation(now, gates, self.context.config.stall_after_seconds)

    # Records and snapshots

    def load_prior_state(self, records: Iterable[TransferRecord]) -> None:
        """Continue from what the store has: an announcement, or an earlier attempt."""
        if self.has_prior_state:
            return
        self.has_prior_state = True
        others = [record for record in records if record.transfer_id != self.transfer_id]
        before = fold(others, now=self.context.config.clock.time())
        if before is None:
            return
        # A record of this worker without a live upload has ended, and its end was not stored.
        is_ours = any(record.worker == self.worker for record in others)
        was_redirected = before.state is UploadState.PENDING and before.started_at is not None
        has_ended = is_ours or was_redirected or is_final(before.state)
        if has_ended or before.attempt < self.attempt:
            self.attempt = max(self.attempt, before.attempt + 1)
            self.sequence += before.sequence + 1
            self._inherit_description(before)
            return
        self.attempt = before.attempt
        self.prior_records = tuple(newest(others))
        for name in _DESCRIPTION:
            announced = getattr(before, name)
            if announced is not None and name not in self._set_by_app:
                setattr(self, name, announced)
        if self.meter.total_bytes is None:
            self.meter.total_bytes = before.total_bytes

    def _inherit_description(self, before: UploadProgress) -> None:
        """Keep the description of the attempt before, except for what this one announces."""
        for name in _DESCRIPTION:
            if getattr(self, name) is None:
                setattr(self, name, getattr(before, name))
        if self.meter.total_bytes is None:
            self.meter.total_bytes = before.total_bytes

    def start_after(self, ended: "LiveUpload") -> None:
        """Become the next attempt after *ended*, which may not be stored yet."""
        before = ended.snapshot()
        self.attempt = before.attempt + 1
        self.sequence += before.sequence + 1
        self._inherit_description(before)
        self.has_prior_state = ended.has_prior_state
        ended.is_superseded = not ended.has_prior_state

    def commit(self, now: Moment) -> TransferRecord:
        """Return the next version of the record, and arm the meter for the one after it."""
        self.observe(now)
        if self.activity is not None:
            self.activity.update_rate(now.monotonic)
        self.sequence += 1
        self.is_due = False
        self._reported_at = now.monotonic
        self.meter.rearm()
        if self.current_stage is not None:
            self.current_stage.meter.rearm()
        if self.activity is not None and (self.activity.is_silent or self.activity.is_stalled):
            self.meter.gate_bytes = self.meter.received_bytes + 1
        if self.is_ended:
            self.meter.gate_bytes = 0
            self._end_is_reported = True
        return self.record(now)

    def record(self, now: Moment) -> TransferRecord:
        """Return the record of this process in its current version."""
        activity = self.activity
        return TransferRecord(
            owner=self.owner or "",
            upload_id=self.upload_id,
            transfer_id=self.transfer_id,
            attempt=self.attempt,
            sequence=self.sequence,
            state=self.state,
            received_bytes=min(self.received_bytes, MAX_COUNT),
            total_bytes=self.meter.total_bytes,
            bytes_per_second=activity.bytes_per_second if activity else None,
            stalled=activity is not None and activity.is_stalled,
            arrival=self.arrival,
            stage=self.current_stage.stage if self.current_stage else None,
            error=self.error,
            group=self.group,
            filename=self.filename,
            content_type=self.content_type,
            metadata=self.metadata,
            created_at=self.created_at,
            started_at=self.started_at,
            updated_at=self.finished_at or now.wall,
            last_byte_at=activity.last_byte_at if activity else None,
            finished_at=self.finished_at,
            worker=None if self.is_ended else self.worker,
        )

    def records_with(self, record: TransferRecord) -> list[TransferRecord]:
        """Return the records of this attempt: those of others, and *record* of this process."""
        return [*self.prior_records, record]

    def snapshot(self) -> UploadProgress:
        """Return the current snapshot; an end that is not stored yet as it will be stored."""
        now = self.context.now()
        self.observe(now)
        self.sequence = max(self.sequence, 1)
        return self.snapshot_of(self.record(now), now)

    def snapshot_of(self, record: TransferRecord, now: Moment) -> UploadProgress:
        """Return the snapshot of which *record* is the part of this process."""
        mount_path = self.context.config.mount_path
        progress = fold(self.records_with(record), now=now.wall, mount_path=mount_path)
        assert progress is not None  # noqa: S101  # there is a record
        if self.is_ended and not self._end_is_reported:
            # One sequence must not carry two states: a receiver keeps the highest sequence.
            return evolve(progress, sequence=progress.sequence + 1)
        return progress
