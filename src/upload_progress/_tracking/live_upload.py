"""Where a live upload reports to, and on what terms it is received."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from attrs import define, evolve, field

from upload_progress._model.activity import LOOK_SECONDS, Activity, judge_arrival
from upload_progress._model.fold import fold, newest
from upload_progress._model.models import (
    Arrival,
    Metadata,
    TransferRecord,
    UploadError,
    UploadKey,
    UploadProgress,
    UploadState,
    bounded_text,
)
from upload_progress._model.state import (
    ABORTED,
    CANCELLED,
    DISCONNECTED,
    LOST,
    RAISED,
    Signal,
    ending_of,
    is_final,
    is_receiving,
    next_state,
)
from upload_progress._tracking.stage import StageHandle
from upload_progress.config import Limits
from upload_progress.identity import Identity
from upload_progress.interfaces import Clock
from upload_progress.throttling import NEVER, Meter, ThrottlePolicy

__all__ = [
    "Desk",
    "LiveUpload",
    "Terms",
    "VERDICT_CHARACTERS",
    "arrival_of",
    "record_of",
]


class Terms(Protocol):
    """On what terms uploads are received: what the tracker was told."""

    clock: Clock
    limits: Limits
    policy: ThrottlePolicy
    mount_path: str
    stall_after_seconds: float

    @property
    def worker(self) -> str:
        """The name of this process."""


class Desk(Protocol):
    """Where a live upload reports to: the tracker that opened it."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def limits(self) -> Limits:
        """How much may be held."""

    @property
    def mount_path(self) -> str:
        """Where the progress API is mounted."""

    @property
    def stall_after_seconds(self) -> float:
        """After how long without a byte an upload is stalled."""

    def due(self, upload: "LiveUpload") -> None:
        """Take *upload* into the next sending."""

    def ended(self, upload: "LiveUpload") -> None:
        """Take note that *upload*, which may be tracked or not, has just ended."""

    def remember(self, owner: str, address: str, upload_id: str) -> None:
        """Let *owner*'s requests to the resource with the id *address* belong to an upload."""

    def admit(self, upload: "LiveUpload", identity: Identity) -> bool:
        """Track *upload* for *identity*; return whether there was room."""


# FROM recording: What a live upload amounts to at this moment: its record, and how its bytes came.


def arrival_of(upload: "LiveUpload") -> Arrival | None:
    """Return how the bytes of *upload* came, once the last of them is here."""
    if upload.activity is None or upload.started_at is None:
        return None
    announced = min((record.created_at for record in upload.prior), default=upload.started_at)
    return judge_arrival(
        received_bytes=upload.received_bytes,
        body_seconds=upload.desk.clock.monotonic() - upload.activity.began_at,
        waited_seconds=upload.started_at - announced,
        is_proxied=upload.is_proxied,
        is_led_by_client=upload.activity.is_led_by_client,
    )


def record_of(upload: "LiveUpload") -> TransferRecord:
    """Return what this process knows of *upload* now, as the newest version of its record."""
    activity = upload.activity
    return TransferRecord(
        owner=upload.owner or "",
        upload_id=upload.upload_id,
        transfer_id=upload.transfer_id,
        attempt=upload.attempt,
        sequence=upload.sequence,
        state=upload.state,
        received_bytes=upload.received_bytes,
        total_bytes=upload.meter.total_bytes,
        bytes_per_second=activity.estimate.bytes_per_second if activity else None,
        stalled=activity is not None and activity.is_stalled,
        arrival=upload.arrival,
        stage=upload.current_stage.stage if upload.current_stage else None,
        error=upload.error,
        group=upload.group,
        filename=upload.filename,
        content_type=upload.content_type,
        metadata=upload.metadata,
        created_at=upload.created_at,
        started_at=upload.started_at,
        updated_at=upload.finished_at or upload.desk.clock.time(),
        last_byte_at=activity.last_byte_at if activity else None,
        finished_at=upload.finished_at,
        worker=None if upload.is_ended else upload.worker,
    )


# FROM live: The live upload: what the process that receives it knows, newest and unthrottled.
#
# A handle counts, takes signals, and marks itself due. It never writes, publishes or waits:
# the flusher takes what is due when it is ready to. What comes after the end changes nothing.
#

VERDICT_CHARACTERS: Final = 1000


@define(eq=False, repr=False, kw_only=True)
class LiveUpload:
    """An upload while this process receives it; endpoints hold it by an ``Upload``."""

    upload_id: str
    transfer_id: str
    meter: Meter
    desk: Desk
    worker: str
    owner: str | None = None
    current_stage: StageHandle | None = None
    is_tracked: bool = False
    is_named: bool = False
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
    is_resting: bool = False
    host: "LiveUpload | None" = None
    attempt: int = 1
    sequence: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    not_before: float = 0.0
    timer_at: float | None = None
    activity: Activity | None = None
    arrival: Arrival | None = None
    prior: tuple[TransferRecord, ...] = ()
    on_cut: Callable[[], None] | None = None
    _verdict: str | None = None
    _claimant: Identity | None = None
    _chosen: set[str] = field(factory=set)
    _sent_at: float = 0.0
    _frozen_bytes: int | None = None
    _is_told: bool = False

    def __repr__(self) -> str:
        """Name the upload and where it stands; no owner, no names."""
        return f"<Upload {self.upload_id} {self.state} {self.received_bytes} bytes>"

    @property
    def received_bytes(self) -> int:
        """Body bytes that have come; frozen at the end of the upload."""
        return self.meter.received_bytes if self._frozen_bytes is None else self._frozen_bytes

    @property
    def is_ended(self) -> bool:
        """Whether the upload has reached its final state."""
        return is_final(self.state)

    # What the application says

    def choose(self, name: str, value: object) -> None:
        """Set an attribute by the application's word, which goes before any announcement."""
        if not self.is_ended:
            setattr(self, name, value)
            self._chosen.add(name)

    def claim(self, identity: Identity) -> bool:
        """Give the upload to *identity* unless it has an owner; return whether it is theirs."""
        if self.owner is not None:
            return self.owner == identity.owner_of(self.upload_id)
        if self.started_at is None:
            self._claimant = self._claimant or identity
            return self._claimant == identity
        return not self.is_ended and self.desk.admit(self, identity)

    def mark_failed(self, message: str) -> None:
        """Make it end as rejected, whatever the answer's status."""
        self._verdict = bounded_text(message, VERDICT_CHARACTERS)

    def show_stage(self, stage: StageHandle | None) -> None:
        """Show *stage*, or none, from now on."""
        if not self.is_ended:
            self.current_stage = stage
            self.mark_due()

    # What the middleware and the tracker say

    def begin(self) -> None:
        """The first byte may come now."""
        state = next_state(self.state, Signal.BEGIN)
        if state is None:
            return
        self.state = state
        self.started_at = self.desk.clock.time()
        self._sent_at = self.desk.clock.monotonic()
        here = self.meter.received_bytes
        self.activity = Activity(
            self._sent_at, here, last_byte_at=self.started_at if here else None
        )
        if self.owner is None and self._claimant is not None:
            self.desk.admit(self, self._claimant)
        self.mark_due()

    def body_end(self) -> None:
        """The last byte is here; the application has not answered yet."""
        state = next_state(self.state, Signal.BODY_END)
        if state is None:
            return
        self.look()
        self.state = state
        self.arrival = arrival_of(self)
        self.mark_due()

    def answered(self, status: int | None) -> None:
        """The application has answered with *status*, or finished without HTTP (None)."""
        self._end(*ending_of(status, self._verdict))

    def raised(self) -> None:
        """The application raised an exception, whose text stays where it is logged."""
        if self._verdict is None:
            self._end(Signal.RAISE, RAISED)
        else:
            self.answered(None)

    def aborted(self) -> None:
        """The server cancelled the application's task."""
        self._end(Signal.CANCEL, ABORTED)

    def disconnected(self) -> None:
        """The client went away; that matters only before the last byte."""
        self._end(Signal.DISCONNECT, DISCONNECTED)

    def cancel(self) -> None:
        """The owner wants it to stop: it ends, and the running transfer is cut."""
        if self._end(Signal.CANCEL, CANCELLED) and self.on_cut is not None:
            self.on_cut()

    def lost(self) -> None:
        """Others took this process for dead, and have ended the upload: what comes is not told."""
        self._end(Signal.LOSE, LOST)

    def _end(self, signal: Signal, error: UploadError | None) -> bool:
        state = next_state(self.state, signal)
        if state is None:
            return False
        self.look()
        self.state, self.error, self.current_stage = state, error, None
        self._frozen_bytes = self.meter.received_bytes
        self.finished_at = self.desk.clock.time()
        self.desk.ended(self)
        self.mark_due()
        return True

    def mark_due(self) -> None:
        """Ask for a report, once; no chunk asks again until it was made, nothing after the end."""
        if not self.is_tracked or self._is_told:
            return
        self.meter.gate_bytes = NEVER
        if not self.is_due:
            self.is_due = True
            self.desk.due(self)

    # Time

    def look(self) -> None:
        """Notice what only time shows: since when nothing came, and how fast it came."""
        if self.activity is None or not is_receiving(self.state):
            return
        now, wall = self.desk.clock.monotonic(), self.desk.clock.time()
        received = self.meter.received_bytes
        patience, is_waiting = self.desk.stall_after_seconds, self.meter.is_waiting
        if self.activity.look(now, wall, received, patience, is_waiting=is_waiting):
            self.mark_due()

    def tick(self) -> float | None:
        """Look, report if the policy's time has come, and return when to look again."""
        if self.is_ended:
            return None
        self.look()
        now = self.desk.clock.monotonic()
        meter = self.meter if self.current_stage is None else self.current_stage.meter
        silent = now - self._sent_at
        if not self.is_due and meter.elapse(silent):
            self.mark_due()
        if self.activity is None or not is_receiving(self.state):
            return now + LOOK_SECONDS
        gates = [self._sent_at + seconds for seconds in self.meter.later_than(silent)]
        return self.activity.next_look(now, gates, self.desk.stall_after_seconds)

    # Records and snapshots

    @property
    def key(self) -> UploadKey | None:
        """The upload's key; None while it belongs to nobody."""
        return None if self.owner is None else UploadKey(self.owner, self.upload_id)

    def load_prior_state(self, records: Iterable[TransferRecord]) -> None:
        """Learn from the store what was there before: an announcement, or an earlier attempt."""
        if self.has_prior_state:
            return
        self.has_prior_state = True
        others = [record for record in records if record.transfer_id != self.transfer_id]
        before = fold(others, now=self.desk.clock.time())
        if before is None:
            return
        # What this worker was receiving and does not any more has ended, and was not stored.
        is_ours = any(record.worker == self.worker for record in others)
        if is_ours or is_final(before.state) or before.attempt < self.attempt:
            self.attempt = max(self.attempt, before.attempt + 1)
            self.sequence += before.sequence + 1
            return
        self.attempt = before.attempt
        self.prior = tuple(newest(others))
        for name in ("filename", "content_type", "metadata", "group"):
            announced = getattr(before, name)
            if announced is not None and name not in self._chosen:
                setattr(self, name, announced)
        if self.meter.total_bytes is None:
            self.meter.total_bytes = before.total_bytes

    def start_after(self, ended: "LiveUpload") -> None:
        """Follow on an upload that ended here under the same id, and may not be stored yet."""
        before = ended.snapshot()
        self.attempt = before.attempt + 1
        self.sequence += before.sequence + 1
        self.has_prior_state = ended.has_prior_state
        ended.is_superseded = not ended.has_prior_state

    def commit(self) -> TransferRecord:
        """Make the next version of the record, and arm the meter for the one after it."""
        self.look()
        self.sequence += 1
        self.is_due = False
        self._sent_at = self.desk.clock.monotonic()
        self.meter.rearm()
        if self.current_stage is not None:
            self.current_stage.meter.rearm()
        if self.activity is not None and self.activity.is_stalled:
            self.meter.gate_bytes = self.meter.received_bytes + 1
        if self.is_ended:
            self.meter.gate_bytes = 0
            self._is_told = True
        return self.record()

    def record(self) -> TransferRecord:
        """Return what this process knows now, as the newest version of its record."""
        return record_of(self)

    def records(self) -> list[TransferRecord]:
        """Return what is known of this attempt: what was announced, and what came here."""
        return [*self.prior, self.record()]

    def snapshot(self) -> UploadProgress:
        """Return the live snapshot; an end that is not stored yet, as it will be stored."""
        self.look()
        self.sequence = max(self.sequence, 1)
        progress = fold(self.records(), now=self.desk.clock.time(), mount_path=self.desk.mount_path)
        assert progress is not None  # noqa: S101  # there is a record
        if self.is_ended and not self._is_told:
            # Else one sequence would carry two states, and who keeps the highest miss the end.
            return evolve(progress, sequence=progress.sequence + 1)
        return progress
