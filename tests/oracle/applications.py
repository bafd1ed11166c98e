"""Model applications: one per protocol, each keeps exactly the bytes that it accepts.

`Application.plan` is what a client sends for a step, `Application.answer` what the application
responds when it has read the body. An answer says for the protocol what it means: the oracle does
not use the library's own readers of requests and responses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import StrEnum, unique
from typing import ClassVar

from attrs import define, evolve, field, frozen

from tests.oracle.steps import TOTAL, Authentication, Kind, Request

__all__ = ["APPLICATIONS", "Answer", "Application", "Exchange", "Meaning", "Plan", "Position"]

Position = tuple[str, int]
"""The part and the number of a byte within it."""

PART_SIZE = 8
TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}
# The client may correct its request, and send it again.
MAY_GO_ON = frozenset({401, 403, 407, 408, 409, 412, 416, 423, 425, 429, 460})


@unique
class Meaning(StrEnum):
    """What an answer means for the upload."""

    REFUSED = "refused"
    """None of the bytes are accepted; the client may go on."""
    ACCEPTED = "accepted"
    """Bytes are accepted, or the upload was created."""
    COMPLETED = "completed"
    """The application has the whole upload."""
    REJECTED = "rejected"
    """None of the bytes are accepted, and the client cannot go on."""
    ABORTED = "aborted"
    """The client has abandoned the upload."""
    TOLD = "told"
    """A question was answered, or the request was none of the upload's."""


@frozen
class Plan:
    """The request of a step.

    Attributes:
        method: The HTTP method.
        path: The path with the query.
        headers: The headers.
        size: The number of bytes in the body.
        start: Position of the first one; None if the application decides when it has read them.
        part: The part that they belong to.
        kind: What the request is for.
        announced: The total that it announces.
        session: How often the upload had been created when the request was sent.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(factory=dict)
    size: int = 0
    start: int | None = 0
    part: str = ""
    kind: Kind = Kind.BYTES
    announced: int | None = None
    session: int = 0


def _stray(method: str, path: str, headers: Mapping[str, str]) -> Plan:
    headers = {**headers, "content-length": str(PART_SIZE)}
    return Plan(method, path, headers, PART_SIZE, part=path, kind=Kind.STRAY)


@frozen
class Answer:
    """A response, and what it says about the upload.

    Attributes:
        status: The status of the response.
        meaning: What it means.
        headers: Its headers.
        body: Its body.
        accepted: The bytes of the request that it accepts.
        offset: Up to where the application has the part; None if the response does not say it.
        total: The size of the upload, if the response tells it or is the end.
        replaces: Whether the accepted bytes replace the whole part.
        restarts: Whether the application has nothing of what it had accepted before the request.
    """

    status: int
    meaning: Meaning
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    accepted: frozenset[Position] = frozenset()
    offset: int | None = None
    total: int | None = None
    replaces: bool = False
    restarts: bool = False


@define(eq=False)
class Exchange:
    """A request that is sent, and how far it has come.

    Attributes:
        number: Its number, from 1.
        step: The step that it belongs to.
        plan: What is sent.
        started_at: When it was sent, in seconds.
        received: How many bytes of the body the application was given.
        has_read_end: Whether it was told that no more follow.
        identified_at: When ``authenticate`` named the owner; None if it did not.
        calls: How often ``authenticate`` was called.
        status: The status of the response.
        upload_id: The upload id in the response.
        ended_at: When the server's call of the application ended.
        set_at: When the application described the upload.
        failed_at: When the application called ``fail()``.
        is_stale: Whether a newer upload had been created when it ended.
        created: The number of the session that it has created.
    """

    number: int
    step: Request
    plan: Plan
    started_at: float
    received: int = 0
    has_read_end: bool = False
    identified_at: float | None = None
    calls: int = 0
    status: int | None = None
    upload_id: str | None = None
    ended_at: float | None = None
    set_at: float | None = None
    failed_at: float | None = None
    is_stale: bool = False
    created: int | None = None

    def positions(self, size: int, start: int | None = None) -> frozenset[Position]:
        """Return the first *size* bytes of the request."""
        first = self.plan.start if start is None else start
        return frozenset((self.plan.part, (first or 0) + at) for at in range(size))

    @property
    def is_identified_at_once(self) -> bool:
        """Whether the first call of ``authenticate`` returns the owner."""
        return self.step.authentication == Authentication()

    @property
    def breaks_at(self) -> int | None:
        """After how many bytes the connection breaks; None if it does not."""
        at = self.step.breaks_after
        return at if at is not None and at < self.plan.size else None

    @property
    def has_whole_body(self) -> bool:
        """Whether the application has read the last byte."""
        return self.received == self.plan.size and self.has_read_end


@define(eq=False)
class Application(ABC):
    """What one application has of one upload.

    Attributes:
        has_id: Whether clients name the upload.
        has: The bytes that it has accepted.
        parts: The parts that were created.
        is_created: Whether the upload exists.
        is_gone: Whether the upload was abandoned or rejected.
        is_complete: Whether the application has the whole upload.
        has_many_workers: Whether requests may go to several workers.
        completions: How many uploads it has had as a whole.
        sessions: How often the upload was created.
        is_busy: Whether a request is in progress.
    """

    has_id: bool
    has: set[Position] = field(factory=set)
    parts: set[str] = field(factory=set)
    is_created: bool = False
    is_gone: bool = False
    is_complete: bool = False
    has_many_workers: bool = False
    completions: int = 0
    sessions: int = 0
    is_busy: bool = False

    completes_at_total = False
    """Whether the upload is complete when the application has all announced bytes."""
    starts_again = False
    """Whether a new upload may follow at the same address; else each has an address of its own."""
    knows_session = True
    """Whether a request shows that the upload exists at the application."""
    creates_parts = False
    """Whether each part is created by a request of its own."""
    is_sequential = True
    """Whether the application has no bytes beyond the offset in its response."""
    may_be_parts = False
    """Whether addresses may be those of parts, if the client gives one id to several of them."""
    rejections: ClassVar[frozenset[int]] = frozenset()
    """Client errors that end an upload of this protocol, beyond those of all."""
    stray: ClassVar[Plan | None] = None
    """A request to an address that does not exist, if that can be seen from the address."""

    @abstractmethod
    def plan(self, step: Request) -> Plan:
        """Return what the client sends for *step*."""

    @abstractmethod
    def accept(self, exchange: Exchange) -> Answer:
        """Return the response to a request that the application accepts if it can."""

    def answer(self, exchange: Exchange) -> Answer:
        """Return the response when the body is read, and keep what it accepts."""
        status = exchange.step.status
        assert status is not None
        if exchange.is_stale or exchange.plan.kind is Kind.STRAY:
            return Answer(status or 404, Meaning.TOLD)
        answer = self.refuse(exchange, status) if status else self.accept(exchange)
        if exchange.failed_at is not None:
            self.abort()
            return answer
        if answer.meaning is Meaning.COMPLETED and not self.is_complete:
            self.is_complete = True
            self.completions += 1
        return answer

    def refuse(self, exchange: Exchange, status: int) -> Answer:
        """Return a response that accepts nothing."""
        is_end = self.ends(exchange, status)
        if is_end and exchange.plan.kind is not Kind.CREATE:
            self.abort()
        return Answer(status, Meaning.REJECTED if is_end else Meaning.REFUSED)

    def ends(self, exchange: Exchange, status: int) -> bool:
        """Return whether the client cannot go on after this status."""
        if exchange.plan.kind in {Kind.ASK, Kind.ABORT}:
            return False
        is_client_error = 400 <= status < 500 and status not in MAY_GO_ON
        return is_client_error or status in self.rejections

    def place_of(self, exchange: Exchange) -> str:
        """Return the part that the bytes of a request belong to, as far as it can be seen.

        Only the creation of an upload shows that other addresses are no parts of it.
        """
        if not self.may_be_parts:
            return exchange.plan.part
        if exchange.plan.kind is Kind.CREATE and exchange.created is None:
            return f"creation {exchange.number}"
        if exchange.plan.kind is Kind.STRAY:
            return exchange.plan.path
        return f"session {exchange.created or exchange.plan.session}"

    def places_of(self, exchange: Exchange, positions: Iterable[Position]) -> set[Position]:
        """Return *positions* of a request with the part that they belong to."""
        return {(self.place_of(exchange), at) for _, at in positions}

    def is_stale(self, exchange: Exchange) -> bool:
        """Return whether a request is for the address of an upload before the newest one."""
        is_creation = exchange.plan.kind is Kind.CREATE or self.starts_again
        return not is_creation and exchange.plan.session != self.sessions

    def keep_broken(self, exchange: Exchange) -> None:
        """Keep the bytes that came before the connection broke, if they can be appended."""
        if exchange.is_stale:
            return
        if exchange.plan.kind is Kind.BYTES and exchange.plan.start == self.end(exchange.plan.part):
            self.has |= exchange.positions(exchange.received)

    def end(self, part: str = "") -> int:
        """Return how many bytes of a part the application has from the start, without a gap."""
        return next(at for at in range(TOTAL + 1) if (part, at) not in self.has)

    def append(self, exchange: Exchange) -> frozenset[Position]:
        """Keep the first bytes of the request, as many as the step says; return them."""
        kept = exchange.positions(min(exchange.step.kept, exchange.received))
        self.has |= kept
        return kept

    def abort(self) -> Answer:
        """Abandon the upload, unless it is complete."""
        if not self.is_complete:
            self.is_gone = True
            self.has.clear()
        return Answer(204, Meaning.ABORTED)

    @property
    def has_ended(self) -> bool:
        """Whether the upload is complete, abandoned or rejected."""
        return self.is_complete or self.is_gone

    @property
    def may_create(self) -> bool:
        """Whether a request may create the upload, at first or again under its own id."""
        return not self.is_created or (self.has_id and self.has_ended)

    def may_be_created_by(self, exchange: Exchange) -> bool:
        """Return whether no other request has created the upload since this one was sent."""
        return self.may_create and exchange.plan.session == self.sessions

    def create(self) -> None:
        """Begin the upload."""
        self.sessions += 1
        self.has.clear()
        self.is_created, self.is_gone, self.is_complete = True, False, False

    def completed(self, answer: Answer) -> Answer:
        """Return *answer* as the end of the upload, if nothing is missing."""
        return evolve(answer, meaning=Meaning.COMPLETED) if len(self.has) >= TOTAL else answer


class Plain(Application):
    """One request per upload."""

    knows_session = False

    def plan(self, step: Request) -> Plan:
        headers = {} if step.kept % 2 else {"content-length": str(step.size)}
        return Plan("POST", "/files", headers, step.size, kind=Kind.CREATE)

    def accept(self, exchange: Exchange) -> Answer:
        return Answer(201, Meaning.COMPLETED, total=exchange.received)

    def refuse(self, exchange: Exchange, status: int) -> Answer:
        if status == 303 and exchange.has_whole_body and exchange.failed_at is None:
            return Answer(303, Meaning.COMPLETED, total=exchange.received)
        return Answer(status, Meaning.REJECTED)


class TusFiles(Application):
    """tus 1.0.0."""

    completes_at_total = True
    may_be_parts = True
    stray = _stray("PATCH", "/files/none", {**TUS, **OCTETS, "upload-offset": "0"})

    def plan(self, step: Request) -> Plan:
        wants_creation = step.kind in {Kind.CREATE, Kind.FINISH} and self.may_create
        if wants_creation or not self.is_created:
            size = step.size if step.kind is Kind.FINISH else 0
            headers = {**TUS, "upload-length": str(TOTAL), "content-length": str(size)}
            headers |= OCTETS if size else {}
            return Plan("POST", "/files", headers, size, kind=Kind.CREATE, announced=TOTAL)
        path = f"/files/{self.sessions}"
        if step.kind is Kind.ABORT:
            return Plan("DELETE", path, TUS, kind=Kind.ABORT)
        if step.kind is Kind.ASK:
            return Plan("HEAD", path, TUS, kind=Kind.ASK)
        start = self.end() if step.start is None else step.start
        size = min(step.size, TOTAL - start)
        headers = {**TUS, **OCTETS, "upload-offset": str(start), "content-length": str(size)}
        return Plan("PATCH", path, headers, size, start)

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.kind is Kind.CREATE:
            if not self.may_be_created_by(exchange):
                return Answer(409, Meaning.REFUSED)
            self.create()
            exchange.created = self.sessions
            kept = self.append(exchange)
            headers = {"location": f"/files/{self.sessions}", "upload-offset": str(len(kept))}
            return self._progress(Answer(201, Meaning.ACCEPTED, headers, accepted=kept))
        if not self.is_created or self.is_gone:
            return self.refuse(exchange, 404)
        return self._accept_later(exchange)

    def _accept_later(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.kind is Kind.ABORT:
            return self.abort()
        if plan.kind is Kind.ASK:
            headers = {"upload-offset": str(self.end()), "upload-length": str(TOTAL)}
            return evolve(self._progress(Answer(200, Meaning.ACCEPTED, headers)), total=TOTAL)
        if plan.start != self.end():
            return Answer(409, Meaning.REFUSED)
        kept = self.append(exchange)
        headers = {"upload-offset": str(self.end())}
        return self._progress(Answer(204, Meaning.ACCEPTED, headers, accepted=kept))

    def _progress(self, answer: Answer) -> Answer:
        return self.completed(evolve(answer, offset=self.end()))


class TusParts(Application):
    """tus concatenation: three partial uploads and a final request, all under one id."""

    creates_parts = True

    def plan(self, step: Request) -> Plan:
        part = f"/files/{step.part}"
        if step.kind is Kind.FINISH:
            names = " ".join(f"/files/{number}" for number in range(3))
            headers = {**TUS, "upload-concat": f"final;{names}", "content-length": "0"}
            return Plan("POST", "/files", headers, kind=Kind.FINISH)
        if part not in self.parts:
            headers = {**TUS, "upload-length": str(PART_SIZE), "upload-concat": "partial"}
            headers["content-length"] = "0"
            return Plan("POST", f"/files?{step.part}", headers, part=part, kind=Kind.CREATE)
        start = self.end(part) if step.start is None else min(step.start, PART_SIZE)
        size = min(step.size, PART_SIZE - start)
        headers = {**TUS, **OCTETS, "upload-offset": str(start), "content-length": str(size)}
        return Plan("PATCH", part, headers, size, start, part)

    def ends(self, exchange: Exchange, status: int) -> bool:
        return exchange.plan.kind is not Kind.CREATE and super().ends(exchange, status)

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if self.is_gone:
            return self.refuse(exchange, 404)
        if plan.kind is Kind.FINISH:
            return self._finish()
        if plan.kind is Kind.CREATE:
            self.is_created = True
            self.parts.add(plan.part)
            return Answer(201, Meaning.ACCEPTED, {"location": plan.part})
        if plan.start != self.end(plan.part):
            return Answer(409, Meaning.REFUSED)
        kept = self.append(exchange)
        end = self.end(plan.part)
        return Answer(204, Meaning.ACCEPTED, {"upload-offset": str(end)}, accepted=kept, offset=end)

    def _finish(self) -> Answer:
        if any(self.end(f"/files/{number}") < PART_SIZE for number in range(3)):
            return Answer(409, Meaning.REFUSED)
        return Answer(201, Meaning.COMPLETED, {"location": "/files/all"}, total=TOTAL)


class IetfFiles(Application):
    """The IETF draft of resumable uploads."""

    stray = _stray("PATCH", "/drafts/none", {"upload-complete": "?0", "upload-offset": "0"})

    def plan(self, step: Request) -> Plan:
        if self.may_create:
            size = TOTAL if step.kind is Kind.FINISH else min(step.size, TOTAL)
            headers = {"upload-complete": "?1" if size == TOTAL else "?0"}
            headers |= {"upload-length": str(TOTAL), "content-length": str(size)}
            return Plan("POST", "/drafts", headers, size, kind=Kind.CREATE, announced=TOTAL)
        path = f"/drafts/{self.sessions}"
        if step.kind is Kind.ABORT:
            headers = {"upload-draft-interop-version": "8"}
            return Plan("DELETE", path, headers, kind=Kind.ABORT)
        if step.kind is Kind.ASK:
            return Plan("HEAD", path, {"upload-draft-interop-version": "8"}, kind=Kind.ASK)
        start = self.end() if step.start is None else step.start
        size = TOTAL - start if step.kind is Kind.FINISH else min(step.size, TOTAL - start)
        headers = {"upload-complete": "?1" if start + size == TOTAL else "?0"}
        headers |= {"upload-offset": str(start), "content-length": str(size)}
        return Plan("PATCH", path, headers, size, start)

    def refuse(self, exchange: Exchange, status: int) -> Answer:
        answer = super().refuse(exchange, status)
        is_last = answer.meaning is Meaning.REJECTED and exchange.plan.kind is not Kind.ASK
        return evolve(answer, headers={"upload-complete": "?1"}) if is_last else answer

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.kind is Kind.CREATE:
            if not self.may_be_created_by(exchange):
                return Answer(409, Meaning.REFUSED)
            self.create()
        elif not self.is_created or self.is_gone:
            return self.refuse(exchange, 404)
        if plan.kind is Kind.ABORT:
            return self.abort()
        if plan.kind is not Kind.ASK and plan.start != self.end():
            return Answer(409, Meaning.REFUSED, {"upload-offset": str(self.end())})
        kept = frozenset[Position]() if plan.kind is Kind.ASK else self.append(exchange)
        return self._progress(exchange, kept)

    def _progress(self, exchange: Exchange, kept: frozenset[Position]) -> Answer:
        headers = {"upload-offset": str(self.end())}
        is_whole = self.end() == TOTAL
        headers["upload-complete"] = "?1" if is_whole else "?0"
        if exchange.plan.kind is Kind.ASK:
            # The answer to a question tells the length, if it is known.
            headers["upload-length"] = str(TOTAL)
        if exchange.plan.kind is Kind.CREATE:
            headers["location"] = f"/drafts/{self.sessions}"
        status = {Kind.CREATE: 201, Kind.ASK: 204}.get(exchange.plan.kind, 200)
        answer = Answer(status, Meaning.ACCEPTED, headers, accepted=kept, offset=self.end())
        return self.completed(evolve(answer, total=self.end() if is_whole else None))


class RangeFiles(Application):
    """PUT with ``Content-Range``, in any order; 308 asks for more bytes."""

    completes_at_total = True
    starts_again = True
    is_sequential = False
    knows_session = False

    def plan(self, step: Request) -> Plan:
        has_ended = self.has_ended
        # Whether a question is about a new beginning that is in progress is not defined, either.
        if step.kind is Kind.ASK and not (has_ended and self.is_busy):
            headers = {"content-range": f"bytes */{TOTAL}", "content-length": "0"}
            return Plan("PUT", "/files/a", headers, kind=Kind.ASK)
        end = 0 if has_ended else self.end()
        start = end if step.start is None else step.start
        # Another beginning is another upload. How it would be ordered with requests in progress,
        # and those at another worker, is not defined.
        start = end if start == 0 and not has_ended else start
        is_unclear = start == 0 and (self.is_busy or (has_ended and self.has_many_workers))
        if start == TOTAL or is_unclear:
            return Plan("HEAD", "/files/a", kind=Kind.ASK)
        size = min(max(step.size, 1), TOTAL - start)
        headers = {"content-range": f"bytes {start}-{start + size - 1}/{TOTAL}"}
        headers["content-length"] = str(size)
        return Plan("PUT", "/files/a", headers, size, start, announced=TOTAL)

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        has_ended = self.has_ended
        if plan.method == "HEAD":
            return Answer(200, Meaning.TOLD)
        if plan.kind is Kind.ASK and self.is_complete:
            return self.completed(Answer(200, Meaning.ACCEPTED, offset=TOTAL, total=TOTAL))
        if plan.kind is Kind.ASK:
            return self._more(frozenset())
        if has_ended and plan.start:
            return Answer(409, Meaning.REFUSED)
        if has_ended:
            self.create()
        return evolve(self._keep(exchange), restarts=has_ended)

    def _keep(self, exchange: Exchange) -> Answer:
        plan, kept = exchange.plan, self.append(exchange)
        if len(kept) < plan.size and (plan.start or 0) <= self.end():
            return self._more(kept)
        self.has |= exchange.positions(exchange.received)
        answer = Answer(200, Meaning.ACCEPTED, accepted=exchange.positions(exchange.received))
        return self.completed(answer)

    def _more(self, kept: frozenset[Position]) -> Answer:
        end = self.end()
        headers = {"range": f"bytes=0-{end - 1}"} if end else {}
        return self.completed(Answer(308, Meaning.ACCEPTED, headers, accepted=kept, offset=end))


class OciBlobs(Application):
    """OCI distribution: a session of ``PATCH`` and one closing ``PUT``, or one ``POST``."""

    rejections = frozenset({403})
    has_address = False
    stray = _stray("PATCH", "/v2/a/blobs/uploads/none", {"content-range": f"0-{PART_SIZE - 1}"})

    @property
    def _address(self) -> str:
        return f"/v2/a/blobs/uploads/{self.sessions}"

    def plan(self, step: Request) -> Plan:
        if self.may_create:
            is_whole = step.kind is Kind.FINISH
            size = step.size if is_whole else 0
            query = "?digest=sha256:1" if is_whole else ""
            headers = {"content-length": str(size)}
            return Plan("POST", f"/v2/a/blobs/uploads/{query}", headers, size, kind=Kind.CREATE)
        if not self.has_address:
            return Plan("HEAD", "/v2/a/blobs/sha256:1", kind=Kind.ASK)
        if step.kind is Kind.ABORT:
            return Plan("DELETE", self._address, kind=Kind.ABORT)
        start = self.end() if step.start is None else step.start
        size = min(step.size, TOTAL - start)
        headers = {"content-length": str(size)}
        if size:
            headers["content-range"] = f"{start}-{start + size - 1}"
        if step.kind is Kind.FINISH:
            path = f"{self._address}?digest=sha256:1"
            return Plan("PUT", path, headers, size, start, kind=Kind.FINISH)
        return Plan("PATCH", f"{self._address}?_state={step.part}", headers, size, start)

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.kind is Kind.ASK:
            return Answer(200, Meaning.TOLD)
        if plan.kind is Kind.CREATE:
            return self._create(exchange)
        if self.has_ended:
            return self.refuse(exchange, 404)
        return self.abort() if plan.kind is Kind.ABORT else self._append(exchange)

    def _append(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.size and plan.start != self.end():
            return Answer(416, Meaning.REFUSED)
        if plan.kind is Kind.FINISH:
            self.has |= exchange.positions(exchange.received)
            return Answer(201, Meaning.COMPLETED, total=len(self.has))
        # A response without a range accepts all bytes: of some, the application keeps one.
        kept = self.append(exchange) or exchange.positions(min(1, exchange.received))
        self.has |= kept
        end = self.end()
        headers = {"location": f"{self._address}?_state={end}"}
        headers |= {"range": f"0-{end - 1}"} if end else {}
        offset = end or None
        return Answer(202, Meaning.ACCEPTED, headers, accepted=kept, offset=offset)

    def _create(self, exchange: Exchange) -> Answer:
        if not self.may_be_created_by(exchange):
            return Answer(429, Meaning.REFUSED)
        self.create()
        # A registry may also open a session and take no byte. After that the size that the request
        # has announced is still shown as the total, although the session may become larger.
        if "digest" in exchange.plan.path:
            self.has |= exchange.positions(exchange.received)
            headers = {"location": "/v2/a/blobs/sha256:1"}
            return Answer(201, Meaning.COMPLETED, headers, total=len(self.has))
        self.has_address = True
        return Answer(202, Meaning.ACCEPTED, {"location": self._address})


class S3Files(Application):
    """S3 multipart upload: parts in any order; a part that is sent again replaces the other."""

    stray = _stray("PUT", "/bucket/key?partNumber=1&uploadId=none", {})

    def plan(self, step: Request) -> Plan:
        if step.kind is Kind.FINISH:
            headers = {"content-type": "application/xml", "x-amz-date": "20270115T080000Z"}
            return Plan("POST", "/bucket/key?uploadId=1", headers, kind=Kind.FINISH)
        if step.kind is Kind.ABORT:
            return Plan("DELETE", "/bucket/key?uploadId=1", kind=Kind.ABORT)
        part, size = str(step.part + 1), max(1, min(step.size, PART_SIZE))
        path = f"/bucket/key?partNumber={part}&uploadId=1"
        return Plan("PUT", path, {"content-length": str(size)}, size, part=part)

    def keep_broken(self, exchange: Exchange) -> None:
        """A part is kept as a whole or not at all."""

    def accept(self, exchange: Exchange) -> Answer:
        plan = exchange.plan
        if plan.kind is Kind.FINISH and self.is_complete:
            return Answer(200, Meaning.COMPLETED, total=len(self.has))
        if self.has_ended:
            return self.refuse(exchange, 404)
        if plan.kind is Kind.ABORT:
            return self.abort()
        return self._finish(exchange) if plan.kind is Kind.FINISH else self._keep(exchange)

    def _finish(self, exchange: Exchange) -> Answer:
        """Assemble the parts; some failures come in the body of a response 200."""
        if not self.has:
            return self.refuse(exchange, 400)
        if exchange.step.kept == 1:
            self.abort()
            headers = {"content-type": "application/xml"}
            return Answer(
                200, Meaning.REJECTED, headers, b"<Error><Code>InternalError</Code></Error>"
            )
        return Answer(200, Meaning.COMPLETED, total=len(self.has))

    def _keep(self, exchange: Exchange) -> Answer:
        """Keep a part in place of an earlier one."""
        self.is_created = True
        part = exchange.plan.part
        self.has -= {position for position in self.has if position[0] == part}
        kept = exchange.positions(exchange.received)
        self.has |= kept
        return Answer(200, Meaning.ACCEPTED, accepted=kept, replaces=True)


APPLICATIONS: Mapping[str, type[Application]] = {
    "plain": Plain,
    "tus": TusFiles,
    "concatenation": TusParts,
    "ietf": IetfFiles,
    "range": RangeFiles,
    "oci": OciBlobs,
    "s3": S3Files,
}
