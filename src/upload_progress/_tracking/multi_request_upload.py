"""What one worker knows of an upload that is sent in many requests: which bytes, and how fast.

Each request has a meter of its own, which its chunks go through as those of any upload; the
gate of the upload is dealt out among them. What came is kept as spans, so that the fold over
the workers' records counts no byte twice (see ``transfers.spans``).
"""

from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, evolve, field

from upload_progress._model.activity import Activity
from upload_progress._model.byte_ranges import (
    covered,
    declared,
    end_mark,
    end_of,
    known,
    merged,
    told,
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
    Signal,
    ending_of,
    is_final,
    is_receiving,
    is_waiting,
    next_state,
)
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.stage import StageHandle
from upload_progress._tracking.transfer import Transfer
from upload_progress.protocols import TransferHead, TransferKind, TransferOutcome, TransferResult
from upload_progress.throttling import NEVER

__all__ = [
    "MultiRequestUpload",
    "GatheredUpload",
    "REST_SECONDS",
]


@define(eq=False, repr=False, kw_only=True)
class GatheredUpload(LiveUpload):
    """Adds up what the requests bring.

    Attributes:
        piece: What the request carries for which it was opened.
        strands: The requests that carry it here right now.
        spans: What the requests brought that have ended.
        confirmed_bytes: How many bytes from the start the server said it had.
        repeated_bytes: How many of those that came had been there before.
        address: The id that its resource has, where it goes by another one.
        is_claimed: Whether the client has named it.
        is_over: Whether it has ended by the word of another worker.
    """

    transfer_head: TransferHead
    transfers: dict[Transfer, None] = field(factory=dict)
    spans: tuple[ByteRange, ...] = ()
    confirmed_bytes: int = 0
    repeated_bytes: int = 0
    ended_bytes: int = 0
    address: str | None = None
    is_claimed: bool = False
    is_over: bool = False
    _is_known: bool = False
    _is_refused: bool = False
    _is_made: bool = False
    _is_committed: bool = False
    _rests_since: float = 0.0

    # What is here

    @property
    def _known(self) -> list[ByteRange]:
        """What has come to all workers, without what is on its way here."""
        held = max([record.confirmed_bytes for record in self.prior] + [self.confirmed_bytes])
        confirmed = [("", 0, held, True)] if held else []
        of_others = (span for each in self.prior for span in each.spans)
        return known([*of_others, *self.spans, *confirmed])

    def end_of(self, part: str) -> int:
        """Return how far *part* reaches without a gap, by what has come to all workers."""
        return end_of(self._known, part)

    def _arriving(self) -> list[ByteRange]:
        return [span for transfer in self.transfers if (span := transfer.span()) is not None]

    def _here(self) -> int:
        spans = self._known
        here = covered([*spans, *self._arriving()])
        total = self.meter.total_bytes = declared(spans) or self.meter.total_bytes
        return here if total is None else min(here, total)

    def look(self) -> None:
        """Add up what came, and notice what only time shows."""
        if self.is_ended:
            return
        self.meter.received_bytes = max(self.meter.received_bytes, self._here())
        if self.activity is None or not is_receiving(self.state):
            return
        sent = self._sent_bytes
        now, wall = self.desk.clock.monotonic(), self.desk.clock.time()
        is_waiting = any(transfer.meter.is_waiting for transfer in self.transfers)
        patience = self.desk.stall_after_seconds
        if self.activity.look(now, wall, sent, patience, is_waiting=is_waiting):
            self.mark_due()

    @property
    def _sent_bytes(self) -> int:
        """What has come through the line to this worker, of whatever use it was."""
        arriving = sum(transfer.meter.received_bytes for transfer in self.transfers)
        return self.ended_bytes + arriving

    def begin(self) -> None:
        """Bytes may come now, first or again."""
        state = next_state(self.state, Signal.BEGIN)
        if state is None:
            return
        self.state: UploadState = state
        self.is_resting: bool = False
        clock = self.desk.clock
        self.started_at = self.started_at or clock.time()
        self._sent_at = clock.monotonic()
        last = self.activity.last_byte_at if self.activity else None
        self.activity: Activity | None = Activity(
            self._sent_at, self._sent_bytes, last_byte_at=last
        )
        if self.owner is None and self._claimant is not None:
            self.desk.admit(self, self._claimant)
        self.mark_due()

    def divide(self, part: str, length: int) -> None:
        """It has a *part* that will be so long, and others beside it."""
        self.spans = merged([*self.spans, end_mark(part, length)])
        self.mark_due()

    @property
    def is_divided(self) -> bool:
        """Whether it has parts of which each is announced by itself: a last word makes it whole."""
        return declared(self._known) is not None

    def expect(self, total_bytes: int) -> None:
        """So many bytes are to come in all, if nothing else has been said."""
        if self.meter.total_bytes is None:
            self.meter.total_bytes = total_bytes

    # Gates

    def mark_due(self) -> None:
        """Ask for a report, once."""
        super().mark_due()
        if self.is_due:
            for transfer in self.transfers:
                transfer.wait_for(NEVER)

    def pass_gate(self, transfer: Transfer) -> None:
        """*strand* has brought its share of what a report waits for."""
        self.look()
        if self.meter.received_bytes >= self.meter.gate_bytes:
            self.mark_due()
        elif not self.is_due:
            self._deal(transfer)

    def _deal(self, *transfers: Transfer) -> None:
        """Give *strands* their share of what is missing to the upload's gate."""
        missing = self.meter.gate_bytes - self.meter.received_bytes
        share = max(1, missing // max(1, len(self.transfers)))
        for transfer in transfers:
            transfer.wait_for(NEVER if self.is_ended or self.is_due else share)

    def commit(self) -> TransferRecord:
        """Make the next version of the record, and arm the meters."""
        record = super().commit()
        self._is_committed = True
        self._deal(*self.transfers)
        return record

    # Records

    def _go_on(self, record: TransferRecord) -> None:
        self.sequence: int = self.sequence + record.sequence
        self.spans = merged([*self.spans, *record.spans])
        self.confirmed_bytes = max(self.confirmed_bytes, record.confirmed_bytes)
        self.repeated_bytes += record.retransmitted_bytes
        self.created_at: float = min(self.created_at, record.created_at)
        self.started_at = record.started_at or self.started_at
        self.metadata: Metadata | None = self.metadata or record.metadata
        self.content_type: str | None = record.content_type or self.content_type

    def _describe(self, filename: str | None, total: int | None, group: str | None) -> None:
        for name, value in (("filename", filename), ("group", group)):
            if value is not None and name not in self._chosen:
                setattr(self, name, value)
        if total is not None:
            self.expect(total)

    def record(self) -> TransferRecord:
        """Return what this process knows now, as the newest version of its record."""
        return evolve(
            super().record(),
            protocol=self.transfer_head.protocol,
            spans=self.spans if self.is_ended else merged([*self.spans, *self._arriving()]),
            confirmed_bytes=self.confirmed_bytes,
            retransmitted_bytes=self.repeated_bytes,
            stalled=not self.is_resting and self.activity is not None and self.activity.is_stalled,
        )

    def records(self) -> list[TransferRecord]:
        """Return what is known of this attempt, here and of other workers."""
        if self.is_superseded and self.prior:
            return list(self.prior)
        return [*self.prior, self.record()]


# FROM assembled: An upload that is sent in many requests, as one worker sees it.
#
# All requests of an upload that come to one worker are *strands* of one ``MultiRequestUpload``,
# which writes one record: however many parts there are, an upload has as many records as workers.
# The record tells which bytes came (see ``transfers.spans``), so that the fold over the workers'
# records counts none twice. Each strand has a meter of its own, which the requests' chunks go
# through as those of any upload; the gate of the upload is dealt out among them.
#
# A strand that breaks off does not fail the upload, it lets it rest. Between two requests it goes
# on receiving for a moment, then it is paused; only the protocol's own word makes it complete.
# Bytes of a sequential protocol that begin beyond what is there wait for the server's answer
# before they count: it will refuse them.
#

REST_SECONDS: Final = 2.0
"""How long after its last request an upload is still taken to be under way."""


@define(eq=False, repr=False, kw_only=True)
class MultiRequestUpload(GatheredUpload):
    """What this worker knows of an upload in many requests."""

    # What the requests say

    def whole(self, transfer: Transfer) -> None:
        """All bytes of *strand* have come; if it was all there was to come, they are processed."""
        self.look()
        total = self.meter.total_bytes
        is_full = total is not None and self.meter.received_bytes >= total
        if transfer.transfer_head.is_last or (is_full and not self.is_divided):
            self.body_end()

    def bind(self, address: str) -> None:
        """Let the owner's requests to the resource with the id *address* belong to this upload."""
        self.address: str | None = address
        if self.is_tracked and self.owner is not None:
            self.desk.remember(self.owner, address, self.upload_id)
        elif not self.is_claimed:
            self.upload_id: str = address
            self.has_prior_state: bool = False

    def takes(self, other: "MultiRequestUpload") -> bool:
        """Tell whether *other* is a further request of this upload."""
        return not self.is_ended and self.transfer_head.protocol == other.transfer_head.protocol

    def adopt(self, other: "MultiRequestUpload") -> None:
        """Take over the requests of *other*, which is the same upload."""
        other.host = self
        self.transfers.update(other.transfers)
        for transfer in other.transfers:
            transfer.upload = self
        self.ended_bytes: int = self.ended_bytes + other.ended_bytes
        self.spans: tuple[ByteRange, ...] = merged([*self.spans, *other.spans])
        for name in ("filename", "content_type", "metadata", "group"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(other, name))
        if other.meter.total_bytes is not None:
            self.expect(other.meter.total_bytes)
        self.is_resting: bool = False
        self.is_superseded: bool = False
        if other.started_at is not None:
            self.begin()
        self.mark_due()

    def close(self, transfer: Transfer, outcome: TransferOutcome | None) -> None:
        """*strand* is over; what came of it is None where it broke off without an answer."""
        if self.transfers.pop(transfer, transfer) is transfer or self.is_ended:
            return
        self.ended_bytes += transfer.meter.received_bytes
        self._rests_since = self.desk.clock.monotonic()
        result = outcome.result if outcome is not None else None
        self._keep(transfer, outcome)
        if self._verdict is not None:
            self._end(*ending_of(None, self._verdict))
        elif (
            result is TransferResult.COMPLETED
            and transfer.transfer_head.kind is TransferKind.COMPLETE
            and not self._is_known
        ):
            self._is_made = True
        elif result is TransferResult.COMPLETED:
            self._complete()
        elif result is TransferResult.ABORTED:
            self.begin()
            self._end(Signal.CANCEL, CANCELLED)
        elif outcome is None and transfer.transfer_head.kind is TransferKind.CREATE:
            self._end(Signal.DISCONNECT, DISCONNECTED)
        elif result not in {TransferResult.ACCEPTED, TransferResult.CREATED}:
            self.rest()
        self._is_known = self._is_known or result in {
            TransferResult.ACCEPTED,
            TransferResult.CREATED,
        }
        self._is_refused = result is TransferResult.REFUSED
        self._notice()
        self.is_resting = not self.transfers and is_waiting(self.state)
        self.mark_due()

    def _keep(self, transfer: Transfer, outcome: TransferOutcome | None) -> None:
        """Add what *strand* brought to what is here, and what was in vain to the waste."""
        is_taken = outcome is not None and outcome.result in {
            TransferResult.ACCEPTED,
            TransferResult.COMPLETED,
        }
        span = transfer.span(outcome)
        before = covered(self.spans)
        if span is not None:
            self.spans = merged([*self.spans, (*span[:3], is_taken)])
        gained = covered(self.spans) - before
        wasted = max(0, transfer.content_bytes - gained)
        self.repeated_bytes: int = self.repeated_bytes + wasted
        if outcome is not None:
            self._confirm(transfer.part, outcome.offset or 0)
            if outcome.total_bytes is not None:
                self.expect(outcome.total_bytes)
        self.meter.received_bytes = max(self.meter.received_bytes, self._here())

    def _confirm(self, part: str, offset: int) -> None:
        """The server has *part* up to *offset*."""
        if not part:
            self.confirmed_bytes: int = max(self.confirmed_bytes, offset)
        elif offset:
            self.spans = merged([*self.spans, told(part, offset)])

    def _notice(self) -> None:
        """Forget what was refused, or made of others, before anything of it was known.

        And end what is whole by now.
        """
        is_idle = self.has_prior_state and not self.transfers and not self.is_ended
        if (self._is_refused or self._is_made) and is_idle and not self._is_known:
            self.is_superseded = self.is_superseded or not self._is_committed
        elif self._is_made and is_idle and not self.is_over:
            self._complete()
        else:
            self._notice_whole()

    def _end(self, signal: Signal, error: UploadError | None) -> bool:
        """End; what is on its way is here as far as it has come."""
        arriving = self._arriving()
        has_ended = super()._end(signal, error)
        if has_ended:
            self.spans = merged([*self.spans, *arriving])
        return has_ended

    def _notice_whole(self) -> None:
        """Complete what is whole by the bytes that the server has taken, where that is the end."""
        total = self.meter.total_bytes
        if (
            self.transfers
            or self.is_ended
            or self.is_over
            or total is None
            or not self.transfer_head.completes_at_total
            or self.is_divided
        ):
            return
        if covered(span for span in self._known if span[3]) >= total:
            self._complete()

    def _complete(self) -> None:
        self.begin()
        self._end(Signal.ACCEPT, None)

    def rest(self) -> None:
        """No request carries it: it waits for the next one."""
        state = next_state(self.state, Signal.PAUSE)
        if state is not None and not self.transfers:
            self.look()
            self.state: UploadState = state
            self.current_stage: StageHandle | None = None
            self.is_resting = True
            self.mark_due()

    def cancel(self) -> None:
        """The owner wants it to stop: it ends, and all its requests are cut."""
        cuts = [transfer.on_cut for transfer in self.transfers]
        self.on_cut: Callable[[], None] | None = lambda: _call_all(cuts)
        super().cancel()

    def tick(self) -> float | None:
        """Look; pause what no request carries any more; return when to look again."""
        if self.is_resting or self.is_superseded:
            return None
        if self.transfers or self.is_ended:
            again = super().tick()
            self._deal(*self.transfers)
            return again
        until = self._rests_since + REST_SECONDS
        if self.desk.clock.monotonic() < until:
            return until
        self.rest()
        return None

    # Records

    def load_prior_state(self, records: Iterable[TransferRecord]) -> None:
        """Go on with what this worker had stored, and learn what the others have."""
        if self.has_prior_state:
            return
        self.has_prior_state = True
        known = list(records)
        before = fold(known, now=self.desk.clock.time())
        if before is None:
            self._notice()
            return
        if is_final(before.state):
            self._follow(known, before)
            return
        self.attempt: int = before.attempt
        mine = [record for record in newest(known) if record.transfer_id == self.transfer_id]
        for record in mine:
            self._go_on(record)
        self._is_known = True
        self._describe(before.filename, before.total_bytes, before.group)
        self._learn(known)
        self._notice()

    def _follow(self, known: list[TransferRecord], before: UploadProgress) -> None:
        """Begin the next attempt after one that has ended; a straggler begins nothing.

        A client that goes on where the bytes that came end has them there, and sends the rest.
        """
        is_new_attempt = self.is_claimed and self.transfer_head.kind is TransferKind.CREATE
        if self.transfer_head.resource_is_unique and not is_new_attempt:
            self.is_over: bool = True
            self.attempt = before.attempt
            self.prior: tuple[TransferRecord, ...] = tuple(newest(known))
            return
        self.attempt = before.attempt + 1
        self.sequence: int = self.sequence + before.sequence + 1
        if (self.transfer_head.offset or 0) <= before.bytes_transferred:
            self.confirmed_bytes = max(self.confirmed_bytes, self.transfer_head.offset or 0)

    def start_after(self, ended: LiveUpload) -> None:
        """Follow on an upload that ended here under the same id, and may not be stored yet."""
        before = ended.snapshot()
        self._follow(ended.records(), before)
        self.has_prior_state = ended.has_prior_state
        ended.is_superseded = not ended.has_prior_state and not self.is_over

    def learn(self, records: Iterable[TransferRecord]) -> None:
        """Take note of what other workers have stored since."""
        self._learn(records)
        self._notice()

    def _learn(self, records: Iterable[TransferRecord]) -> None:
        current = newest(records)
        others = [record for record in current if record.transfer_id != self.transfer_id]
        self.prior = tuple(record for record in others if record.attempt == self.attempt)
        if self.is_ended:
            return
        after = fold(self.prior, now=self.desk.clock.time())
        if after is None:
            return
        self._is_known = True
        totals = [each.total_bytes for each in self.prior if each.total_bytes is not None]
        self._describe(after.filename, totals[0] if totals else None, after.group)
        if is_final(after.state):
            self.is_over = True
            self.rest()


def _call_all(calls: Iterable[Callable[[], None] | None]) -> None:
    for call in calls:
        if call is not None:
            call()
