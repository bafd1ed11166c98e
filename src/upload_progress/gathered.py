"""What one worker knows of an upload that is sent in many requests: which bytes, and how fast.

Each request has a meter of its own, which its chunks go through as those of any upload; the
gate of the upload is dealt out among them. What came is kept as spans, so that the fold over
the workers' records counts no byte twice (see ``transfers.spans``).
"""

from attrs import define, evolve, field

from upload_progress.lifecycle import Signal, is_receiving, next_state
from upload_progress.live import LiveUpload
from upload_progress.model import Metadata, Span, TransferRecord, UploadState
from upload_progress.pulse import Pulse
from upload_progress.strand import Strand
from upload_progress.throttle import NEVER
from upload_progress.transfers import Piece
from upload_progress.transfers.spans import covered, declared, end_mark, end_of, known, merged

__all__ = ["GatheredUpload"]


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

    piece: Piece
    strands: dict[Strand, None] = field(factory=dict)
    spans: tuple[Span, ...] = ()
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
    def _known(self) -> list[Span]:
        """What has come to all workers, without what is on its way here."""
        held = max([record.confirmed_bytes for record in self.prior] + [self.confirmed_bytes])
        confirmed = [("", 0, held, True)] if held else []
        of_others = (span for each in self.prior for span in each.spans)
        return known([*of_others, *self.spans, *confirmed])

    def end_of(self, part: str) -> int:
        """Return how far *part* reaches without a gap, by what has come to all workers."""
        return end_of(self._known, part)

    def _arriving(self) -> list[Span]:
        return [span for strand in self.strands if (span := strand.span()) is not None]

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
        if self.pulse is None or not is_receiving(self.state):
            return
        sent = self._sent_bytes
        now, wall = self.desk.clock.monotonic(), self.desk.clock.time()
        is_waiting = any(strand.meter.is_waiting for strand in self.strands)
        patience = self.desk.stall_after_seconds
        if self.pulse.look(now, wall, sent, patience, is_waiting=is_waiting):
            self.mark_due()

    @property
    def _sent_bytes(self) -> int:
        """What has come through the line to this worker, of whatever use it was."""
        arriving = sum(strand.meter.received_bytes for strand in self.strands)
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
        last = self.pulse.last_byte_at if self.pulse else None
        self.pulse: Pulse | None = Pulse(self._sent_at, self._sent_bytes, last_byte_at=last)
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
            for strand in self.strands:
                strand.wait_for(NEVER)

    def pass_gate(self, strand: Strand) -> None:
        """*strand* has brought its share of what a report waits for."""
        self.look()
        if self.meter.received_bytes >= self.meter.gate_bytes:
            self.mark_due()
        elif not self.is_due:
            self._deal(strand)

    def _deal(self, *strands: Strand) -> None:
        """Give *strands* their share of what is missing to the upload's gate."""
        missing = self.meter.gate_bytes - self.meter.received_bytes
        share = max(1, missing // max(1, len(self.strands)))
        for strand in strands:
            strand.wait_for(NEVER if self.is_ended or self.is_due else share)

    def commit(self) -> TransferRecord:
        """Make the next version of the record, and arm the meters."""
        record = super().commit()
        self._is_committed = True
        self._deal(*self.strands)
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
            protocol=self.piece.protocol,
            spans=self.spans if self.is_ended else merged([*self.spans, *self._arriving()]),
            confirmed_bytes=self.confirmed_bytes,
            retransmitted_bytes=self.repeated_bytes,
            stalled=not self.is_resting and self.pulse is not None and self.pulse.is_stalled,
        )

    def records(self) -> list[TransferRecord]:
        """Return what is known of this attempt, here and of other workers."""
        if self.is_superseded and self.prior:
            return list(self.prior)
        return [*self.prior, self.record()]
