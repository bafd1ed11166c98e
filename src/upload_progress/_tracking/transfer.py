"""One request of an upload in many requests, while it is carried."""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from upload_progress._model.models import ByteRange
from upload_progress.protocols import (
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    part_name,
    upload_id_for,
)
from upload_progress.throttling import NEVER, Meter

__all__ = [
    "Transfer",
    "Whole",
]


class Whole(Protocol):
    """The upload to which requests belong, as they see it."""

    transfers: "dict[Transfer, None]"
    has_prior_state: bool
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

    def whole(self, transfer: "Transfer") -> None:
        """All bytes of *strand* have come."""

    def close(self, transfer: "Transfer", outcome: TransferOutcome | None) -> None:
        """*strand* is over; without an outcome it broke off."""

    def pass_gate(self, transfer: "Transfer") -> None:
        """*strand* has brought its share."""


@define(eq=False, repr=False)
class Transfer:
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
    transfer_head: TransferHead
    protocol: TransferProtocol
    meter: Meter
    status: int | None = None
    on_cut: Callable[[], None] | None = None
    is_cut: bool = False
    _outcome: TransferOutcome | None = field(default=None, init=False)
    _is_whole: bool = field(default=False, init=False)
    _start: int | None = field(default=None, init=False)
    _resource: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Become a strand of the upload."""
        self.upload.transfers[self] = None
        self._resource = self.transfer_head.resource

    # What it brings

    @property
    def part(self) -> str:
        """Of which part its bytes are; what has no address yet is a part of its own."""
        if not (self.transfer_head.resource_may_be_part and self.upload.is_claimed):
            return self.transfer_head.part
        return part_name(self._resource or f"{id(self)}")

    @property
    def content_bytes(self) -> int:
        """How many bytes of the upload came; what envelope there is does not count."""
        if not self.transfer_head.carries_bytes:
            return 0
        received, length = self.meter.received_bytes, self.transfer_head.length
        return received if length is None else min(received, length)

    def span(self, outcome: TransferOutcome | None = None) -> ByteRange | None:
        """Return which bytes of the upload came; None where they do not count.

        Args:
            outcome: What came of it; None while that is not known.
        """
        size, part = self.content_bytes, self.part
        if not size:
            return None
        start, end = self._from(), self.upload.end_of(part)
        is_doubtful = self.transfer_head.is_sequential and start > end
        if is_doubtful and (outcome is None or outcome.result not in _TAKEN):
            return None
        if self.transfer_head.offset is None and outcome is not None and outcome.offset is not None:
            start = max(0, outcome.offset - size)
        return (part, start, start + size, False)

    def _from(self) -> int:
        """Return where its bytes begin; without a word on that, at the end of what is there."""
        if self.transfer_head.offset is not None:
            return self.transfer_head.offset
        if self._start is not None:
            return self._start
        end = self.upload.end_of(self.part)
        if self.upload.has_prior_state:
            self._start = end
            self._announce(end)
        return end

    def _announce(self, start: int) -> None:
        """Tell how large the upload is, where this request brings all of it."""
        if self.transfer_head.is_last and start == 0 and self.transfer_head.length is not None:
            self.upload.expect(self.transfer_head.length)

    # What becomes of the request

    def begin(self) -> None:
        """Its first byte may come now."""
        if self.transfer_head.carries_bytes or self.transfer_head.kind is TransferKind.COMPLETE:
            self.upload.begin()

    def body_end(self) -> None:
        """Its last byte is here."""
        self._is_whole = True
        if self.transfer_head.kind is not TransferKind.ABORT:
            self.upload.whole(self)

    def heard(self, status: int, headers: Headers) -> bool:
        """Take note of the answer's head; return whether the upload has an address only now."""
        self.status = status
        self._outcome = self.protocol.read_response(self.transfer_head, status, headers)
        resource = self._outcome.resource
        if self._outcome.result is not TransferResult.CREATED or resource is None:
            return False
        self._resource = resource
        self.upload.bind(upload_id_for(self.transfer_head, resource))
        if self.upload.is_claimed and self.transfer_head.part_total_bytes is not None:
            self.upload.divide(self.part, self.transfer_head.part_total_bytes)
        return True

    def answered(self, status: int) -> None:
        """The application has answered."""
        self.upload.close(
            self, self._outcome or self.protocol.read_response(self.transfer_head, status, {})
        )

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


_TAKEN = frozenset({TransferResult.ACCEPTED, TransferResult.COMPLETED})
