"""An upload in several requests (tus, Content-Range, OCI, S3, IETF), as one worker sees it.

All requests of an upload that reach one worker are *transfers* of one ``MultiRequestUpload``,
which writes one record: an upload has as many records as workers, however many parts it has. The
record lists the byte ranges that arrived (see ``byte_ranges``), so that the fold over the records
of all workers counts no byte twice.

Each transfer has its own meter, which counts the chunks of its request as for any upload; the bytes
that are missing until the next report of the upload are divided among the transfers.

A transfer that breaks off does not fail the upload. Between two requests the upload stays
``receiving`` for a moment, then it is ``paused``; only the response of the application, as the
protocol defines it, completes it. Bytes of a sequential protocol that start beyond the end of what
has arrived are counted only after the application's response, which will probably refuse them.
"""

from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, evolve, field

from upload_progress._model.activity import Activity
from upload_progress._model.byte_ranges import (
    confirmed,
    contiguous_end,
    count_bytes,
    merge,
    part_size,
    sum_of_part_sizes,
    with_confirmed,
    without_unaccepted_after,
)
from upload_progress._model.fold import fold, newest
from upload_progress._model.models import (
    ByteRange,
    Metadata,
    TransferRecord,
    UploadError,
    UploadProgress,
    UploadState,
)
from upload_progress._model.state import (
    CANCELLED,
    DISCONNECTED,
    RAISED,
    Signal,
    is_final,
    is_receiving,
    is_waiting,
    next_state,
    result_of,
)
from upload_progress._tracking.live_upload import LiveUpload, Moment
from upload_progress._tracking.stage import StageHandle
from upload_progress.protocols import (
    MAX_BODY_BYTES,
    Headers,
    ReadsResponseBody,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    is_success,
    part_name,
    upload_id_for,
)
from upload_progress.throttling import NEVER, Meter

__all__ = ["PAUSE_AFTER_SECONDS", "MultiRequestUpload", "Transfer"]

PAUSE_AFTER_SECONDS: Final = 2.0
"""How long after its last request an upload is still reported as receiving."""

_ACCEPTED: Final = frozenset({TransferResult.ACCEPTED, TransferResult.COMPLETED})
_CONTINUES: Final = frozenset({TransferResult.ACCEPTED, TransferResult.CREATED})
_REFUSALS: Final = frozenset({TransferResult.REFUSED, TransferResult.REJECTED})
_SERVER_ERRORS: Final = range(500, 600)
_NOT_THERE: Final = frozenset({404, 410})
_ERROR_AFTER_SUCCESS: Final = "The server reported an error in the body of its response."


@define(eq=False, repr=False, kw_only=True)
class MultiRequestUpload(LiveUpload):
    """An upload in several requests; see the module.

    Attributes:
        head: The request head for which this object was created.
        transfers: The requests that carry the upload at this worker at the moment.
        ranges: The byte ranges of finished requests.
        confirmed_bytes: How many bytes from the start the application said it has.
        repeated_bytes: How many bytes arrived that had arrived before, or were refused.
        resource_id: The id of its resource, if the upload is known by another id.
        has_requested_id: Whether the client has named the upload.
        finished_bytes: How many body bytes of finished requests this worker has received.
        ended_elsewhere: Whether it has ended according to another worker's record.
    """

    head: TransferHead
    transfers: "dict[Transfer, None]" = field(factory=dict)
    ranges: tuple[ByteRange, ...] = ()
    confirmed_bytes: int = 0
    repeated_bytes: int = 0
    resource_id: str | None = None
    has_requested_id: bool = False
    ended_elsewhere: bool = False
    finished_bytes: int = 0
    _ends: dict[str, int] = field(factory=dict)
    _exists: bool = False
    _last_refusal: "Transfer | None" = None
    _was_joined: bool = False
    _is_committed: bool = False
    _idle_since: float = 0.0

    # Bytes

    @property
    def _all_ranges(self) -> list[ByteRange]:
        """What has arrived at all workers, without the transfers in progress here."""
        confirmed = [record.confirmed_bytes for record in self.prior_records]
        held = max([*confirmed, self.confirmed_bytes])
        others = (each for record in self.prior_records for each in record.byte_ranges)
        return with_confirmed([*others, *self.ranges, *([("", 0, held, True)] if held else [])])

    def end_of(self, part: str) -> int:
        """Return up to which byte *part* has arrived at all workers without a gap."""
        return contiguous_end(self._all_ranges, part)

    def _arriving(self) -> list[ByteRange]:
        ranges = (transfer.byte_range() for transfer in self.transfers)
        return [each for each in ranges if each is not None]

    def _count_received(self) -> int:
        ranges = self._all_ranges
        received = count_bytes([*ranges, *self._arriving()])
        total = self.meter.total_bytes = sum_of_part_sizes(ranges) or self.meter.total_bytes
        return received if total is None else min(received, total)

    @property
    def _wire_bytes(self) -> int:
        """All body bytes that this worker has received, useful or not."""
        return self.finished_bytes + sum(each.meter.received_bytes for each in self.transfers)

    @property
    def is_divided(self) -> bool:
        """Whether each part announces its own size: then a final request completes the upload."""
        return sum_of_part_sizes(self._all_ranges) is not None

    def set_total(self, total_bytes: int) -> None:
        """Set the size of the upload, unless it is known."""
        if self.meter.total_bytes is None:
            self.meter.total_bytes = total_bytes

    def add_part_size(self, part: str, size_bytes: int) -> None:
        """Add the announced size of one of several parts."""
        self.ranges = merge([*self.ranges, part_size(part, size_bytes)])
        self.mark_due()

    def observe(self, now: Moment) -> None:
        """Add up what arrived, and update rate, last byte and stall."""
        if self.is_ended:
            return
        self.meter.received_bytes = max(self.meter.received_bytes, self._count_received())
        if self.activity is not None and is_receiving(self.state):
            is_waiting = any(transfer.meter.is_waiting for transfer in self.transfers)
            self._observe(now, self._wire_bytes, is_waiting=is_waiting)

    # Requests

    def begin(self) -> None:
        """Start to receive, for the first time or again."""
        state = next_state(self.state, Signal.BEGIN)
        if state is None:
            return
        self.state: UploadState = state
        self.is_idle: bool = False
        now = self.context.now()
        self.started_at = self.started_at or now.wall
        self._reported_at = now.monotonic
        last = self.activity.last_byte_at if self.activity else None
        self.activity: Activity | None = Activity(
            now.monotonic, self._wire_bytes, last_byte_at=last
        )
        if self.owner is None and self._claimant is not None:
            self.context.admit(self, self._claimant)
        self.mark_due()

    def end_transfer_body(self, transfer: "Transfer") -> None:
        """Record that all bytes of *transfer* have arrived; process if nothing is missing."""
        self.observe(self.context.now())
        total = self.meter.total_bytes
        is_full = total is not None and self.meter.received_bytes >= total
        if transfer.head.is_last or (is_full and not self.is_divided):
            self.end_body()

    def bind_resource(self, resource_id: str) -> None:
        """Let further requests of the owner to the resource belong to this upload."""
        self.resource_id = resource_id
        if self.is_tracked and self.owner is not None:
            self.context.remember_resource(self.owner, resource_id, self.upload_id)
        elif not self.has_requested_id:
            self.upload_id = resource_id
            self.has_prior_state: bool = False

    @property
    def is_replaceable(self) -> bool:
        """Whether another upload may take its key: only after the end."""
        return self.is_ended

    def can_merge(self, other: "MultiRequestUpload") -> bool:
        """Return whether *other* can be a further request of this upload."""
        return not self.is_ended and self.head.protocol == other.head.protocol

    def merge(self, other: "MultiRequestUpload") -> None:
        """Take over the requests of *other*, which is the same upload."""
        other.merged_into = self
        self.transfers.update(other.transfers)
        for transfer in other.transfers:
            transfer.upload = self
        self.finished_bytes += other.finished_bytes
        self.ranges = merge([*self.ranges, *other.ranges])
        for name in ("filename", "content_type", "metadata", "group"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(other, name))
        if other.meter.total_bytes is not None:
            self.set_total(other.meter.total_bytes)
        self.is_idle = False
        self.is_superseded: bool = False
        if other.started_at is not None:
            self.begin()
        self.mark_due()

    def end_transfer(self, transfer: "Transfer", outcome: TransferOutcome | None) -> None:
        """Record the outcome of *transfer*; None if it broke off without a response."""
        if self.transfers.pop(transfer, transfer) is transfer or self.is_ended:
            return
        self.finished_bytes += transfer.meter.received_bytes
        self._idle_since = self.context.config.clock.monotonic()
        self._add_outcome(transfer, outcome)
        self._change_state(transfer, outcome)
        result = None if outcome is None else outcome.result
        self._exists = self._exists or result in _CONTINUES
        self._last_refusal = transfer if result in _REFUSALS else None
        self._check_end()
        self.is_idle = not self.transfers and is_waiting(self.state)
        self.mark_due()

    def _change_state(self, transfer: "Transfer", outcome: TransferOutcome | None) -> None:
        kind, result = transfer.head.kind, None if outcome is None else outcome.result
        if self._failure_message is not None:
            self._end(*result_of(None, self._failure_message, has_whole_body=False))
        elif result is TransferResult.COMPLETED:
            if kind is TransferKind.COMPLETE and not self._exists:
                self._was_joined = True
            else:
                self._complete()
        elif result is TransferResult.ABORTED:
            self.begin()
            self._end(Signal.CANCEL, CANCELLED)
        elif outcome is None and kind is TransferKind.CREATE:
            self._end(Signal.DISCONNECT, DISCONNECTED)
        elif result not in _CONTINUES:
            self.pause()

    def _reject(self, transfer: "Transfer") -> None:
        """Fail by the response to *transfer*, or by the exception that was raised instead."""
        self.begin()
        if transfer.status is None:
            self._end(Signal.RAISE, RAISED)
        else:
            message = _ERROR_AFTER_SUCCESS if is_success(transfer.status) else None
            self._end(*result_of(transfer.status, message, has_whole_body=False))

    def _add_outcome(self, transfer: "Transfer", outcome: TransferOutcome | None) -> None:
        """Add the bytes of *transfer* to the ranges, and those of no use to the repeated bytes."""
        before = count_bytes(self.ranges)
        byte_range = transfer.kept_range(outcome)
        if byte_range is not None:
            self.ranges = merge([*self.ranges, byte_range])
        if outcome is not None and outcome.offset is not None and transfer.head.is_sequential:
            # The server has these bytes, and no others.
            self._ends[transfer.part] = outcome.offset
            self._drop_unaccepted()
        gained = count_bytes(self.ranges) - before
        self.repeated_bytes += max(0, transfer.content_bytes - gained)
        if outcome is not None:
            self._confirm(transfer.part, outcome.offset or 0)
            if outcome.total_bytes is not None:
                self.set_total(outcome.total_bytes)
        self.meter.received_bytes = self._count_received()

    def _drop_unaccepted(self) -> None:
        """Drop bytes that the application does not have, also of a record that is loaded later."""
        for part, end in self._ends.items():
            self.ranges = without_unaccepted_after(self.ranges, part, end)

    def _confirm(self, part: str, offset: int) -> None:
        """Record that the application has *part* up to *offset*."""
        if not part:
            self.confirmed_bytes = max(self.confirmed_bytes, offset)
        elif offset:
            self.ranges = merge([*self.ranges, confirmed(part, offset)])

    def _check_end(self) -> None:
        """Complete an upload that is whole, fail or drop one that was refused."""
        refusal = self._last_refusal
        is_unused = self.has_prior_state and not self.transfers and not self.is_ended
        if (refusal or self._was_joined) and is_unused and not self._exists:
            if refusal is not None and refusal.fails_new_upload:
                self._reject(refusal)
            else:
                self.is_superseded = self.is_superseded or not self._is_committed
        elif refusal is not None and refusal.is_rejected and self._exists:
            if not (self.is_ended or self.ended_elsewhere):
                self._reject(refusal)
        elif (self._was_joined and is_unused and not self.ended_elsewhere) or self._is_whole():
            self._complete()

    def _is_whole(self) -> bool:
        """Return whether the application has accepted all bytes, if that ends the upload."""
        total = self.meter.total_bytes
        if self.transfers or self.is_ended or self.ended_elsewhere or total is None:
            return False
        if not self.head.completes_at_total or self.is_divided:
            return False
        return count_bytes(each for each in self._all_ranges if each[3]) >= total

    def _complete(self) -> None:
        self.begin()
        self._end(Signal.ACCEPT, None)

    def _end(self, signal: Signal, error: UploadError | None) -> bool:
        arriving = self._arriving()
        has_ended = super()._end(signal, error)
        if has_ended:
            # Transfers in progress count as far as they have come.
            self.ranges = merge([*self.ranges, *arriving])
        return has_ended

    def pause(self) -> None:
        """Wait for the next request, unless one is in progress."""
        state = next_state(self.state, Signal.PAUSE)
        if state is not None and not self.transfers:
            self.observe(self.context.now())
            self.state = state
            self.current_stage: StageHandle | None = None
            self.is_idle = True
            self.mark_due()

    def cancel(self) -> None:
        """End by the owner's wish, and stop all its requests."""
        cancels = [transfer.on_cancel for transfer in self.transfers]
        self.on_cancel: Callable[[], None] | None = lambda: _call_all(cancels)
        super().cancel()

    # Time and reports

    def tick(self) -> float | None:
        """Observe, and pause an upload without requests; return when to call this again."""
        if self.is_idle or self.is_superseded:
            return None
        if self.transfers or self.is_ended:
            next_tick = super().tick()
            self._arm(*self.transfers)
            return next_tick
        pause_at = self._idle_since + PAUSE_AFTER_SECONDS
        if self.context.config.clock.monotonic() < pause_at:
            return pause_at
        self.pause()
        return None

    def mark_due(self) -> None:
        """Ask for a report, unless one is due already."""
        super().mark_due()
        if self.is_due:
            for transfer in self.transfers:
                transfer.arm(NEVER)

    def check_due(self, transfer: "Transfer") -> None:
        """Ask for a report if the upload's next gate is reached; else arm *transfer* again."""
        self.observe(self.context.now())
        if self.meter.received_bytes >= self.meter.gate_bytes:
            self.mark_due()
        elif not self.is_due:
            self._arm(transfer)

    def _arm(self, *transfers: "Transfer") -> None:
        """Divide the bytes that are missing to the upload's next gate among its transfers."""
        missing = self.meter.gate_bytes - self.meter.received_bytes
        share = max(1, missing // max(1, len(self.transfers)))
        for transfer in transfers:
            transfer.arm(NEVER if self.is_ended or self.is_due else share)

    def commit(self, now: Moment) -> TransferRecord:
        """Return the next version of the record, and arm the meters."""
        record = super().commit(now)
        self._is_committed = True
        self._arm(*self.transfers)
        return record

    # Records

    def load_prior_state(self, records: Iterable[TransferRecord]) -> None:
        """Continue this worker's stored record, and learn those of other workers."""
        if self.has_prior_state:
            return
        self.has_prior_state = True
        stored = list(records)
        before = fold(stored, now=self.context.config.clock.time())
        if before is None:
            self._check_end()
            return
        if is_final(before.state):
            self._follow_ended(stored, before)
            self._check_end()
            return
        self.attempt: int = before.attempt
        for record in newest(stored):
            if record.transfer_id == self.transfer_id:
                self._continue_record(record)
        self._exists = True
        self._describe(before.filename, before.total_bytes, before.group)
        self._update_prior_records(stored)
        self._check_end()

    def _continue_record(self, record: TransferRecord) -> None:
        self.sequence += record.sequence
        self.ranges = merge([*self.ranges, *record.byte_ranges])
        self._drop_unaccepted()
        self.confirmed_bytes = max(self.confirmed_bytes, record.confirmed_bytes)
        self.repeated_bytes += record.retransmitted_bytes
        self.created_at: float = min(self.created_at, record.created_at)
        self.started_at = record.started_at or self.started_at
        self.metadata: Metadata | None = self.metadata or record.metadata
        self.content_type: str | None = record.content_type or self.content_type

    def _describe(self, filename: str | None, total: int | None, group: str | None) -> None:
        for name, value in (("filename", filename), ("group", group)):
            if value is not None and name not in self._set_by_app:
                setattr(self, name, value)
        if total is not None:
            self.set_total(total)

    def _follow_ended(self, records: list[TransferRecord], before: UploadProgress) -> None:
        """Start the next attempt after one that has ended; a late request starts none.

        A client that continues at the end of the bytes that arrived has them at the server, and
        sends the rest.
        """
        is_new_attempt = self.has_requested_id and self.head.kind is TransferKind.CREATE
        if self.head.resource_is_unique and not is_new_attempt:
            self.ended_elsewhere = True
            self.attempt = before.attempt
            self.prior_records: tuple[TransferRecord, ...] = tuple(newest(records))
            return
        self.attempt = before.attempt + 1
        self.sequence: int = self.sequence + before.sequence + 1
        if (self.head.offset or 0) <= before.bytes_transferred:
            self.confirmed_bytes = max(self.confirmed_bytes, self.head.offset or 0)

    def start_after(self, ended: LiveUpload) -> None:
        """Become the next attempt after *ended*, which may not be stored yet."""
        before = ended.snapshot()
        self._follow_ended(ended.records_with(ended.record(self.context.now())), before)
        self.has_prior_state = ended.has_prior_state
        ended.is_superseded = not ended.has_prior_state and not self.ended_elsewhere

    def update_from_store(self, records: Iterable[TransferRecord]) -> None:
        """Learn what other workers have stored since."""
        self._update_prior_records(records)
        self._check_end()

    def _update_prior_records(self, records: Iterable[TransferRecord]) -> None:
        others = [each for each in newest(records) if each.transfer_id != self.transfer_id]
        self.prior_records = tuple(each for each in others if each.attempt == self.attempt)
        if self.is_ended:
            return
        after = fold(self.prior_records, now=self.context.config.clock.time())
        if after is None:
            return
        self._exists = True
        totals = [each.total_bytes for each in self.prior_records if each.total_bytes is not None]
        self._describe(after.filename, totals[0] if totals else None, after.group)
        if is_final(after.state):
            self.ended_elsewhere = True
            self.pause()

    def record(self, now: Moment) -> TransferRecord:
        """Return the record of this process in its current version."""
        activity = self.activity
        return evolve(
            super().record(now),
            protocol=self.head.protocol,
            byte_ranges=self.ranges if self.is_ended else merge([*self.ranges, *self._arriving()]),
            confirmed_bytes=self.confirmed_bytes,
            retransmitted_bytes=self.repeated_bytes,
            stalled=not self.is_idle and activity is not None and activity.is_stalled,
        )

    def records_with(self, record: TransferRecord) -> list[TransferRecord]:
        """Return the records of this attempt, at this worker and at others."""
        if self.is_superseded and self.prior_records:
            return list(self.prior_records)
        return [*self.prior_records, record]


def _call_all(functions: Iterable[Callable[[], None] | None]) -> None:
    for function in functions:
        if function is not None:
            function()


@define(eq=False, repr=False)
class Transfer:
    """One request of an upload in several requests, from its head to its response.

    Attributes:
        upload: The upload; another one, once owner and resource are known.
        head: The request head, as its protocol reads it.
        protocol: Interprets the response.
        meter: Counts the body of this request.
        status: The status of the response.
        on_cancel: Stops this request.
        is_cancelled: Whether it was stopped: its next message says so.
        reads_body: Whether its outcome depends on the body of the response.
    """

    upload: MultiRequestUpload
    head: TransferHead
    protocol: TransferProtocol
    meter: Meter
    status: int | None = None
    on_cancel: Callable[[], None] | None = None
    is_cancelled: bool = False
    reads_body: bool = field(default=False, init=False)
    _body: bytes = field(default=b"", init=False)
    _outcome: TransferOutcome | None = field(default=None, init=False)
    _has_whole_body: bool = field(default=False, init=False)
    _start: int | None = field(default=None, init=False)
    _resource: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Add this transfer to the upload."""
        self.upload.transfers[self] = None
        self._resource = self.head.resource

    # Bytes

    @property
    def part(self) -> str:
        """The part its bytes belong to; a resource without an address yet is a part of its own."""
        if not (self.head.resource_may_be_part and self.upload.has_requested_id):
            return self.head.part
        return part_name(self._resource or f"{id(self)}")

    @property
    def content_bytes(self) -> int:
        """How many bytes of the upload arrived, without protocol overhead in the body."""
        if not self.head.carries_bytes:
            return 0
        received, length = self.meter.received_bytes, self.head.length
        return received if length is None else min(received, length)

    def byte_range(self, outcome: TransferOutcome | None = None) -> ByteRange | None:
        """Return which bytes of the upload arrived; None if they do not count.

        Args:
            outcome: The outcome of the transfer; None while it is in progress.
        """
        size, part = self.content_bytes, self.part
        if not size:
            return None
        start, end = self._start_offset(), self.upload.end_of(part)
        leaves_gap = self.head.is_sequential and start > end
        if leaves_gap and (outcome is None or outcome.result not in _ACCEPTED):
            return None
        if self.head.offset is None and outcome is not None and outcome.offset is not None:
            start = max(0, outcome.offset - size)
        return (part, start, start + size, False)

    def kept_range(self, outcome: TransferOutcome | None) -> ByteRange | None:
        """Return which bytes of the upload the application has; None if it has none.

        Without an outcome, as after a broken connection, those that arrived may be kept. An outcome
        with an offset accepts the bytes before it.
        """
        byte_range = self.byte_range(outcome)
        if byte_range is None or outcome is None:
            return byte_range
        if outcome.result not in _ACCEPTED and outcome.result is not TransferResult.CREATED:
            return None
        part, start, stop, _ = byte_range
        if outcome.offset is not None:
            stop = min(stop, outcome.offset)
        is_accepted = outcome.result in _ACCEPTED or outcome.offset is not None
        return (part, start, stop, is_accepted) if start < stop else None

    @property
    def is_rejected(self) -> bool:
        """Whether the client cannot go on after the response, and has not asked for an end."""
        result = None if self._outcome is None else self._outcome.result
        return result is TransferResult.REJECTED and self.head.kind is not TransferKind.ABORT

    @property
    def fails_new_upload(self) -> bool:
        """Whether its refusal is the end of an upload of which nothing was accepted before.

        A resource that is not there, and a client that has no access to it, is no upload.
        """
        if self.status is None or self.status in _SERVER_ERRORS:
            return self.head.carries_bytes and self.head.kind is not TransferKind.ABORT
        return self.is_rejected and self.status not in _NOT_THERE

    def _start_offset(self) -> int:
        """Return where its bytes begin; if the head does not say it, after what has arrived."""
        if self.head.offset is not None:
            return self.head.offset
        if self._start is not None:
            return self._start
        end = self.upload.end_of(self.part)
        if self.upload.has_prior_state:
            self._start = end
            if self.head.is_last and end == 0 and self.head.length is not None:
                # This request brings the whole upload.
                self.upload.set_total(self.head.length)
        return end

    # The request, in order

    def begin(self) -> None:
        """Start to receive: the first byte may come now."""
        if self.head.carries_bytes or self.head.kind is TransferKind.COMPLETE:
            self.upload.begin()

    def end_body(self) -> None:
        """Record that the last byte of the request was received."""
        self._has_whole_body = True
        if self.head.kind is not TransferKind.ABORT:
            self.upload.end_transfer_body(self)

    def read_response(self, status: int, headers: Headers) -> bool:
        """Read the head of the response; return whether the upload has just got its resource."""
        self.status = status
        self._outcome = self.protocol.read_response(self.head, status, headers)
        if isinstance(self.protocol, ReadsResponseBody):
            self.reads_body = self.protocol.reads_response_body(self._outcome)
        resource = self._outcome.resource
        if self._outcome.result is not TransferResult.CREATED or resource is None:
            return False
        self._resource = resource
        self.upload.bind_resource(upload_id_for(self.head, resource))
        if self.upload.has_requested_id and self.head.part_total_bytes is not None:
            self.upload.add_part_size(self.part, self.head.part_total_bytes)
        return True

    def read_body(self, content: bytes) -> None:
        """Add to the body of the response, if ``reads_body``."""
        self._body = (self._body + content).lstrip()[:MAX_BODY_BYTES]

    def finish(self, status: int) -> None:
        """End by the response of the application."""
        self._outcome = self._outcome or self.protocol.read_response(self.head, status, {})
        if self.reads_body and isinstance(self.protocol, ReadsResponseBody):
            self._outcome = self.protocol.read_response_body(self._outcome, self._body)
        self.upload.end_transfer(self, self._outcome)

    def app_raised(self) -> None:
        """End by an exception of the application: it keeps nothing, the client may try again.

        An exception after the response changes nothing.
        """
        if self in self.upload.transfers:
            self.status, self._outcome = None, TransferOutcome(TransferResult.REFUSED)
            self.upload.end_transfer(self, self._outcome)

    def app_cancelled(self) -> None:
        """End because the server cancelled the application, as at shutdown: it has not refused."""
        self.upload.end_transfer(self, None)

    def client_disconnected(self) -> None:
        """End because the client disconnected; after the last byte this changes nothing."""
        if not self._has_whole_body:
            self.upload.end_transfer(self, None)

    # Reports

    def check_due(self) -> None:
        """Ask for a report of the upload, if its next gate is reached."""
        self.upload.check_due(self)

    def arm(self, size_bytes: int) -> None:
        """Call ``check_due`` after that many more bytes."""
        if not self.is_cancelled:
            self.meter.gate_bytes = min(self.meter.received_bytes + size_bytes, NEVER)
