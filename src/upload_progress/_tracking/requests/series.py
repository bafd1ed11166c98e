"""What an upload in several requests has, beside what every upload has.

An upload in one request has none of it.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field

from upload_progress._model.byte_ranges import (
    contiguous_end,
    count_accepted,
    count_bytes,
    sum_of_part_sizes,
    with_confirmed,
)
from upload_progress._model.models import ByteRange, TransferRecord
from upload_progress._tracking.requests.received_ranges import ReceivedRanges
from upload_progress._tracking.requests.transfer import Transfer
from upload_progress.throttling import Meter

__all__ = ["RequestSeries"]


@define(eq=False, repr=False, kw_only=True, weakref_slot=False)
class RequestSeries:
    """The requests of an upload: their bytes, their session, and what they have said together.

    Methods take the records of the same attempt that other workers have stored, as *others*.

    Attributes:
        meter: The meter of the upload, whose size the requests tell.
        begun_by: The newest request that may begin another attempt after an end.
        resource_id: The id of the resource, if the upload is known by another id.
        session: The session of the requests, see ``TransferRecord``.
        completes_at_total: Whether all bytes complete the upload, by one of the requests.
        ranges: The bytes of finished requests.
        former_sessions: The sessions of uploads that this one has replaced.
        exists: Whether the application has confirmed that the upload exists.
        undecided: The last request whose meaning depends on that.
        has_inherited_total: Whether the size is that of the attempt before, and may change.
        finished_bytes: How many body bytes of finished requests this worker has received.
        repeated_bytes: How many bytes arrived that had arrived before, or were refused.
        idle_since: When the last request has ended, in monotonic seconds.
        arrived: What had arrived of the requests in progress when the upload ended.
        loaded_version_at: When the last request before the record that was loaded had ended, in
            seconds since the epoch.
        previous_ended_at: When the attempt before has ended, in seconds since the epoch.
        whole_since: Since when, in monotonic seconds, this worker waits for another one that knows
            as well that all bytes are there, and reports the completion.
        has_late_bytes: Whether it has ended elsewhere before all bytes of this worker were stored.
    """

    meter: Meter
    begun_by: Transfer
    resource_id: str | None
    session: str | None = field(init=False)
    completes_at_total: bool = field(init=False)
    ranges: ReceivedRanges = field(factory=ReceivedRanges, init=False)
    former_sessions: frozenset[str] = field(default=frozenset(), init=False)
    exists: bool = field(default=False, init=False)
    undecided: Transfer | None = field(default=None, init=False)
    has_inherited_total: bool = field(default=False, init=False)
    finished_bytes: int = field(default=0, init=False)
    repeated_bytes: int = field(default=0, init=False)
    idle_since: float = field(default=0.0, init=False)
    arrived: tuple[ByteRange, ...] = field(default=(), init=False)
    loaded_version_at: float = field(default=0.0, init=False)
    previous_ended_at: float | None = field(default=None, init=False)
    whole_since: float | None = field(default=None, init=False)
    has_late_bytes: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with what the first request says."""
        head = self.begun_by.head
        self.session = self.begun_by.session
        self.completes_at_total = head is not None and head.completes_at_total

    @property
    def is_completed_by_request(self) -> bool:
        """Whether a request has completed an upload of which nothing else was known before."""
        return self.undecided is not None and self.undecided.is_accepted

    @property
    def is_refused(self) -> bool:
        """Whether the last request was refused, and nothing has been accepted since."""
        return self.undecided is not None and self.undecided.is_refused

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

    def all_ranges(self, others: Sequence[TransferRecord]) -> list[ByteRange]:
        """Return what has arrived at all workers, without the requests in progress here."""
        own = self.ranges
        held = max([own.confirmed_bytes, *(record.confirmed_bytes for record in others)])
        known = [*own.entries(), *(each for record in others for each in record.byte_ranges)]
        return with_confirmed([*known, *([("", 0, held, True)] if held else [])])

    def end_of(self, part: str, others: Sequence[TransferRecord]) -> int:
        """Return up to which byte *part* has arrived at all workers without a gap."""
        if not others:
            return self.ranges.end_of(part)
        return contiguous_end(self.all_ranges(others), part)

    def place(
        self, transfer: Transfer, others: Sequence[TransferRecord], *, are_loaded: bool
    ) -> int:
        """Determine where the bytes of *transfer* begin; return the end of its part.

        If its head does not say it, they begin after what has arrived.

        Args:
            transfer: The request.
            others: The records of other workers.
            are_loaded: Whether these are known.
        """
        end, head = self.end_of(transfer.part, others), transfer.head
        if head is None or transfer.start is not None:
            return end
        if head.offset is not None:
            transfer.start = head.offset
        elif are_loaded:
            transfer.start = end
            if head.is_last and end == 0 and head.length is not None:
                # This request brings the whole upload, unless it is refused.
                self.set_total(head.length)
                self.has_inherited_total = True
        return end

    def count_received(
        self, arriving: Iterable[ByteRange], others: Sequence[TransferRecord]
    ) -> int:
        """Return how many bytes have arrived at all workers.

        Args:
            arriving: What has arrived of the requests in progress here.
            others: The records of other workers.
        """
        total = self.meter.total_bytes
        if others:
            received = count_bytes([*self.all_ranges(others), *arriving])
        else:
            received = self.ranges.count_with(arriving)
        if total is not None and received > total and self.has_inherited_total:
            self.meter.total_bytes = None
        return received

    def is_divided(self, others: Iterable[TransferRecord]) -> bool:
        """Return whether each part announces its size: a final request completes the upload."""
        stored = (each for record in others for each in record.byte_ranges)
        return self.ranges.sum_of_part_sizes is not None or sum_of_part_sizes(stored) is not None

    def is_whole(self, others: Sequence[TransferRecord]) -> bool:
        """Return whether the application has accepted all bytes, if that completes the upload.

        Requests in progress may end first, but none can fail the upload any more.
        """
        total = self.meter.total_bytes
        if total is None or not self.completes_at_total or self.is_divided(others):
            return False
        if not others:
            return self.ranges.accepted_bytes >= total
        return count_accepted(self.all_ranges(others)) >= total

    def confirm_all(self, total_bytes: int, others: Sequence[TransferRecord]) -> None:
        """Record that the application has all bytes, whichever worker has received them."""
        named = [each for each in self.all_ranges(others) if each[0]]
        self.ranges.confirm("", max(0, total_bytes - count_bytes(named)))
        self.meter.received_bytes = total_bytes
