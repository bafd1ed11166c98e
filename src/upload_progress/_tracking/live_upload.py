"""A live upload: the newest state of an upload that this process receives.

A ``LiveUpload`` is a state machine with a description and its transfers: one for an upload in one
request, any number for an upload in several requests (tus, Content-Range, OCI, S3, IETF), which
also has `ReceivedRanges`. All requests of an upload that reach one worker are transfers of one
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

from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field, frozen

from upload_progress._model.activity import OBSERVE_SECONDS, Activity, judge_arrival
from upload_progress._model.byte_ranges import (
    contiguous_end,
    count_accepted,
    count_bytes,
    sum_of_part_sizes,
    with_confirmed,
)
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
    ABANDONED,
    ABORTED,
    CANCELLED,
    DISCONNECTED,
    FINAL_STATES,
    RAISED,
    TASK_STOPPED,
    Signal,
    is_waiting,
    next_state,
    result_of,
)
from upload_progress._model.version import MAX_UNSTORED_VERSIONS
from upload_progress._runtime.worker import SEPARATOR
from upload_progress._tracking.hand_over import Handed
from upload_progress._tracking.received_ranges import ReceivedRanges
from upload_progress._tracking.stage import BEGIN_LOCK, StageHandle, StoredBytes
from upload_progress._tracking.status import Moment, PriorState, Reporting
from upload_progress._tracking.store_budget import StoreBudget
from upload_progress._tracking.transfer import CONTINUES, Transfer, TransferPhase
from upload_progress.config import TrackerConfig
from upload_progress.identity import Identity
from upload_progress.protocols import (
    Headers,
    TransferKind,
    TransferOutcome,
    TransferResult,
    is_success,
    upload_id_for,
)
from upload_progress.throttling import NEVER, Meter

__all__ = [
    "DESCRIPTION",
    "FAILURE_MESSAGE_CHARACTERS",
    "PAUSE_AFTER_SECONDS",
    "STORED_WITHIN_SECONDS",
    "LiveUpload",
    "UploadContext",
]

FAILURE_MESSAGE_CHARACTERS: Final = 1000
PAUSE_AFTER_SECONDS: Final = 2.0
"""How long after its last request an upload in several requests is reported as receiving."""
STORED_WITHIN_SECONDS: Final = 0.5
"""How long after a request the record that another worker has of its upload may not be stored."""
DESCRIPTION: Final = ("filename", "content_type", "metadata", "group")
_ERROR_AFTER_SUCCESS: Final = "The server reported an error in the body of its response."
_CONCERN_OTHERS: Final = frozenset({TransferKind.COMPLETE, TransferKind.QUERY})
"""Requests that say something about bytes which others have brought."""


@frozen(eq=False, repr=False, kw_only=True)
class UploadContext:
    """The part of a tracker that a live upload calls.

    Attributes:
        config: The settings of the tracker.
        on_due: Called with an upload that has something to report.
        on_ended: Called with an upload, tracked or not, that has just ended.
        on_superseding: Called with an upload whose prior state shows an older upload of the same id
            that other workers still receive, and with the names of these workers.
        admit: Tracks an upload for an identity; returns whether there was room.
        remember_resource: Called with owner, resource id and upload id: requests of that owner to
            that resource belong to that upload.
        on_stage: Called with an upload that shows another stage, or none.
        budget: How many records may be written.
    """

    config: TrackerConfig
    on_due: Callable[["LiveUpload"], None]
    on_ended: Callable[["LiveUpload"], None]
    on_superseding: Callable[["LiveUpload", frozenset[str]], None]
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
        begun_by: The newest one that may begin another attempt after an end.
        begun_at: When it began, in seconds since the epoch, if its owner was known late.
        newest_number: The number of its newest request.
        ended_after: The number of the newest request of any upload when this one ended.
        record_name: The name of its record, if that is not its own number at this worker.
        transfers: The requests that carry the upload at this worker at the moment.
        ranges: The bytes of finished requests; None for an upload in one request.
        has_path_name: Whether its file name is only a segment of the path: any other one is better.
        limit_key: By what the limit of tracked uploads counts it, see ``Identity.limit_key``.
        meter: The bytes received, and when the next report is due.
        resource_id: The id of its resource, if the upload is known by another id.
        finished_bytes: How many body bytes of finished requests this worker has received.
        idle_since: When its last request has ended, in monotonic seconds.
        repeated_bytes: How many bytes arrived that had arrived before, or were refused.
        merged_into: The upload of which the request turned out to be a part.
        prior_records: The records of this attempt that others have stored.
        preceding: The end of the attempt before, if this worker may have to store it yet.
        completes_at_total: Whether all bytes complete it, by one of its requests.
        loaded_version_at: When the last request before the record that was loaded had ended, in
            seconds since the epoch.
        previous_ended_at: When the attempt before has ended, in seconds since the epoch.
        session: The session of its requests, see ``TransferRecord``.
        former_sessions: The sessions of uploads that this one has replaced.
        whole_since: Since when, in monotonic seconds, this worker waits for another one that knows
            as well that all bytes are there, and reports the completion.
        is_late: Whether its owner was not known before a byte could arrive.
        has_late_bytes: Whether it has ended elsewhere before all bytes of this worker were stored.
        handed: That the application wants to hand over the upload with its answer.
        hand_over: That it was handed over, or that this process has resumed it.
        inherited: The record that this process has taken over.
        stored: The bytes that the application has passed on; None if it reports nothing.
    """

    number: int
    upload_id: str
    opened_by: Transfer
    meter: Meter
    context: UploadContext
    worker: str
    record_name: str | None = None
    ranges: ReceivedRanges | None = None
    owner: str | None = None
    limit_key: str | None = None
    resource_id: str | None = None
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
    begun_by: Transfer = field(init=False)
    begun_at: float | None = field(default=None, init=False)
    newest_number: int = field(init=False)
    completes_at_total: bool = field(init=False)
    loaded_version_at: float = field(default=0.0, init=False)
    previous_ended_at: float | None = field(default=None, init=False)
    session: str | None = field(init=False)
    former_sessions: frozenset[str] = field(default=frozenset(), init=False)
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
    has_late_bytes: bool = field(default=False, init=False)
    is_late: bool = field(default=False, init=False)
    finished_bytes: int = field(default=0, init=False)
    repeated_bytes: int = field(default=0, init=False)
    handed: Handed | None = field(default=None, init=False)
    hand_over: HandOver | None = field(default=None, init=False)
    inherited: TransferRecord | None = field(default=None, init=False)
    stored: StoredBytes | None = field(default=None, init=False)
    _claimant: Identity | None = field(default=None, init=False)
    set_by_app: frozenset[str] = field(default=frozenset(), init=False)
    _reports: int = field(default=0, init=False)
    _shared_sequence: int = field(default=0, init=False)
    _reported_at: float = field(default=0.0, init=False)
    _least_seconds: float = field(default=0.0, init=False)
    _final_bytes: int | None = field(default=None, init=False)
    # Only for an upload in several requests: whether the application has confirmed that it exists,
    # the last transfer whose meaning depends on that, what had arrived of transfers in progress
    # when it ended, and when the last request ended.
    exists: bool = field(default=False, init=False)
    _undecided: Transfer | None = field(default=None, init=False)
    has_inherited_total: bool = field(default=False, init=False)
    whole_since: float | None = field(default=None, init=False)
    _arrived: tuple[ByteRange, ...] = field(default=(), init=False)
    idle_since: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the transfer that opened the upload."""
        self.transfers = (self.opened_by,)
        self.begun_by = self.opened_by
        self.newest_number = self.number
        head = self.opened_by.head
        self.session = None if head is None else self.opened_by.session
        self.completes_at_total = head is not None and head.completes_at_total

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
        return self.prior_state is not PriorState.UNKNOWN

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
        if is_completion and self.held_ranges.sum_of_part_sizes:
            # Now all parts have announced their sizes.
            self.set_total(self.held_ranges.sum_of_part_sizes)
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
        if self.ranges is None or (transfer in self.transfers and self._ends_with(transfer)):
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

    def finish(self, status: int | None, transfer: Transfer | None = None) -> None:
        """End a transfer by the response of the application, or without HTTP (*status* None)."""
        transfer = transfer or self.opened_by
        if self.ranges is not None and status is not None:
            if transfer in self.transfers:
                self.end_transfer(transfer, transfer.final_outcome(status))
            return
        has_whole_body = self.state is UploadState.PROCESSING
        signal, error = result_of(
            status, transfer.failure_message, has_whole_body=has_whole_body, reason=transfer.reason
        )
        if signal is Signal.REDIRECT:
            self._redirect(transfer)
        else:
            self._end(signal, error)

    def _redirect(self, transfer: Transfer) -> None:
        """Wait for the client to repeat the request elsewhere: nothing of this one counts."""
        state = next_state(self.state, Signal.REDIRECT)
        if state is None:
            return
        self.state, self.current_stage, self.activity, self.arrival = state, None, None, None
        self._final_bytes = 0
        self._remove(transfer)
        self.mark_due()

    def app_raised(self, transfer: Transfer | None = None) -> None:
        """End a transfer by an exception of the application, which keeps none of its bytes.

        The text of the exception is left to the server's log. In several requests the client may
        try again. An exception after the response changes nothing.
        """
        transfer = transfer or self.opened_by
        if self.ranges is not None:
            if transfer in self.transfers:
                transfer.status = None
                self.end_transfer(transfer, TransferOutcome(TransferResult.REFUSED))
        elif transfer.failure_message is None:
            self._end(Signal.RAISE, RAISED)
        else:
            self.finish(None, transfer)

    def app_cancelled(self, transfer: Transfer | None = None) -> None:
        """End a transfer because the server cancelled the task of the application.

        In several requests it counts as a broken connection: the application has not refused it.
        """
        if self.ranges is not None:
            self.end_transfer(transfer or self.opened_by, None)
        elif self.hand_over is not None:
            self._end(Signal.RAISE, TASK_STOPPED)
        else:
            self._end(Signal.CANCEL, ABORTED)

    def client_disconnected(self, transfer: Transfer | None = None) -> None:
        """End a transfer by the client's disconnect; after the last byte this changes nothing."""
        transfer = transfer or self.opened_by
        if self.ranges is None:
            self._end(Signal.DISCONNECT, DISCONNECTED)
        elif transfer.phase in {TransferPhase.OPEN, TransferPhase.RECEIVING}:
            self.end_transfer(transfer, None)

    def cancel(self) -> None:
        """End by the owner's wish, and stop the running transfers.

        It is too late if the client receives the response to the whole body already.
        """
        if self.ranges is None and self.opened_by.phase is TransferPhase.RESPONDING:
            return
        transfers = self.transfers
        if self._end(Signal.CANCEL, CANCELLED):
            for transfer in transfers:
                transfer.stop()

    def track(self, upload_id: str, owner: str) -> None:
        """Report the upload from now on, under that id to that owner."""
        self.upload_id, self.owner = upload_id, owner
        self.reporting = Reporting.CURRENT
        if self.ranges is not None:
            self.decide()
        self.mark_due()

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

    def _remove(self, transfer: Transfer) -> None:
        transfer.phase = TransferPhase.ENDED
        self.transfers = tuple(each for each in self.transfers if each is not transfer)

    def _end(self, signal: Signal, error: UploadError | None) -> bool:
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
        if self.ranges is not None:
            # Transfers in progress count as far as they have come.
            self._arrived = tuple(self._arriving())
        self.state, self.error, self.current_stage = state, error, None
        self._final_bytes = self.meter.received_bytes
        self.finished_at = now.wall if state in FINAL_STATES else None
        for transfer in self.transfers:
            self.finished_bytes += transfer.meter.received_bytes
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
        if seconds is not None and self.ranges is not None:
            seconds = max(seconds, self._least_seconds)
        self.meter.watched_seconds = seconds

    def mark_due(self, due: Reporting = Reporting.DUE) -> None:
        """Ask for a report, unless one is due already or the end was reported."""
        before = self.reporting
        is_current = before is Reporting.CURRENT
        if not is_current and before is not due and before is not Reporting.DUE_HERE:
            return
        self.meter.gate_bytes = NEVER
        if self.ranges is not None:
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
        is_for_all = self.ranges is not None or meter.is_due_by_policy
        self.mark_due(Reporting.DUE if is_for_all else Reporting.DUE_HERE)

    def check_due(self, transfer: Transfer) -> None:
        """Ask for a report if the upload's next gate is reached; else arm *transfer* again."""
        if self.ranges is None:
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
        if self.ranges is not None:
            self._arm(*self.transfers)

    # Time

    @property
    def wire_bytes(self) -> int:
        """All body bytes that this worker has received, useful or not; a task receives none."""
        if self.inherited is not None:
            return 0
        if self.ranges is None:
            return self.meter.received_bytes
        return self.finished_bytes + sum(each.meter.received_bytes for each in self.transfers)

    @property
    def _is_waiting(self) -> bool:
        """Whether the application waits for more bytes."""
        if self.ranges is None:
            return self.meter.is_waiting
        return any(transfer.meter.is_waiting for transfer in self.transfers)

    def observe(self, now: Moment) -> None:
        """Update rate, last byte and stall from the number of bytes received so far."""
        if self.ranges is not None and not self.is_ended:
            self.meter.received_bytes = max(self.meter.received_bytes, self._count_received())
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
        if self.ranges is not None and not self.transfers:
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
        if self.ranges is not None:
            self._arm(*self.transfers)
        if self.activity is None or self.state is not UploadState.RECEIVING:
            return now + OBSERVE_SECONDS
        # A report that is due will be made now: the next one is counted from here.
        is_due = self.reporting is Reporting.DUE
        since, passed = (now, 0.0) if is_due else (self._reported_at, silent_seconds)
        gates = [since + seconds for seconds in self.meter.later_than(passed)]
        return self.activity.next_observation(now, gates, self.context.config.stall_after_seconds)

    def _pause_after_a_while(self) -> float | None:
        pause_at = self.idle_since + PAUSE_AFTER_SECONDS
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

    # An upload in several requests: bytes

    @property
    def held_ranges(self) -> ReceivedRanges:
        assert self.ranges is not None  # noqa: S101  # an upload in several requests
        return self.ranges

    def all_ranges(self) -> list[ByteRange]:
        """Return what has arrived at all workers, without the transfers in progress here."""
        own, others = self.held_ranges, self.prior_records
        held = max([own.confirmed_bytes, *(record.confirmed_bytes for record in others)])
        known = [*own.entries(), *(each for record in others for each in record.byte_ranges)]
        return with_confirmed([*known, *([("", 0, held, True)] if held else [])])

    def _end_of(self, part: str) -> int:
        """Return up to which byte *part* has arrived at all workers without a gap."""
        if not self.prior_records:
            return self.held_ranges.end_of(part)
        return contiguous_end(self.all_ranges(), part)

    def _place(self, transfer: Transfer) -> int:
        """Determine where the bytes of *transfer* begin; return the end of its part.

        If its head does not say it, they begin after what has arrived.
        """
        end, head = self._end_of(transfer.part), transfer.head
        if head is None or transfer.start is not None:
            return end
        if head.offset is not None:
            transfer.start = head.offset
        elif self.has_prior_state:
            transfer.start = end
            if head.is_last and end == 0 and head.length is not None:
                # This request brings the whole upload, unless it is refused.
                self.set_total(head.length)
                self.has_inherited_total = True
        return end

    def _arriving(self) -> list[ByteRange]:
        """Return what has arrived of the transfers in progress."""
        ranges = (transfer.byte_range(self._place(transfer)) for transfer in self.transfers)
        return [each for each in ranges if each is not None]

    def unfinished_ranges(self) -> list[ByteRange]:
        """Return what has arrived of the transfers in progress, now or when the upload ended."""
        return list(self._arrived) if self.is_ended else self._arriving()

    def _count_received(self) -> int:
        arriving, total = self._arriving(), self.meter.total_bytes
        if self.prior_records:
            received = count_bytes([*self.all_ranges(), *arriving])
        else:
            received = self.held_ranges.count_with(arriving)
        if total is not None and received > total and self.has_inherited_total:
            self.meter.total_bytes = None
        return received

    @property
    def is_divided(self) -> bool:
        """Whether each part announces its own size: then a final request completes the upload."""
        others = (each for record in self.prior_records for each in record.byte_ranges)
        own = self.held_ranges.sum_of_part_sizes
        return own is not None or sum_of_part_sizes(others) is not None

    @property
    def is_whole(self) -> bool:
        """Whether the application has accepted all bytes, if that completes the upload.

        Requests in progress may end first, but none can fail the upload any more.
        """
        total = self.meter.total_bytes
        if self.is_ended or total is None:
            return False
        if not self.completes_at_total or self.is_divided:
            return False
        if not self.prior_records:
            return self.held_ranges.accepted_bytes >= total
        return count_accepted(self.all_ranges()) >= total

    def learn_session(self, session: str | None) -> None:
        """Remember the session of a request, unless it is known with certainty."""
        is_certain = session is not None and not session.startswith(".")
        if self.session is None or (is_certain and self.session.startswith(".")):
            self.session = session

    def set_total(self, total_bytes: int) -> None:
        """Set the size of the upload, unless it is known."""
        if self.meter.total_bytes is None or self.has_inherited_total:
            self.meter.total_bytes = total_bytes
            self.has_inherited_total = False

    # An upload in several requests: requests

    def read_response(self, transfer: Transfer, status: int, headers: Headers) -> bool:
        """Read the head of the response; return whether it is the first to tell of the upload."""
        resource, head = transfer.read_response(status, headers), transfer.head
        if transfer.kind is TransferKind.QUERY:
            return not transfer.is_refused
        if resource is None or head is None:
            return False
        self.learn_session(transfer.session)
        self._bind_resource(upload_id_for(head, resource), transfer)
        if transfer.names_upload and head.part_total_bytes is not None:
            self.held_ranges.add_part_size(transfer.part, head.part_total_bytes)
            self.mark_due()
        return True

    def _bind_resource(self, resource_id: str, transfer: Transfer) -> None:
        """Let further requests of the owner to the resource belong to this upload."""
        self.resource_id = resource_id
        if self.is_tracked and self.owner is not None:
            self.context.remember_resource(self.owner, resource_id, self.upload_id)
        elif not transfer.names_upload:
            self.upload_id = resource_id
            self.prior_state = PriorState.UNKNOWN

    def end_transfer(self, transfer: Transfer, outcome: TransferOutcome | None) -> None:
        """Record the outcome of *transfer*; None if it broke off without a response."""
        if transfer not in self.transfers:
            return
        self._remove(transfer)
        now = self.context.now()
        transfer.outcome = outcome
        transfer.ended_at = transfer.ended_at or now.wall
        self.finished_bytes += transfer.meter.received_bytes
        self.idle_since = now.monotonic
        self._add_outcome(transfer)
        self._change_state(transfer)
        is_query = transfer.kind is TransferKind.QUERY
        if transfer.result in CONTINUES and not (is_query and self.started_at is None):
            self.exists = True
        self.decide()
        self.mark_due()

    def _add_outcome(self, transfer: Transfer) -> None:
        """Add the bytes that the application has, and count those of no use as repeated."""
        ranges, outcome, gained = self.held_ranges, transfer.outcome, 0
        kept = transfer.kept_range(self._place(transfer))
        if kept is not None:
            part, start, stop, is_accepted = kept
            microseconds = round(1_000_000 * (transfer.ended_at or 0.0))
            gained = ranges.add(
                part, start, stop, is_accepted=is_accepted, microseconds=microseconds
            )
            if transfer.replaces_part and not ranges.has_number(part):
                ranges.accept_until(part, stop)
        self.repeated_bytes += max(0, transfer.content_bytes - gained)
        head = transfer.head
        if head is not None and head.is_sequential and transfer.is_accepted and head.offset:
            # Such a server accepts bytes only at the end of those that it has.
            ranges.confirm(transfer.part, head.offset)
        if outcome is not None and outcome.offset is not None and head is not None:
            is_exact = head.is_sequential or not ranges.has_unconfirmed(transfer.part)
            if is_exact and not transfer.is_outdated:
                # It has these bytes and no others.
                ranges.accept_until(transfer.part, outcome.offset)
            ranges.confirm(transfer.part, outcome.offset)
        asks_for_part = transfer.kind is TransferKind.QUERY and self.is_divided
        if outcome is not None and outcome.total_bytes is not None and not asks_for_part:
            self.set_total(outcome.total_bytes)
        self.meter.received_bytes = self._count_received()

    def _change_state(self, transfer: Transfer) -> None:
        """Change the state by the outcome of *transfer*, as far as it says it alone."""
        kind, result = transfer.kind, transfer.result
        if kind is TransferKind.QUERY and result is not TransferResult.COMPLETED:
            self._answer_query(transfer)
            return
        before = self._undecided
        is_kept = before is not None and (
            before.is_accepted
            or before.result is TransferResult.ABORTED
            or (before.is_rejected and transfer.is_refused)
        )
        if not is_kept and (transfer.is_refused or self.has_prior_state):
            self._undecided = transfer if transfer.is_refused else None
        if transfer.failure_message is not None:
            self._end(*result_of(None, transfer.failure_message, has_whole_body=False))
        elif result is TransferResult.COMPLETED:
            if kind in _CONCERN_OTHERS and not (self.exists or self.transfers):
                self._undecided = transfer
            else:
                self._complete(transfer)
        elif result is TransferResult.ABORTED:
            self._undecided = transfer
        elif transfer.outcome is None and kind is TransferKind.CREATE:
            if not self._end(Signal.DISCONNECT, DISCONNECTED):
                self._end(Signal.RAISE, ABORTED)
        elif result not in CONTINUES or self.state is UploadState.PROCESSING:
            self.pause()

    def decide(self) -> None:
        """Complete an upload that is whole, fail or drop one that was refused."""
        last = self._undecided
        if self.is_ended or self.has_ended_elsewhere:
            return
        if (last is None or self.exists) and self.is_whole:
            if not self.transfers:
                self._complete(None)
        elif last is None:
            return
        elif last.result is TransferResult.ABORTED:
            self._abandon()
        elif self.exists or (self.transfers and last.concerns_parts):
            if last.is_rejected:
                self._reject(last)
            elif last.result is TransferResult.COMPLETED and self.exists:
                self._complete(None)
        elif self.has_prior_state and not self.transfers:
            self._decide_unknown(last)

    def _decide_unknown(self, last: Transfer) -> None:
        """Decide about an upload of which the application had accepted nothing before *last*."""
        is_lost = last.kind is TransferKind.CREATE and not last.names_upload
        is_over = self.is_reported and (last.is_rejected or is_lost)
        if self._may_be_stored_soon():
            self.prior_state = PriorState.UNKNOWN
            return
        # An attempt after one that has ended does not bring that one back.
        head = self.opened_by.head
        is_first = last.kind is TransferKind.CREATE or (head and not head.resource_is_unique)
        is_next = self.attempt > 1 and last.kind is not TransferKind.QUERY and is_first
        is_known = self.is_reported or self.newest_number != self.number
        if last.is_accepted and is_known:
            self._complete(None)
        elif last.fails_new_upload or (last.is_refused and (is_over or is_next)):
            self._reject(last)
        elif not self.is_reported:
            # The request has created no upload.
            self.supersede()

    def _may_be_stored_soon(self) -> bool:
        """Return whether another worker may have created the upload, and not stored it yet."""
        head = self.opened_by.head
        if head is None or not head.resource_is_unique or head.kind is TransferKind.CREATE:
            return False
        passed = self.context.config.clock.monotonic() - self.idle_since
        return not self.is_reported and passed < STORED_WITHIN_SECONDS

    @property
    def is_undecided(self) -> bool:
        """Whether it is not known yet if the only request belongs to an upload."""
        if self.has_prior_state or self._undecided is None or self.transfers:
            return False
        return self._may_be_stored_soon()

    def _abandon(self) -> None:
        """End because the client gave the upload up, once it is known that it was not whole."""
        if self.has_prior_state:
            self.begin_receiving()
            self._end(Signal.CANCEL, ABANDONED)

    def _reject(self, transfer: Transfer) -> None:
        """End by the response to *transfer*, or by the exception that was raised instead."""
        self._undecided = None
        self.begin_receiving()
        signal, error = _rejection_of(transfer)
        if signal is Signal.REDIRECT:
            self._redirect(transfer)
        else:
            self._end(signal, error)
            self.finished_at = self.idle_at

    @property
    def idle_at(self) -> float:
        """When its last request ended, in seconds since the epoch."""
        now = self.context.now()
        return now.wall - (now.monotonic - self.idle_since)

    def _complete(self, transfer: Transfer | None) -> None:
        """Complete the upload.

        Args:
            transfer: The request whose response says so; None if that follows from the bytes. The
                application has all bytes, unless it says so before the last one has arrived.
        """
        head, total = None if transfer is None else transfer.head, self.meter.total_bytes
        if total is not None and self.held_ranges.accepted_bytes > total:
            total = self.meter.total_bytes = None
        if total is not None and (head is None or head.is_last or head.kind in _CONCERN_OTHERS):
            self.held_ranges.confirm("", max(0, total - count_bytes(self._named_ranges())))
            self.meter.received_bytes = total
        self.begin_receiving()
        self._end(Signal.ACCEPT, None)
        if transfer is None:
            stored_at = (record.updated_at for record in self.prior_records)
            self.finished_at = max([self.idle_at, *stored_at])

    def _named_ranges(self) -> list[ByteRange]:
        """Return what has arrived of parts with names, at all workers."""
        return [each for each in self.all_ranges() if each[0]]

    def _answer_query(self, transfer: Transfer) -> None:
        """Learn the name, and that the upload exists, from the answer to a request that only asks.

        An upload of which nothing is missing needs no report: its end was reported, or is unknown.
        """
        outcome = transfer.outcome
        if outcome is None or outcome.result is not TransferResult.ACCEPTED:
            self._undecided = self._undecided or transfer
            return
        self.filename = self.filename or outcome.filename
        self.content_type = self.content_type or outcome.content_type
        is_open = outcome.offset is not None and outcome.offset != self.meter.total_bytes
        if is_open and self.state is UploadState.PENDING:
            self.begin_receiving()
            self.pause()
        elif not (is_open or self.exists):
            self._undecided = transfer

    @property
    def is_completed_by_request(self) -> bool:
        """Whether a request has completed an upload of which nothing else was known before."""
        return self._undecided is not None and self._undecided.is_accepted

    @property
    def is_refused(self) -> bool:
        """Whether the last request was refused, and nothing has been accepted since."""
        return self._undecided is not None and self._undecided.is_refused

    @property
    def is_failed_creation(self) -> bool:
        """Whether its request was to create an upload, and has not done so."""
        is_ended = self.opened_by.phase is TransferPhase.ENDED
        is_successful = self.opened_by.result in CONTINUES or self.opened_by.is_accepted
        return self.opened_by.kind is TransferKind.CREATE and is_ended and not is_successful


def _rejection_of(transfer: Transfer) -> tuple[Signal, UploadError | None]:
    """Return the end by a response that rejects, or by an exception instead of a response."""
    status = transfer.status
    if status is None:
        return Signal.RAISE, RAISED
    message = _ERROR_AFTER_SUCCESS if is_success(status) else None
    return result_of(status, message, has_whole_body=False, reason=transfer.reason)
