"""A live upload: the newest state of an upload that this process receives.

A ``LiveUpload`` is a state machine with a description and its transfers: one for an upload in one
request, any number for an upload in several requests (tus, Content-Range, OCI, S3, IETF), which
also has a `RequestSeries`. All requests of an upload that reach one worker are transfers of one
``LiveUpload``, which writes one record: an upload has as many records as workers, however many
requests it has.

It counts bytes, handles signals and asks for reports. It never writes, publishes or waits: the
flusher takes what is due when it is ready. After the end, no call changes anything.

A transfer that breaks off does not fail an upload in several requests. Between two requests the
upload stays ``receiving`` for a moment, then it is ``paused``; only the response of the
application, as the protocol defines it, completes it. Bytes of a sequential protocol that start
beyond the end of what has arrived are counted only after the application's response, which will
probably refuse them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import define, field, frozen

from upload_progress._model.activity import OBSERVE_SECONDS, Activity, judge_arrival
from upload_progress._model.models import (
    Arrival,
    ByteRange,
    HandOver,
    Metadata,
    TransferRecord,
    UploadError,
    UploadKey,
    UploadState,
    truncate_text,
)
from upload_progress._model.rate import eta_seconds
from upload_progress._model.state import (
    CANCELLED,
    FINAL_STATES,
    Signal,
    is_waiting,
    next_state,
)
from upload_progress._model.version import MAX_UNSTORED_VERSIONS
from upload_progress._runtime.worker import SEPARATOR
from upload_progress._tracking.hand_over import Handed
from upload_progress._tracking.requests.series import RequestSeries
from upload_progress._tracking.requests.transfer import CONTINUES, Transfer, TransferPhase
from upload_progress._tracking.stage import BEGIN_LOCK, StageHandle, StoredBytes
from upload_progress._tracking.status import TO_BE_LOADED, Moment, PriorState, Reporting
from upload_progress._tracking.store_budget import StoreBudget
from upload_progress.config import TrackerConfig
from upload_progress.identity import Identity
from upload_progress.protocols import (
    TransferKind,
)
from upload_progress.throttling import NEVER, Meter

__all__ = [
    "DESCRIPTION",
    "FAILURE_MESSAGE_CHARACTERS",
    "PAUSE_AFTER_SECONDS",
    "LiveUpload",
    "UploadContext",
]

FAILURE_MESSAGE_CHARACTERS: Final = 1000
PAUSE_AFTER_SECONDS: Final = 2.0
"""How long after its last request an upload in several requests is reported as receiving."""
DESCRIPTION: Final = ("filename", "content_type", "metadata", "group")


@frozen(eq=False, repr=False, kw_only=True)
class UploadContext:
    """The part of a tracker that a live upload calls.

    Attributes:
        config: The settings of the tracker.
        on_due: Called with an upload that has something to report.
        on_ended: Called with an upload, tracked or not, that has just ended.
        on_superseding: Called with an upload whose prior state shows an older upload of the same id
            that other workers still receive, and with its records at these workers.
        admit: Tracks an upload for an identity; returns whether there was room.
        remember_resource: Called with owner, resource id and upload id: requests of that owner to
            that resource belong to that upload.
        on_stage: Called with an upload that shows another stage, or none.
        budget: How many records may be written.
    """

    config: TrackerConfig
    on_due: Callable[["LiveUpload"], None]
    on_ended: Callable[["LiveUpload"], None]
    on_superseding: Callable[["LiveUpload", Sequence[TransferRecord]], None]
    admit: Callable[["LiveUpload", Identity], bool]
    remember_resource: Callable[[str, str, str], None]
    on_stage: Callable[["LiveUpload"], None]
    budget: StoreBudget

    def now(self) -> Moment:
        """Read both clocks."""
        clock = self.config.clock
        return Moment(clock.monotonic(), clock.time())


@define(eq=False, repr=False, kw_only=True)
class LiveUpload:
    """An upload while this process receives it; endpoints hold it through an ``Upload``.

    Methods that concern one request take its transfer; the default is the one that opened the
    upload.

    Attributes:
        number: The number of its first request at this worker, in the order of their arrival.
        opened_by: The transfer for which this object was created.
        newest_number: The number of its newest request.
        begun_at: When the request that began this attempt, or may begin another one after an end,
            has begun, in seconds since the epoch, if its owner was known late.
        ended_after: The number of the newest request of any upload when this one ended.
        record_name: The name of its record, if that is not its own number at this worker.
        transfers: The requests that carry the upload at this worker at the moment.
        series: What only an upload in several requests has; None for an upload in one request.
        has_path_name: Whether its file name is only a segment of the path: any other one is better.
        limit_key: By what the limit of tracked uploads counts it, see ``Identity.limit_key``.
        meter: The bytes received, and when the next report is due.
        merged_into: The upload of which the request turned out to be a part.
        prior_records: The records of this attempt that others have stored.
        preceding: The end of the attempt before, if this worker may have to store it yet.
        is_late: Whether its owner was not known before a byte could arrive.
        handed: That the application wants to hand over the upload with its answer.
        hand_over: That it was handed over, or that this process has resumed it.
        inherited: The record that this process has taken over.
        stored: The bytes that the application has passed on; None if it reports nothing.
        replaced: The names of the records of uploads in one request that this one has replaced.
        on_response: Called once with whether its request was accepted, if only the response tells
            that it is of another upload than the one that is received under its id.
    """

    number: int
    upload_id: str
    opened_by: Transfer
    meter: Meter
    context: UploadContext
    worker: str
    record_name: str | None = None
    series: RequestSeries | None = None
    owner: str | None = None
    limit_key: str | None = None
    is_proxied: bool = False
    id_is_sent: bool = False
    group: str | None = None
    filename: str | None = None
    has_path_name: bool = False
    content_type: str | None = None
    metadata: Metadata | None = None
    created_at: float = 0.0
    prior_state: PriorState = PriorState.UNKNOWN
    reporting: Reporting = field(default=Reporting.UNTRACKED, init=False)
    state: UploadState = field(default=UploadState.PENDING, init=False)
    error: UploadError | None = field(default=None, init=False)
    current_stage: StageHandle | None = field(default=None, init=False)
    transfers: tuple[Transfer, ...] = field(init=False)
    newest_number: int = field(init=False)
    begun_at: float | None = field(default=None, init=False)
    ended_after: int = field(default=0, init=False)
    merged_into: "LiveUpload | None" = field(default=None, init=False)
    attempt: int = field(default=1, init=False)
    sequence: int = field(default=0, init=False)
    started_at: float | None = field(default=None, init=False)
    finished_at: float | None = field(default=None, init=False)
    activity: Activity | None = field(default=None, init=False)
    arrival: Arrival | None = field(default=None, init=False)
    prior_records: tuple[TransferRecord, ...] = field(default=(), init=False)
    preceding: tuple[TransferRecord, ...] = field(default=(), init=False)
    is_late: bool = field(default=False, init=False)
    handed: Handed | None = field(default=None, init=False)
    hand_over: HandOver | None = field(default=None, init=False)
    inherited: TransferRecord | None = field(default=None, init=False)
    stored: StoredBytes | None = field(default=None, init=False)
    replaced: tuple[str, ...] = field(default=(), init=False)
    _claimant: Identity | None = field(default=None, init=False)
    on_response: Callable[[bool], None] | None = field(default=None, init=False)
    set_by_app: frozenset[str] = field(default=frozenset(), init=False)
    _reports: int = field(default=0, init=False)
    _shared_sequence: int = field(default=0, init=False)
    _reported_at: float = field(default=0.0, init=False)
    _least_seconds: float = field(default=0.0, init=False)
    _final_bytes: int | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the transfer that opened the upload."""
        self.transfers = (self.opened_by,)
        self.newest_number = self.number

    def __repr__(self) -> str:
        """Show id, state and size; no owner and no names."""
        return f"<Upload {self.upload_id} {self.state} {self.received_bytes} bytes>"

    @property
    def transfer_id(self) -> str:
        """The name of its record: no two uploads of a worker have one number."""
        return self.record_name or f"{self.worker}{SEPARATOR}{self.number}"

    @property
    def received_bytes(self) -> int:
        """The body bytes received so far; constant after the end."""
        return self.meter.received_bytes if self._final_bytes is None else self._final_bytes

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens to it here: it has ended, or a task goes on with it."""
        # Most uploads are never handed over: this is read ten times in each.
        return self.state in FINAL_STATES or (self.hand_over is not None and self.is_handed_over)

    @property
    def is_handed_over(self) -> bool:
        """Whether it was handed over to a task, which is the only one that writes its record."""
        return self.hand_over is not None and not self.hand_over.is_resumed

    @property
    def is_tracked(self) -> bool:
        """Whether the upload has an owner, who can watch it."""
        return self.reporting is not Reporting.UNTRACKED

    @property
    def is_superseded(self) -> bool:
        """Whether it is not reported any more, see ``Reporting.SUPERSEDED``."""
        return self.reporting is Reporting.SUPERSEDED

    @property
    def is_reported(self) -> bool:
        """Whether there was a report of it, or a query has shown it."""
        return self._reports > 0

    @property
    def is_shared(self) -> bool:
        """Whether the current version is for all: for store and broker, not for watchers alone."""
        return self._shared_sequence == self.sequence

    @property
    def has_prior_state(self) -> bool:
        """Whether the records that the store has of the upload are known."""
        return self.prior_state not in TO_BE_LOADED

    @property
    def has_ended_elsewhere(self) -> bool:
        """Whether it has ended according to the record of another worker."""
        return self.prior_state is PriorState.ENDED

    @property
    def is_idle(self) -> bool:
        """Whether it waits for its next request, which may reach any worker."""
        return not self.transfers and is_waiting(self.state)

    @property
    def protocol(self) -> str | None:
        """The protocol of an upload in several requests."""
        return None if self.opened_by.head is None else self.opened_by.head.protocol

    @property
    def held_series(self) -> RequestSeries:
        """What only an upload in several requests has, where it is one."""
        assert self.series is not None  # noqa: S101  # an upload in several requests
        return self.series

    @property
    def resource_id(self) -> str | None:
        """The id of its resource, if it is known by another id; None in one request."""
        return None if self.series is None else self.series.resource_id

    @property
    def session(self) -> str | None:
        """The session of its requests, see ``TransferRecord``; None in one request."""
        return None if self.series is None else self.series.session

    @property
    def is_completed_by_request(self) -> bool:
        """Whether a request has completed an upload of which nothing else was known before."""
        return self.series is not None and self.series.is_completed_by_request

    @property
    def has_late_bytes(self) -> bool:
        """Whether it has ended elsewhere before all bytes of this worker were stored."""
        return self.series is not None and self.series.has_late_bytes

    @property
    def key(self) -> UploadKey | None:
        """The key of the upload; None while it has no owner."""
        return None if self.owner is None else UploadKey(self.owner, self.upload_id)

    @property
    def topic(self) -> tuple[str, str]:
        """Owner and id, by which updates of the upload are delivered."""
        return self.owner or "", self.upload_id

    @property
    def is_stalled(self) -> bool:
        """Whether no byte has arrived for ``stall_after_seconds``."""
        return self.activity is not None and self.activity.is_stalled

    @property
    def eta_seconds(self) -> float | None:
        """The remaining time until the last byte; None if it is unknown."""
        total, activity = self.meter.total_bytes, self.activity
        if total is None or activity is None:
            return None
        return eta_seconds(total - self.received_bytes, activity.bytes_per_second)

    # Called by the application

    def set_attribute(self, name: str, value: object) -> None:
        """Set an attribute by the application, which takes precedence over announcements."""
        if not self.is_ended:
            setattr(self, name, value)
            self.set_by_app |= {name}

    def claim(self, identity: Identity) -> bool:
        """Make *identity* the owner, unless there is one; return whether it is the owner."""
        if self.owner is not None:
            return self.owner == identity.owner_of(self.upload_id)
        if self.started_at is None:
            self._claimant = self._claimant or identity
            return self._claimant == identity
        return self.context.admit(self, identity)

    def mark_failed(self, message: str) -> None:
        """Let the upload end as rejected with its request, whatever the status of the response."""
        self.opened_by.failure_message = truncate_text(message, FAILURE_MESSAGE_CHARACTERS)

    def add_stored(self, size_bytes: int) -> None:
        """Count bytes that the application has passed on; from any thread."""
        if self.is_ended:
            return
        with BEGIN_LOCK:
            is_first = self.stored is None
            self.stored = self.stored or StoredBytes.begin(self.meter.total_bytes)
        if self.stored.add(size_bytes) or is_first:
            self.mark_due()

    def show_stage(self, stage: StageHandle | None) -> None:
        """Show *stage*, or none, from now on."""
        if not self.is_ended:
            self.current_stage = stage
            self.context.on_stage(self)
            self.mark_due()

    # Called by the middleware and the tracker, in the order of a request

    def begin(self, transfer: Transfer | None = None) -> None:
        """Start to receive: the first byte may come now."""
        transfer = transfer or self.opened_by
        head = transfer.head
        if transfer.phase is TransferPhase.OPEN:
            transfer.phase = TransferPhase.RECEIVING
        is_completion = head is not None and head.kind is TransferKind.COMPLETE
        if is_completion and self.held_series.ranges.sum_of_part_sizes:
            # Now all parts have announced their sizes.
            self.held_series.set_total(self.held_series.ranges.sum_of_part_sizes)
        if head is None or head.carries_bytes or is_completion:
            self.begin_receiving()

    def begin_receiving(self) -> None:
        """Start to receive, for the first time or again."""
        state = next_state(self.state, Signal.BEGIN)
        if state is None:
            return
        self.state = state
        now = self.context.now()
        self.started_at, self._reported_at = self.started_at or now.wall, now.monotonic
        received = self.wire_bytes
        last_byte_at = now.wall if received else None
        if self.activity is not None:
            last_byte_at = self.activity.last_byte_at
        self.activity = Activity(now.monotonic, received, last_byte_at=last_byte_at)
        if self.owner is None and self._claimant is not None:
            self.context.admit(self, self._claimant)
        self.mark_due()

    def end_body(self, transfer: Transfer | None = None) -> None:
        """Record that the last byte was received; the application has not responded yet."""
        transfer = transfer or self.opened_by
        transfer.phase = TransferPhase.RECEIVED
        if self.series is None or (transfer in self.transfers and self._ends_with(transfer)):
            self._end_body()

    def _end_body(self) -> None:
        state = next_state(self.state, Signal.BODY_END)
        if state is None:
            return
        now = self.context.now()
        self.observe(now)
        self.state = state
        self.arrival = self._judge_arrival(now.monotonic)
        self.mark_due()

    def _ends_with(self, transfer: Transfer) -> bool:
        """Return whether no byte is missing, now that the body of *transfer* has arrived."""
        assert transfer.head is not None  # noqa: S101  # an upload in several requests
        if transfer.kind is TransferKind.ABORT:
            return False
        self.observe(self.context.now())
        total = self.meter.total_bytes
        is_full = total is not None and self.meter.received_bytes >= total
        return transfer.head.is_last or (is_full and not self.is_divided)

    def _judge_arrival(self, monotonic: float) -> Arrival | None:
        if self.activity is None or self.started_at is None:
            return None
        waited_seconds = 0.0
        if self.prior_records:
            announced_at = min(record.created_at for record in self.prior_records)
            waited_seconds = self.started_at - announced_at
        return judge_arrival(
            received_bytes=self.meter.received_bytes,
            body_seconds=monotonic - self.activity.began_at,
            waited_seconds=waited_seconds,
            is_proxied=self.is_proxied,
            is_led_by_client=self.activity.is_led_by_client,
        )

    def begin_response(self, transfer: Transfer | None = None) -> None:
        """Record that the client receives the response."""
        transfer = transfer or self.opened_by
        if transfer.phase is TransferPhase.RECEIVED:
            transfer.phase = TransferPhase.RESPONDING

    def redirect(self, transfer: Transfer) -> None:
        """Wait for the client to repeat the request elsewhere: nothing of this one counts."""
        state = next_state(self.state, Signal.REDIRECT)
        if state is None:
            return
        self.state, self.current_stage, self.activity, self.arrival = state, None, None, None
        self._final_bytes = 0
        self.remove(transfer)
        self.mark_due()

    def cancel(self) -> None:
        """End by the owner's wish, and stop the running transfers.

        It is too late if the client receives the response to the whole body already.
        """
        if self.series is None and self.opened_by.phase is TransferPhase.RESPONDING:
            return
        transfers = self.transfers
        if self.end(Signal.CANCEL, CANCELLED):
            for transfer in transfers:
                transfer.stop()

    def track(self, upload_id: str, owner: str) -> None:
        """Report the upload from now on, under that id to that owner."""
        self.upload_id, self.owner = upload_id, owner
        self.reporting = Reporting.CURRENT

    def take_over(self, record: TransferRecord, others: Iterable[TransferRecord]) -> None:
        """Go on with *record*, which this process has taken over, beside those of *others*."""
        self.inherited, self.hand_over = record, record.hand_over
        if record.stored_bytes is not None:
            self.stored = StoredBytes.begin(record.total_bytes, record.stored_bytes)
        self.prior_records = tuple(others)
        self.state, self.started_at = record.state, record.started_at
        self.attempt, self.sequence = record.attempt, record.sequence

    def supersede(self) -> None:
        """Report nothing any more: a newer upload has the id. The transfer goes on untouched."""
        if self.is_tracked:
            self.reporting = Reporting.SUPERSEDED
            self.context.on_due(self)

    def remove(self, transfer: Transfer) -> None:
        """Carry *transfer* no more: its request is over."""
        transfer.phase = TransferPhase.ENDED
        self.transfers = tuple(each for each in self.transfers if each is not transfer)

    def end(self, signal: Signal, error: UploadError | None) -> bool:
        """End the upload, or its part of an upload that is handed over; return whether it was."""
        state = next_state(self.state, signal)
        if state is None or self.is_handed_over:
            return False
        now = self.context.now()
        self.observe(now)
        if self.handed is not None and signal is Signal.ACCEPT:
            # The answer has accepted the upload: from now on, only its task writes the record.
            state, self.hand_over = UploadState.PROCESSING, self.handed.record
            self.record_name = self.transfer_id
            self.worker = self.handed.worker(now.wall)
        if self.series is not None:
            # Transfers in progress count as far as they have come.
            self.series.arrived = tuple(self.arriving())
            self.series.finished_bytes = self.wire_bytes
        self.state, self.error, self.current_stage = state, error, None
        self._final_bytes = self.meter.received_bytes
        self.finished_at = now.wall if state in FINAL_STATES else None
        for transfer in self.transfers:
            transfer.phase = TransferPhase.ENDED
        self.transfers = ()
        self.context.on_ended(self)
        self.mark_due()
        return True

    # Reports

    def set_watched(self, seconds: float | None) -> None:
        """Report the upload at that interval, because it is watched; None if it is not.

        Every version of an upload in several requests is stored, and waits for the budget.
        """
        if seconds is not None and self.series is not None:
            seconds = max(seconds, self._least_seconds)
        self.meter.watched_seconds = seconds

    def mark_due(self, due: Reporting = Reporting.DUE) -> None:
        """Ask for a report, unless one is due already or the end was reported."""
        before = self.reporting
        is_current = before is Reporting.CURRENT
        if not is_current and before is not due and before is not Reporting.DUE_HERE:
            return
        self.meter.gate_bytes = NEVER
        if self.series is not None:
            for transfer in self.transfers:
                transfer.arm(NEVER)
        self.reporting = due
        if is_current:
            self.context.on_due(self)

    def _mark_reached(self, meter: Meter) -> None:
        """Ask for a report because a gate of *meter*, of the body or a stage, is reached.

        An upload in several requests stores every version: its sequence is a sum over workers, and
        must mean the same at each of them.
        """
        is_for_all = self.series is not None or meter.is_due_by_policy
        self.mark_due(Reporting.DUE if is_for_all else Reporting.DUE_HERE)

    def check_due(self, transfer: Transfer) -> None:
        """Ask for a report if the upload's next gate is reached; else arm *transfer* again."""
        if self.series is None:
            self._mark_reached(self.meter)
            return
        self.observe(self.context.now())
        if self.meter.received_bytes >= self.meter.gate_bytes:
            self.mark_due()
        elif self.reporting is not Reporting.DUE:
            self._arm(transfer)

    def _arm(self, *transfers: Transfer) -> None:
        """Divide the bytes that are missing to the upload's next gate among its transfers."""
        missing = self.meter.gate_bytes - self.meter.received_bytes
        share = max(1, missing // max(1, len(self.transfers)))
        for transfer in transfers:
            transfer.arm(NEVER if self.is_ended or self.reporting is Reporting.DUE else share)

    def begin_version(self, now: Moment) -> None:
        """Begin the next version of the record, and arm the meters for the one after it."""
        is_ended = self.is_ended
        if not is_ended:
            self._update_rate(now)
        is_here_only = (
            self.reporting is Reporting.DUE_HERE
            and self.has_prior_state
            and not self.meter.is_due_by_policy
            and self.sequence - self._shared_sequence < MAX_UNSTORED_VERSIONS
        )
        self.sequence += 1
        self._reports += 1
        if not is_here_only:
            self._shared_sequence = self.sequence
            self._least_seconds = self.context.budget.reserve(
                now.monotonic, is_watched=self.meter.watched_seconds is not None
            )
        if is_ended:
            self._stop_meter()
        else:
            self._rearm(now.monotonic)

    def begin_first_version(self) -> None:
        """Note that the upload is shown, if its first version has not begun yet."""
        self.sequence, self._reports = max(self.sequence, 1), max(self._reports, 1)

    def _stop_meter(self) -> None:
        """Report nothing more; what still arrives is passed to the middleware."""
        if self.reporting is Reporting.DUE:
            self.reporting = Reporting.ENDED
        self.meter.gate_bytes = 0

    def _update_rate(self, now: Moment) -> None:
        self.observe(now)
        if self.activity is not None:
            self.activity.update_rate(now.monotonic)

    def _rearm(self, monotonic: float) -> None:
        """Set the gates of the next report."""
        if self.reporting is Reporting.DUE or self.reporting is Reporting.DUE_HERE:
            self.reporting = Reporting.CURRENT
        if self.is_shared:
            self._reported_at = monotonic
            self.meter.rearm(self._least_seconds)
            if self.current_stage is not None:
                self.current_stage.meter.rearm(self._least_seconds)
            if self.stored is not None:
                self.stored.meter.rearm(self._least_seconds)
        else:
            self.meter.rearm_watched(monotonic - self._reported_at)
        if self.activity is not None and (self.activity.is_silent or self.activity.is_stalled):
            self.meter.await_next_byte()
        if self.series is not None:
            self._arm(*self.transfers)

    # Time

    @property
    def wire_bytes(self) -> int:
        """All body bytes that this worker has received, useful or not; a task receives none."""
        if self.inherited is not None:
            return 0
        if self.series is None:
            return self.meter.received_bytes
        arriving = sum(each.meter.received_bytes for each in self.transfers)
        return self.series.finished_bytes + arriving

    @property
    def _is_waiting(self) -> bool:
        """Whether the application waits for more bytes."""
        if self.series is None:
            return self.meter.is_waiting
        return any(transfer.meter.is_waiting for transfer in self.transfers)

    def observe(self, now: Moment) -> None:
        """Update rate, last byte and stall from the number of bytes received so far."""
        if self.series is not None and not self.is_ended:
            self.meter.received_bytes = max(self.meter.received_bytes, self.count_received())
        if self.activity is None or self.state is not UploadState.RECEIVING:
            return
        has_changed = self.activity.observe(
            now.monotonic,
            now.wall,
            self.wire_bytes,
            self.context.config.stall_after_seconds,
            is_waiting=self._is_waiting,
        )
        if has_changed:
            self.mark_due()

    def tick(self) -> float | None:
        """Observe; ask for a report if the policy's interval is over; pause without requests.

        Returns:
            When to call this again, in monotonic seconds; None for never.
        """
        if self.is_ended or self.is_idle or self.is_superseded:
            return None
        if self.series is not None and not self.transfers:
            return self._pause_after_a_while()
        moment = self.context.now()
        self.observe(moment)
        now = moment.monotonic
        meter = self.meter if self.current_stage is None else self.current_stage.meter
        silent_seconds = now - self._reported_at
        if self.activity is not None and silent_seconds >= OBSERVE_SECONDS:
            self.activity.update_rate(now)
        if self.reporting is not Reporting.DUE and meter.elapse(silent_seconds):
            self._mark_reached(meter)
        if self.stored is not None and self.stored.meter.elapse(silent_seconds):
            self.mark_due()
        if self.series is not None:
            self._arm(*self.transfers)
        if self.activity is None or self.state is not UploadState.RECEIVING:
            return now + OBSERVE_SECONDS
        # A report that is due will be made now: the next one is counted from here.
        is_due = self.reporting is Reporting.DUE
        since, passed = (now, 0.0) if is_due else (self._reported_at, silent_seconds)
        gates = [since + seconds for seconds in self.meter.later_than(passed)]
        return self.activity.next_observation(now, gates, self.context.config.stall_after_seconds)

    def _pause_after_a_while(self) -> float | None:
        pause_at = self.held_series.idle_since + PAUSE_AFTER_SECONDS
        if self.context.config.clock.monotonic() < pause_at:
            return pause_at
        self.pause()
        return None

    def pause(self) -> None:
        """Wait for the next request, unless one is in progress."""
        state = next_state(self.state, Signal.PAUSE)
        if state is not None and not self.transfers:
            self.observe(self.context.now())
            self.state = state
            self.current_stage = None
            self.mark_due()

    # An upload in several requests

    def all_ranges(self) -> list[ByteRange]:
        """Return what has arrived at all workers, without the transfers in progress here."""
        return self.held_series.all_ranges(self.prior_records)

    def place(self, transfer: Transfer) -> int:
        """Determine where the bytes of *transfer* begin; return the end of its part."""
        return self.held_series.place(transfer, self.prior_records, are_loaded=self.has_prior_state)

    def arriving(self) -> list[ByteRange]:
        """Return what has arrived of the transfers in progress."""
        ranges = (transfer.byte_range(self.place(transfer)) for transfer in self.transfers)
        return [each for each in ranges if each is not None]

    def unfinished_ranges(self) -> list[ByteRange]:
        """Return what has arrived of the transfers in progress, now or when the upload ended."""
        return list(self.held_series.arrived) if self.is_ended else self.arriving()

    def count_received(self) -> int:
        """Return how many bytes have arrived at all workers."""
        return self.held_series.count_received(self.arriving(), self.prior_records)

    @property
    def is_divided(self) -> bool:
        """Whether each part announces its own size: then a final request completes the upload."""
        return self.held_series.is_divided(self.prior_records)

    @property
    def is_whole(self) -> bool:
        """Whether the application has accepted all bytes, if that completes the upload."""
        return not self.is_ended and self.held_series.is_whole(self.prior_records)

    @property
    def waits_for_completion(self) -> bool:
        """Whether another worker is expected to report that all bytes are there."""
        series = self.series
        return (
            series is not None
            and series.whole_since is not None
            and self.is_whole
            and not self.transfers
        )

    @property
    def idle_at(self) -> float:
        """When its last request ended, in seconds since the epoch."""
        now = self.context.now()
        return now.wall - (now.monotonic - self.held_series.idle_since)

    @property
    def is_failed_creation(self) -> bool:
        """Whether its request was to create an upload, and has not done so."""
        is_ended = self.opened_by.phase is TransferPhase.ENDED
        is_successful = self.opened_by.result in CONTINUES or self.opened_by.is_accepted
        return self.opened_by.kind is TransferKind.CREATE and is_ended and not is_successful
