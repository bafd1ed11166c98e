"""One request of an upload in many requests, while it is carried."""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from upload_progress._model.models import Span
from upload_progress.protocols import (
    Came,
    Headers,
    Kind,
    Outcome,
    Piece,
    TransferProtocol,
    id_of,
    part_of,
)
from upload_progress.throttling import NEVER, Meter

__all__ = [
    "Strand",
    "Whole",
]


class Whole(Protocol):
    """The upload to which requests belong, as they see it."""

    strands: "dict[Strand, None]"
    is_settled: bool
    is_claimed: bool

    def end_of(self, part: str) -> int:
        """Return how far *part* reaches without a gap."""

    def bind(self, address: str) -> None:
        """Have the resource with the id *address*."""

    def expect(self, total_bytes: int) -> None:
        """So many bytes are to come in all."""

    def divide(self, part: str, length: int) -> None:
        """It has a *part* that will be so long, and others beside it."""

    def begin(self) -> None:
        """Bytes may come now."""

    def whole(self, strand: "Strand") -> None:
        """All bytes of *strand* have come."""

    def close(self, strand: "Strand", outcome: Outcome | None) -> None:
        """*strand* is over; without an outcome it broke off."""

    def pass_gate(self, strand: "Strand") -> None:
        """*strand* has brought its share."""


@define(eq=False, repr=False)
class Strand:
    """Takes what becomes of the request to the upload of which it is a piece.

    Attributes:
        upload: The upload; another one once its owner and its address are known.
        piece: What the request carries, by its head.
        protocol: Says what came of it.
        meter: Counts the body of this request.
        status: The status of its answer.
        on_cut: Cuts this request.
        is_cut: Whether it was cut: its next message says so.
    """

    upload: Whole
    piece: Piece
    protocol: TransferProtocol
    meter: Meter
    status: int | None = None
    on_cut: Callable[[], None] | None = None
    is_cut: bool = False
    _outcome: Outcome | None = field(default=None, init=False)
    _is_whole: bool = field(default=False, init=False)
    _start: int | None = field(default=None, init=False)
    _resource: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Become a strand of the upload."""
        self.upload.strands[self] = None
        self._resource = self.piece.resource

    # What it brings

    @property
    def part(self) -> str:
        """Of which part its bytes are; what has no address yet is a part of its own."""
        if not (self.piece.is_one_of and self.upload.is_claimed):
            return self.piece.part
        return part_of(self._resource or f"{id(self)}")

    @property
    def content_bytes(self) -> int:
        """How many bytes of the upload came; what envelope there is does not count."""
        if not self.piece.has_body:
            return 0
        received, length = self.meter.received_bytes, self.piece.length
        return received if length is None else min(received, length)

    def span(self, outcome: Outcome | None = None) -> Span | None:
        """Return which bytes of the upload came; None where they do not count.

        Args:
            outcome: What came of it; None while that is not known.
        """
        size, part = self.content_bytes, self.part
        if not size:
            return None
        start, end = self._from(), self.upload.end_of(part)
        is_doubtful = self.piece.is_sequential and start > end
        if is_doubtful and (outcome is None or outcome.came not in _TAKEN):
            return None
        if self.piece.offset is None and outcome is not None and outcome.offset is not None:
            start = max(0, outcome.offset - size)
        return (part, start, start + size, False)

    def _from(self) -> int:
        """Return where its bytes begin; without a word on that, at the end of what is there."""
        if self.piece.offset is not None:
            return self.piece.offset
        if self._start is not None:
            return self._start
        end = self.upload.end_of(self.part)
        if self.upload.is_settled:
            self._start = end
            self._announce(end)
        return end

    def _announce(self, start: int) -> None:
        """Tell how large the upload is, where this request brings all of it."""
        if self.piece.is_last and start == 0 and self.piece.length is not None:
            self.upload.expect(self.piece.length)

    # What becomes of the request

    def begin(self) -> None:
        """Its first byte may come now."""
        if self.piece.has_body or self.piece.kind is Kind.COMPLETE:
            self.upload.begin()

    def body_end(self) -> None:
        """Its last byte is here."""
        self._is_whole = True
        if self.piece.kind is not Kind.ABORT:
            self.upload.whole(self)

    def heard(self, status: int, headers: Headers) -> bool:
        """Take note of the answer's head; return whether the upload has an address only now."""
        self.status = status
        self._outcome = self.protocol.answer(self.piece, status, headers)
        resource = self._outcome.resource
        if self._outcome.came is not Came.CREATED or resource is None:
            return False
        self._resource = resource
        self.upload.bind(id_of(self.piece, resource))
        if self.upload.is_claimed and self.piece.partial_bytes is not None:
            self.upload.divide(self.part, self.piece.partial_bytes)
        return True

    def answered(self, status: int) -> None:
        """The application has answered."""
        self.upload.close(self, self._outcome or self.protocol.answer(self.piece, status, {}))

    def raised(self) -> None:
        """The application raised an exception: the client may try again."""
        self.upload.close(self, None)

    aborted = raised

    def disconnected(self) -> None:
        """The client went away; that matters only before the last byte."""
        if not self._is_whole:
            self.upload.close(self, None)

    # Gates

    def pass_gate(self) -> None:
        """It has brought what it was to wait for."""
        self.upload.pass_gate(self)

    def wait_for(self, size_bytes: int) -> None:
        """Call again after that many bytes more."""
        if not self.is_cut:
            self.meter.gate_bytes = min(self.meter.received_bytes + size_bytes, NEVER)


_TAKEN = frozenset({Came.ACCEPTED, Came.COMPLETED})
