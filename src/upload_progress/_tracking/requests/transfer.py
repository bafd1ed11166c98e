"""A transfer: one request, or one ``track()`` block, that carries bytes of an upload."""

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._model.byte_ranges import unnamed_part
from upload_progress._model.models import ByteRange
from upload_progress.protocols import (
    MAX_BODY_BYTES,
    Headers,
    ReadsResponseBody,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    part_name,
)
from upload_progress.throttling import NEVER, Meter

__all__ = ["CONTINUES", "Transfer", "TransferPhase"]

_ACCEPTED: Final = frozenset({TransferResult.ACCEPTED, TransferResult.COMPLETED})
CONTINUES: Final = frozenset({TransferResult.ACCEPTED, TransferResult.CREATED})
_REFUSALS: Final = frozenset({TransferResult.REFUSED, TransferResult.REJECTED})
_WITHOUT_EFFECT: Final = frozenset({TransferKind.ABORT, TransferKind.QUERY})
"""Requests whose refusal says nothing about the upload."""
_SERVER_ERRORS: Final = range(500, 600)
_NOT_THERE: Final = frozenset({404, 410})


class TransferPhase(Enum):
    """How far a transfer has come."""

    OPEN = auto()
    """Its head has been read."""
    RECEIVING = auto()
    """Its bytes arrive."""
    RECEIVED = auto()
    """Its last byte has arrived, and the application has not responded yet."""
    RESPONDING = auto()
    """The client receives the response to the whole body."""
    ENDED = auto()
    """The application has responded or failed, or the client has disconnected."""


@define(eq=False, repr=False, kw_only=True, weakref_slot=False)
class Transfer:
    """One request that carries bytes of an upload, from its head to its response.

    Attributes:
        meter: Counts the body.
        head: The request head, as its protocol reads it; None for an upload in one request.
        protocol: Interprets the response; None for an upload in one request.
        names_upload: Whether the client has sent an id of the upload: then the upload may have
            several resources.
        phase: How far it has come.
        status: The status of the response.
        outcome: What the response says, for its protocol.
        on_cancel: Stops the request or block.
        wait_for_owner: Waits until the owner is known, if that takes longer than the request.
        is_stopped: Whether it was stopped: its next message says so.
        start: Where its bytes begin in their part, once that is known.
        ended_at: When it ended, in seconds since the epoch; only in several requests.
        is_outdated: Whether others have ended since it has: what it says of the bytes is old.
        failure_message: Why the application has failed the upload by it, whatever the status.
        reads_body: Whether its outcome depends on the body of the response.
        reason: What the response says about its status.
    """

    meter: Meter
    head: TransferHead | None = None
    protocol: TransferProtocol | None = None
    names_upload: bool = False
    phase: TransferPhase = TransferPhase.OPEN
    status: int | None = None
    outcome: TransferOutcome | None = None
    on_cancel: Callable[[], None] | None = None
    wait_for_owner: Callable[[], Awaitable[None]] = checkpoint
    is_stopped: bool = False
    start: int | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)
    is_outdated: bool = field(default=False, init=False)
    failure_message: str | None = field(default=None, init=False)
    reads_body: bool = field(default=False, init=False)
    reason: str | None = field(default=None, init=False)
    _body: bytes = field(default=b"", init=False)
    _resource: str | None = field(default=None, init=False)

    @property
    def kind(self) -> TransferKind:
        """The purpose of the request."""
        return TransferKind.BYTES if self.head is None else self.head.kind

    @property
    def result(self) -> TransferResult | None:
        """The result according to the response; None without a response."""
        return None if self.outcome is None else self.outcome.result

    @property
    def part(self) -> str:
        """The part its bytes belong to; a resource without an address yet is a part of its own."""
        head = self.head
        if head is None or not head.resource_may_be_part:
            return "" if head is None else head.part
        resource = self._resource or head.resource
        if resource is not None:
            return part_name(resource)
        unknown = part_name(f"{id(self)}")
        return unknown if head.part_total_bytes is not None else unnamed_part(unknown)

    @property
    def session(self) -> str | None:
        """The session it belongs to, see ``TransferRecord``; a response may tell it."""
        head = self.head
        resource = self._resource or (head.resource if head else None)
        if head is None or resource is None or not head.resource_is_unique:
            return None
        name = part_name(resource)
        is_only = (head.kind is TransferKind.CREATE and head.part_total_bytes is None) or (
            head.kind is TransferKind.BYTES and not head.resource_may_be_part
        )
        return name.lstrip(".") if is_only else name

    @property
    def content_bytes(self) -> int:
        """How many bytes of the upload arrived, without protocol overhead in the body."""
        received, head = self.meter.received_bytes, self.head
        if head is not None and not head.carries_bytes:
            return 0
        return received if head is None or head.length is None else min(received, head.length)

    def byte_range(self, end: int) -> ByteRange | None:
        """Return which bytes of the upload arrived; None if they do not count.

        Args:
            end: Up to which byte its part is known without a gap.
        """
        head, size = self.head, self.content_bytes
        if head is None or not size:
            return None
        start = end if self.start is None else self.start
        is_accepted = self.result in _ACCEPTED
        if head.is_sequential and start > end and not is_accepted:
            return None
        if head.offset is None and self.outcome is not None and self.outcome.offset is not None:
            start = max(0, self.outcome.offset - size)
        return (self.part, start, start + size, False)

    def kept_range(self, end: int) -> ByteRange | None:
        """Return which bytes of the upload the application has; None if it has none.

        Without an outcome, as after a broken connection, those that arrived may be kept. An outcome
        with an offset accepts the bytes before it.

        Args:
            end: Up to which byte its part is known without a gap.
        """
        byte_range, outcome = self.byte_range(end), self.outcome
        if byte_range is None or outcome is None:
            return byte_range
        is_accepted = outcome.result in _ACCEPTED
        if not is_accepted and outcome.result is not TransferResult.CREATED:
            return None
        part, start, stop, _ = byte_range
        if outcome.offset is not None:
            stop, is_accepted = min(stop, outcome.offset), True
        return (part, start, stop, is_accepted) if start < stop else None

    @property
    def replaces_part(self) -> bool:
        """Whether the application keeps its bytes in place of an earlier part of the same name."""
        head = self.head
        is_whole = head is not None and head.offset == 0 and not head.is_sequential
        return is_whole and bool(self.part) and self.is_accepted

    @property
    def is_accepted(self) -> bool:
        """Whether the application has accepted its bytes."""
        return self.result in _ACCEPTED

    @property
    def is_refused(self) -> bool:
        """Whether the application has refused the request."""
        return self.result in _REFUSALS

    @property
    def is_rejected(self) -> bool:
        """Whether the client cannot go on after the response, and has not asked for an end."""
        return self.result is TransferResult.REJECTED and self.kind not in _WITHOUT_EFFECT

    @property
    def concerns_parts(self) -> bool:
        """Whether it completes an upload whose parts are in progress, or says that it failed."""
        is_there = not self.is_refused or self.status not in _NOT_THERE
        return self.kind is TransferKind.COMPLETE and is_there

    @property
    def fails_new_upload(self) -> bool:
        """Whether its refusal is the end of an upload of which nothing was accepted before.

        A resource that is not there, and a client that has no access to it, is no upload.
        """
        if not self.is_refused:
            return False
        head = self.head
        if head is not None and (self.status is None or self.status in _SERVER_ERRORS):
            # At a resource of its own the client goes on.
            is_first = self.kind is TransferKind.CREATE or not head.resource_is_unique
            return is_first and head.carries_bytes and self.kind not in _WITHOUT_EFFECT
        return self.is_rejected and self.status not in _NOT_THERE

    def read_response(self, status: int, headers: Headers) -> str | None:
        """Read the head of the response; return the address of a resource that it creates."""
        self.status = status
        head, protocol = self._interpretation()
        self.outcome = protocol.read_response(head, status, headers)
        if isinstance(protocol, ReadsResponseBody):
            self.reads_body = protocol.reads_response_body(self.outcome)
        self._resource = self.outcome.resource or self._resource
        return self.outcome.resource

    def _interpretation(self) -> tuple[TransferHead, TransferProtocol]:
        assert self.head is not None  # noqa: S101  # an upload in several requests
        assert self.protocol is not None  # noqa: S101  # an upload in several requests
        return self.head, self.protocol

    def read_body(self, content: bytes) -> None:
        """Add to the body of the response, if ``reads_body``."""
        self._body = (self._body + content).lstrip()[:MAX_BODY_BYTES]

    def final_outcome(self, status: int) -> TransferOutcome:
        """Return the outcome at the end of the response."""
        head, protocol = self._interpretation()
        outcome = self.outcome or protocol.read_response(head, status, {})
        if self.reads_body and isinstance(protocol, ReadsResponseBody):
            return protocol.read_response_body(outcome, self._body)
        return outcome

    def stop(self) -> None:
        """Stop the request, if it still runs."""
        self.is_stopped = True
        if self.on_cancel is not None:
            self.on_cancel()

    def arm(self, size_bytes: int) -> None:
        """Ask the upload again after that many more bytes."""
        if not self.is_stopped:
            self.meter.gate_bytes = min(self.meter.received_bytes + size_bytes, NEVER)
