"""What the tracker should show: computed from what happened at the application.

A `Fact` is one thing that happened. `Ledger.expectation` replays the facts whose owner is known.
Where two orders of the facts are equally true, as when an owner is identified after the next
request has ended, both results are allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum, unique
from functools import reduce
from itertools import product
from math import inf
from operator import or_

from attrs import define, evolve, field, frozen

from tests.oracle.applications import Answer, Application, Exchange, Meaning, Position
from tests.oracle.steps import Kind
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import ErrorCode
from upload_progress._tracking.continuation.belonging import LATE_SECONDS

__all__ = ["Cause", "Expectation", "Fact", "Ledger"]

S = UploadState
GONE = None
"""The state of an upload that nobody shows."""
MOMENT = 1e-6
"""What happens in the same turn of the loop as the owner of a request is known, is before it."""
SUCCESSES = range(200, 300)
"""Responses that accept a request."""
REDIRECTS = frozenset({301, 307, 308})
"""Responses that ask the client to repeat the request elsewhere."""


@unique
class Cause(StrEnum):
    """How a request ended, or what ended the upload."""

    ANSWERED = "answered"
    RAISED = "raised"
    """The application raised an exception."""
    BROKEN = "broken"
    """The client disconnected before the last byte."""
    STOPPED = "stopped"
    """The server cancelled the application."""
    CANCELLED = "cancelled"
    """The owner cancelled the upload."""


@frozen
class Fact:
    """One thing that happened to the upload.

    Attributes:
        at: When it happened, in seconds.
        cause: What it was.
        exchange: The request that it belongs to; None if the owner cancelled the upload.
        answer: The response; None if there was none.
        since: When it began: the call that cancelled the upload.
        worker: Index of the worker at which the owner cancelled the upload.
        sent: How many requests had been sent.
    """

    at: float
    cause: Cause
    exchange: Exchange | None = None
    answer: Answer | None = None
    since: float = 0.0
    worker: int = 0
    sent: int = 0

    @property
    def begun_at(self) -> float:
        """When it began: the call that cancelled the upload, or ``fail()``."""
        if self.exchange is None:
            return self.since
        failed_at = self.exchange.failed_at
        return self.at if failed_at is None else failed_at

    @property
    def known_at(self) -> float:
        """When the tracker can know it."""
        return max(self.at, (self.exchange and self.exchange.identified_at) or 0.0)


@frozen
class Expectation:
    """What may be shown.

    Attributes:
        states: The states; None if there may be no upload.
        low: The number of bytes is at least this.
        high: And at most this.
        total: The size; None if it may be any.
        errors: The code and the status of the error; none if it may be any.
        is_named: Whether the application has given it a file name.
    """

    states: frozenset[UploadState | None]
    low: int
    high: int
    total: int | None = None
    errors: frozenset[tuple[ErrorCode, int | None]] = frozenset()
    is_named: bool = False

    def __str__(self) -> str:
        """Return what is right, for failures."""
        states = " or ".join(sorted(str(state) for state in self.states))
        return f"{states} with {self.low} to {self.high} bytes of {self.total} is right"

    def __or__(self, other: Expectation) -> Expectation:
        """Return what either of two expectations allows."""
        is_exact = self.errors and other.errors
        return Expectation(
            self.states | other.states,
            min(self.low, other.low),
            max(self.high, other.high),
            self.total if self.total == other.total else None,
            self.errors | other.errors if is_exact else frozenset(),
            self.is_named and other.is_named,
        )

    def allows(self, upload: UploadProgress) -> bool:
        """Return whether *upload* may be shown."""
        has_state = upload.state in self.states
        has_bytes = self.low <= upload.bytes_transferred <= self.high
        has_total = self.total is None or upload.total_bytes == self.total
        return has_state and has_bytes and has_total and self._allows_error(upload)

    def _allows_error(self, upload: UploadProgress) -> bool:
        if (upload.error is not None) is not (upload.state in {S.FAILED, S.CANCELLED}):
            return False
        error = upload.error
        return not (error and self.errors) or (error.code, error.http_status) in self.errors


@frozen
class Reading:
    """What may be read in one way or another, for the same facts.

    Attributes:
        resumes_failed: Whether a piece that does not begin at the start may begin the next attempt
            after a failure.
        close: The number of a request that belongs to the other side of an end, because it was
            sent when the upload was just ending, and its owner was known late.
        joins_ended: Whether a request belongs to an attempt that has just ended at another worker,
            or is followed there by the next one, or is not known yet: its own worker does not know
            what the other one does.
    """

    resumes_failed: bool = False
    close: int = 0
    joins_ended: bool = False


@define(eq=False)
class Replay:
    """The state of an upload in several requests, after some facts.

    Attributes:
        reading: How the facts are read.
        application: The application, for the rules of its protocol.
        exchanges: All requests whose owner is known.
        wire_bytes: How many bytes were received over the wire.
        told: The bytes that the application said it has.
        unsure: The bytes of broken connections, by worker.
        exists: Whether the application has accepted a request.
        exists_since: When it was first known that the application has accepted one.
        exists_at_worker: Index of the worker that knew it first.
        is_created: Whether a request has created it.
        has_begun: Whether a request has carried bytes.
        may_have_failed: Whether a first request failed, which may be shown as a failed upload.
        may_have_completed: Whether it was completed, and nothing else is known of it.
        is_refused: Whether no client can go on with it, although nothing was accepted.
        total: The size, if it is known.
        is_named: Whether the application has given it a file name.
        also: What else may be shown, until something else is certain.
        ended: The final states that the upload may have; none while it is open.
        sent_before_end: How many requests had been sent when it ended.
        undecided_until: When the last request ends that was in progress when it was completed.
        ended_at: When it ended.
        ended_by: The number of the request that ended it, or of the newest one before a cancel.
        ended_at_worker: Index of the worker at which it ended.
        begun_at: When the next attempt has begun; at first long ago.
        begun_at_worker: Index of the worker at which it has begun.
        late_until: The number of the newest request that was sent before the end of the attempt
            before.
        session: How often the application had created the upload, for the requests accepted last.
        is_address_certain: Whether an ended upload had only one address, or none.
        may_be_repeated: Whether the client repeats a request to create it at another address.
        before: What the attempt before may be shown as.
        delay_seconds: How long it takes until each worker knows what has happened at the other.
    """

    reading: Reading
    application: Application
    exchanges: Sequence[Exchange] = ()
    wire_bytes: int = 0
    told: set[Position] = field(factory=set)
    unsure: dict[int, set[Position]] = field(factory=dict)
    exists: bool = False
    exists_since: float = 0.0
    exists_at_worker: int = 0
    is_created: bool = False
    has_begun: bool = False
    may_have_failed: bool = False
    may_have_completed: bool = False
    is_refused: bool = False
    total: int | None = None
    is_named: bool = False
    also: frozenset[UploadState] = frozenset()
    ended: frozenset[UploadState | None] = frozenset()
    sent_before_end: int = 0
    undecided_until: float = 0.0
    ended_at: float = 0.0
    ended_by: int = 0
    ended_at_worker: int = 0
    begun_at: float = -inf
    begun_at_worker: int = 0
    late_until: int = 0
    session: int = 0
    is_address_certain: bool = False
    may_be_repeated: bool = False
    before: Expectation | None = None
    delay_seconds: float = 0.0

    def apply(self, fact: Fact) -> None:
        """Apply *fact*, unless the upload has ended."""
        exchange = fact.exchange
        self._note_other_end(fact)
        if exchange is None:
            self._cancel(fact)
        elif exchange.plan.kind is Kind.STRAY:
            self._note_stray(exchange)
        elif not exchange.is_stale:
            # The others belong to an upload before the newest one.
            self._apply_request(fact, exchange)

    def _note_stray(self, exchange: Exchange) -> None:
        """Note the end of a request to an address that does not exist: it changes no upload.

        If none is open, or its owner is not known yet, it is the next attempt while it lasts.
        """
        earlier = (each for each in self.exchanges if each.number <= exchange.number)
        is_known = all(each.is_identified_at_once for each in earlier)
        if self.ended or not (self.exists and is_known):
            self.also |= {S.FAILED}

    def _apply_request(self, fact: Fact, exchange: Exchange) -> None:
        self._note_other_attempt(fact, exchange)
        is_before = exchange.number <= self.late_until or self._is_unaware(exchange)
        if is_before and exchange.plan.kind is not Kind.CREATE:
            self._note_of_before(fact, exchange)
            return
        if self.ended:
            is_next = self._is_created_after_end(fact, exchange)
            running = [exchange, *self._in_progress(fact.at)]
            if exchange.plan.kind is Kind.ASK:
                # A question begins nothing: its answer counts if another request is known to do so.
                running = [each for each in running if (each.identified_at or inf) <= fact.at]
            if not (is_next or any(map(self._begins_again, running))):
                return
            self.late_until = min(self.sent_before_end, exchange.number - 1)
            self.begun_at, self.begun_at_worker = fact.at, exchange.step.worker
            self._begin_again()
            self._note_other_attempt(fact, exchange)
            # The client may have been told at another request that the bytes before are there.
            before = exchange.positions(exchange.plan.start or 0, start=0)
            self.unsure[exchange.step.worker] = self._placed(exchange, before)
        elif self.exists and self._is_at_newer_address(exchange):
            self._begin_again()
        self._note_late(exchange)
        self._apply_end(fact, exchange)

    def _apply_end(self, fact: Fact, exchange: Exchange) -> None:
        """Apply the end of a request of this attempt."""
        self.has_begun |= exchange.received > 0
        is_creation = exchange.plan.kind is Kind.CREATE
        meaning = fact.answer.meaning if fact.answer else None
        # The client may repeat a creation under the id that it has chosen.
        may_repeat = self.application.has_id and meaning is Meaning.REFUSED
        self.may_be_repeated |= is_creation and may_repeat
        if self.application.has_id or not is_creation:
            self.is_refused = is_creation and meaning is not Meaning.TOLD and not may_repeat
        is_another = self.exists or not self.application.has_id
        is_accepted = meaning in {Meaning.ACCEPTED, Meaning.COMPLETED}
        if exchange.failed_at is not None and is_creation and is_another and not is_accepted:
            # A creation that fails is an upload of its own.
            self.may_have_failed |= not self.exists
        elif exchange.failed_at is not None:
            if self._is_of_before(exchange) and not self.application.creates_parts:
                self.also |= {S.FAILED}
            else:
                self._end(fact, S.FAILED)
        elif fact.answer is None:
            self._apply_failure(fact, exchange)
        else:
            self._apply_answer(fact, exchange, fact.answer)

    def _is_unaware(self, exchange: Exchange) -> bool:
        """Return whether a worker does not know yet that another one has begun this attempt."""
        is_other = exchange.step.worker != self.begun_at_worker
        is_divided = self.application.has_many_workers and self.reading.joins_ended
        seconds = exchange.started_at - self.begun_at
        return is_divided and is_other and seconds < self.delay_seconds

    def _is_of_before(self, exchange: Exchange) -> bool:
        """Return whether a request is of the attempt before: a refused creation is the newest."""
        is_piece = exchange.plan.kind is not Kind.CREATE and not self.application.starts_again
        is_after_creation = self.before is not None and not self.exists
        return is_piece and is_after_creation and exchange.plan.session <= self.session

    def _note_of_before(self, fact: Fact, exchange: Exchange) -> None:
        """Note a request of the attempt before: its owner may be known only now."""
        is_rejected = fact.answer is not None and fact.answer.meaning is Meaning.REJECTED
        self.also |= {S.FAILED} if is_rejected else set()
        received = self._received(exchange)
        self.unsure.setdefault(exchange.step.worker, set()).update(received)

    def _cancel(self, fact: Fact) -> None:
        """End the upload by its owner, who may have cancelled an attempt that has just begun.

        A creation in progress has an id of its own, unless the client names the upload.
        """
        if not (self.exists or self.application.has_id) and self._is_creating(fact.at):
            self.also |= {S.CANCELLED}
            return
        running = list(filter(self._begins_again, self._in_progress(fact.at)))
        if self.ended and all((each.identified_at or inf) <= fact.at for each in running):
            if running:
                self._begin_again()
        elif self.ended:
            # The tracker does not know yet to whom the request belongs that begins it.
            self.also |= {S.CANCELLED}
        if not self.ended:
            # Another worker may have rejected it before, which this one did not know.
            may_have_failed = self.may_have_failed and self.application.has_many_workers
            self._end(fact, S.CANCELLED, *([S.FAILED] if may_have_failed else []))
        elif self.application.has_id and self._is_creating(fact.at):
            # A creation under the same id is shown as the next attempt, until it is refused: the
            # owner may have cancelled that one, although the application has not created it.
            self.ended |= {S.CANCELLED}
        elif self._is_unknown_at(fact.worker, fact.at):
            # The owner was told that it is cancelled, at a worker that did not know of its end.
            self.ended |= {S.CANCELLED}

    def _is_unknown_at(self, worker: int, at: float) -> bool:
        """Return whether a worker does not know yet that the upload has ended at another one."""
        is_other = self.application.has_many_workers and worker != self.ended_at_worker
        return is_other and at - self.ended_at < self.delay_seconds

    def _is_creating(self, at: float) -> bool:
        return any(each.plan.kind is Kind.CREATE for each in self._in_progress(at))

    def _in_progress(self, at: float) -> list[Exchange]:
        """Return the requests that had begun and not ended at a moment."""
        return [each for each in self.exchanges if each.started_at <= at <= (each.ended_at or inf)]

    def _note_other_attempt(self, fact: Fact, exchange: Exchange) -> None:
        """Note how a creation under the id of an upload that runs may be shown.

        It is the next attempt, which fails if the creation is refused. A request to abandon the
        upload may concern the attempt that a creation in progress begins.
        """
        meaning = fact.answer.meaning if fact.answer else None
        is_creation = exchange.plan.kind is Kind.CREATE and self.application.has_id
        if self.application.creates_parts:
            return
        creations = [each for each in self._in_progress(fact.at) if each.plan.kind is Kind.CREATE]
        is_another = self.exists or self.may_be_repeated or len(creations) > 1
        is_second = is_creation and is_another
        if is_second and meaning not in {Meaning.ACCEPTED, Meaning.COMPLETED}:
            # A redirect asks the client to repeat it elsewhere.
            is_redirect = fact.answer is not None and fact.answer.status in REDIRECTS
            self.also |= {S.FAILED, S.PENDING} if is_redirect else {S.FAILED}
        if meaning is Meaning.ABORTED and self._is_creating(fact.at):
            self.also |= {S.CANCELLED}

    def _note_other_end(self, fact: Fact) -> None:
        """Note another end of a completed upload.

        While requests are in progress, an upload that is whole is still to be completed.
        """
        if S.COMPLETED not in self.ended or fact.at > self.undecided_until:
            return
        if fact.exchange is None or (fact.answer and fact.answer.meaning is Meaning.ABORTED):
            self.ended |= {S.CANCELLED}
        elif fact.exchange.failed_at is not None:
            self.ended |= {S.FAILED}

    def _begin_again(self) -> None:
        """Begin the next attempt."""
        self.before, self.ended = self.expectation(), frozenset()
        self.told, self.unsure, self.total = set(), {}, None
        self.exists = self.has_begun = self.may_have_failed = self.is_created = False
        self.may_have_completed = self.is_refused = self.is_named = self.may_be_repeated = False
        self.also &= {S.CANCELLED}

    def _is_created_after_end(self, fact: Fact, exchange: Exchange) -> bool:
        """Return whether the application has created another upload than the one that has ended."""
        is_creation = exchange.plan.kind is Kind.CREATE and not self.application.creates_parts
        meaning = fact.answer.meaning if fact.answer else None
        is_accepted = meaning in {Meaning.ACCEPTED, Meaning.COMPLETED}
        is_another = self.application.has_id and _session_of(exchange) > self.session
        # The owner cancels also what is being created.
        return is_creation and is_accepted and is_another and self.ended != {S.CANCELLED}

    def _is_at_newer_address(self, exchange: Exchange) -> bool:
        """Return whether a request goes to an address that the ended upload had not.

        Its creation has not been seen, or is not known yet.
        """
        plan, application = exchange.plan, self.application
        is_sent_to_address = plan.kind in {Kind.BYTES, Kind.FINISH, Kind.ABORT}
        may_differ = application.has_id and not application.starts_again
        return (
            (self.is_address_certain if self.ended else self._has_one_address)
            and may_differ
            and is_sent_to_address
            and plan.session > self.session
        )

    @property
    def _has_one_address(self) -> bool:
        """Whether other addresses are not those of its parts."""
        return self.is_created or not self.application.may_be_parts

    def _begins_again(self, exchange: Exchange) -> bool:
        """Return whether a request that is sent after the end begins the next attempt."""
        plan, application = exchange.plan, self.application
        if self._is_at_newer_address(exchange):
            return True
        is_piece = application.starts_again and plan.kind is Kind.BYTES
        if is_piece and self.reading.resumes_failed and S.FAILED in self.ended:
            # As ``curl -C`` does; an upload has failed already when the application says so.
            return True
        # A creation is always another upload than the one before.
        is_creation = plan.kind is Kind.CREATE and not application.creates_parts
        is_before = exchange.number <= (self.ended_by if is_creation else self.sent_before_end)
        is_close = abs(exchange.started_at - self.ended_at) <= LATE_SECONDS
        if is_close and self.reading.close == exchange.number:
            is_before = not is_before
        if self.reading.joins_ended:
            is_before |= self._is_unknown_at(exchange.step.worker, exchange.started_at)
        if is_before:
            return False
        if plan.kind is Kind.CREATE:
            return application.has_id
        return is_piece and not plan.start

    def _apply_failure(self, fact: Fact, exchange: Exchange) -> None:
        """Apply an exception, a broken connection, or a cancelled application."""
        if fact.cause is not Cause.RAISED:
            unsure = self.unsure.setdefault(exchange.step.worker, set())
            unsure |= self._received(exchange)
        self._note_first_failure(exchange)

    def _note_first_failure(self, exchange: Exchange) -> None:
        if not self.exists and not self.application.knows_session:
            self.may_have_failed = True
        if not self.exists and exchange.plan.kind is Kind.CREATE:
            self.may_have_failed = True

    def _apply_answer(self, fact: Fact, exchange: Exchange, answer: Answer) -> None:
        match answer.meaning:
            case Meaning.REFUSED:
                if answer.status >= 500:
                    self._note_first_failure(exchange)
            case Meaning.REJECTED:
                self._apply_rejection(fact, exchange)
            case _:
                self._apply_acceptance(fact, exchange, answer)

    def _apply_acceptance(self, fact: Fact, exchange: Exchange, answer: Answer) -> None:
        if exchange.plan.kind is Kind.FINISH and not self._is_seen(fact):
            # The end of an upload of which nothing else is known need not be shown.
            self.may_have_completed = True
            self.also |= {S.COMPLETED}
            return
        if exchange.plan.kind is Kind.ASK and answer.total == answer.offset and not self.exists:
            # It has ended before.
            self.may_have_completed = True
            self.also |= {S.COMPLETED}
            return
        if self._is_of_before(exchange):
            return
        if exchange.plan.kind is Kind.CREATE:
            self._create(exchange)
        if self._may_be_late(exchange):
            self.also |= {S.COMPLETED} if answer.meaning is Meaning.COMPLETED else set()
            unsure = self.unsure.setdefault(exchange.step.worker, set())
            unsure |= self._placed(exchange, answer.accepted)
            return
        if exchange.plan.kind is not Kind.ASK:
            self._note_existence(fact, exchange)
        self.is_named |= exchange.set_at is not None and self._is_attempt_certain(exchange)
        if answer.meaning is Meaning.ABORTED:
            self._end(fact, S.CANCELLED, S.FAILED)
            return
        self._accept(exchange, answer)
        is_whole = self.total is not None and len(self.told) >= self.total
        if is_whole and self.application.completes_at_total:
            self._complete(fact)
        elif answer.meaning is Meaning.COMPLETED and not self.application.completes_at_total:
            self.total = answer.total
            self._complete(fact)

    def _note_existence(self, fact: Fact, exchange: Exchange) -> None:
        if not self.exists:
            self.exists_since, self.exists_at_worker = fact.at, exchange.step.worker
        self.exists, self.session = True, _session_of(exchange)

    def _placed(self, exchange: Exchange, positions: Iterable[Position]) -> set[Position]:
        return self.application.places_of(exchange, positions)

    def _received(self, exchange: Exchange) -> set[Position]:
        return self._placed(exchange, exchange.positions(exchange.received))

    def _create(self, exchange: Exchange) -> None:
        """Begin the upload; if it has begun before, its end is not known here."""
        has_begun = self.is_created or (self.exists and _session_of(exchange) != self.session)
        if has_begun and not self.application.creates_parts:
            also = self.also
            self._begin_again()
            self.before, self.also = None, also
        self.is_created = True

    def _is_attempt_certain(self, exchange: Exchange) -> bool:
        """Return whether a request belongs to this attempt, and not to one that failed before."""
        return exchange.plan.kind is not Kind.ABORT or not self.may_have_failed

    def _may_be_late(self, exchange: Exchange) -> bool:
        """Return whether a request may belong to an attempt that has failed before."""
        has_failed = self.may_have_failed and not self.exists and self.application.has_id
        return has_failed and self.application.knows_session and exchange.plan.kind is Kind.BYTES

    def _note_late(self, exchange: Exchange) -> None:
        """Note that a failure may be shown before the owner of *exchange* was known.

        What is known after the end of an upload changes nothing.
        """
        earlier = (each for each in self.exchanges if each.number <= exchange.number)
        is_late = not all(each.is_identified_at_once for each in earlier)
        if is_late and self.may_have_failed and not self.exists:
            self.also |= {S.FAILED}

    def _is_seen(self, fact: Fact) -> bool:
        """Return whether another request has shown the upload before.

        One that was refused is soon forgotten, if nothing else is known of the upload.
        """
        return self.exists or any(
            each.number <= fact.sent and self._shown_at(each) <= fact.at
            for each in self.exchanges
            if each.plan.kind is not Kind.FINISH and each.status in SUCCESSES
        )

    def _shown_at(self, exchange: Exchange) -> float:
        """Return when the owners of a request and of those before it at its worker are known."""
        return max(
            each.identified_at or 0.0
            for each in self.exchanges
            if each.number <= exchange.number
            and (each.step.worker == exchange.step.worker or not self.application.has_many_workers)
        )

    def _apply_rejection(self, fact: Fact, exchange: Exchange) -> None:
        if self.exists and exchange.plan.kind is not Kind.CREATE:
            # A worker that does not know of the upload takes it for a request to no upload.
            is_other = exchange.step.worker != self.exists_at_worker
            is_new = fact.at - self.exists_since < self.delay_seconds
            if not (self.reading.joins_ended and is_other and is_new):
                self._end(fact, S.FAILED)
        elif not self.exists:
            self.may_have_failed = self.is_refused = True
            if len(self._in_progress(fact.at)) > 1:
                # What has arrived of the other request until then is shown.
                self.also |= {S.FAILED}

    def _accept(self, exchange: Exchange, answer: Answer) -> None:
        part, worker = self.application.place_of(exchange), exchange.step.worker
        self.total = self.total or exchange.plan.announced or answer.total
        if answer.restarts:
            # A request whose owner is not known has ended the upload. The tracker cannot know that
            # the bytes before are gone, unless an offset says so.
            self.also |= {S.PAUSED}
        if answer.replaces:
            self.told -= {each for each in self.told if each[0] == part}
        self.told |= self._placed(exchange, answer.accepted)
        if answer.offset is not None:
            self.told |= {(part, at) for at in range(answer.offset)}
        if answer.offset is not None and self.application.is_sequential:
            unsure = self.unsure.get(worker, set())
            unsure -= {each for each in unsure if each[0] == part and each[1] >= answer.offset}

    def _complete(self, fact: Fact) -> None:
        self._end(fact, S.COMPLETED)
        others = [each for each in self._in_progress(fact.at) if each is not fact.exchange]
        for each in others:
            # What has arrived of them counts as it is, until the application has responded.
            unsure = self.unsure.setdefault(each.step.worker, set())
            unsure |= self._received(each)
        self.undecided_until = max((each.ended_at or inf for each in others), default=0.0)

    def _end(self, fact: Fact, *states: UploadState | None) -> None:
        self.ended, self.sent_before_end = frozenset(states), fact.sent
        self.ended_at = fact.at
        exchange, is_certain = fact.exchange, self._has_one_address
        if exchange is not None and not self.exists:
            self.session = exchange.plan.session
            is_certain |= exchange.plan.kind is Kind.CREATE
        self.is_address_certain = is_certain and (exchange is not None or self.exists)
        self.ended_by = fact.exchange.number if fact.exchange else fact.sent
        self.ended_at_worker = fact.exchange.step.worker if fact.exchange else fact.worker

    @property
    def may_be(self) -> set[Position]:
        """The bytes that may be shown."""
        return self.told.union(*self.unsure.values())

    def expectation(self) -> Expectation:
        """Return what may be shown after these facts."""
        certain = evolve(self._expectation(), is_named=self.is_named)
        if not self.also:
            return certain
        return certain | Expectation(frozenset(self.also), 0, self.wire_bytes)

    def _expectation(self) -> Expectation:
        if self.ended:
            return self._after_end()
        if self.exists:
            states: set[UploadState | None] = {S.PAUSED}
            states |= set() if self.has_begun and self.told else {S.PENDING}
            return Expectation(frozenset(states), len(self.told), len(self.may_be), self.total)
        states = {GONE} if self.is_refused else {GONE, S.PAUSED, S.PENDING}
        # A request after an end is the next attempt, which fails if it is refused.
        states |= {S.FAILED} if self.may_have_failed or self.before else set()
        states |= {S.COMPLETED} if self.may_have_completed else set()
        states |= {S.PENDING, S.PAUSED} if self.may_be_repeated else set()
        # What has arrived of other requests until the end is shown.
        is_end = self.may_have_completed or self.may_have_failed
        size = self.wire_bytes if is_end else len(self.may_be)
        nothing = Expectation(frozenset(states), 0, size)
        return nothing | self.before if self.before else nothing

    def _after_end(self) -> Expectation:
        if self.ended == {S.COMPLETED}:
            size = self.total if self.total is not None else len(self.told)
            if self.application.completes_at_total:
                return Expectation(self.ended, size, size, size)
            # Nobody knows the bytes of requests whose owner is unknown, or which of a broken one
            # the application has.
            low, high = min(size, len(self.told)), max(size, len(self.may_be))
            return Expectation(self.ended, low, high)
        return Expectation(self.ended, 0, self.wire_bytes)


def _session_of(exchange: Exchange) -> int:
    """Return how often the application has created the upload, for an accepted request."""
    return exchange.plan.session + (exchange.plan.kind is Kind.CREATE)


def plain_outcome(exchange: Exchange, fact: Fact) -> Expectation:
    """Return what a plain request may be shown as when it has ended by *fact*."""
    answer, size = fact.answer, exchange.received
    if answer is not None and exchange.failed_at is None:
        if answer.meaning is Meaning.COMPLETED:
            return Expectation(frozenset({S.COMPLETED}), size, size)
        if answer.status in REDIRECTS:
            return Expectation(frozenset({S.PENDING}), 0, 0)
    state = S.CANCELLED if fact.cause is Cause.STOPPED else S.FAILED
    return Expectation(
        frozenset({state}), 0, size, errors=frozenset({_plain_error(exchange, fact)})
    )


def _plain_error(exchange: Exchange, fact: Fact) -> tuple[ErrorCode, int | None]:
    """Return code and status of the error of a plain request that has ended by *fact*."""
    if fact.answer is not None:
        return ErrorCode.REJECTED, fact.answer.status
    if fact.cause is Cause.RAISED and exchange.failed_at is not None:
        return ErrorCode.REJECTED, None
    is_broken = fact.cause is Cause.BROKEN
    return (ErrorCode.CLIENT_DISCONNECTED if is_broken else ErrorCode.APP_ERROR), None


@define(eq=False)
class Ledger:
    """All that happened to one upload.

    Attributes:
        application: The application.
        protocol: The name of the protocol.
        is_announced: Whether the upload was announced.
        facts: What happened, in order.
        exchanges: All requests, in the order in which they were sent.
        delay_seconds: How long it takes until each worker knows what has happened at the other.
        load_seconds: How long the store takes to load.
    """

    application: Application
    protocol: str = "plain"
    is_announced: bool = False
    facts: list[Fact] = field(factory=list)
    exchanges: list[Exchange] = field(factory=list)
    delay_seconds: float = 0.0
    load_seconds: float = 0.0

    def is_undecided(self, at: float) -> bool:
        """Return whether something has just happened at two workers, which do not know it yet.

        A worker stores what has happened every 100 ms. Two that end an upload within this time
        may show two ends, and take back what one of them has shown.
        """
        if not self.application.has_many_workers:
            return False
        return len(self._recent_workers(at)) > 1

    def is_unknown(self, worker: int, at: float) -> bool:
        """Return whether something has just happened at another worker than this one."""
        return self.application.has_many_workers and bool(self._recent_workers(at) - {worker})

    def has_request_in_progress(self, at: float) -> bool:
        """Return whether requests at several workers are, or have just been, in progress."""
        running = (each for each in self.exchanges if at <= (each.ended_at or inf))
        others = {each.step.worker for each in running} | self._recent_workers(at)
        return self.application.has_many_workers and len(others) > 1

    def _recent_workers(self, at: float) -> set[int]:
        """Return the workers at which something has just happened."""
        since = at - self.delay_seconds
        return {worker for moment, worker in self._moments() if since < moment <= at}

    def _moments(self) -> Iterator[tuple[float, int]]:
        """Yield when something happened, and at which worker."""
        for each in self.exchanges:
            yield each.started_at, each.step.worker
            if each.identified_at is not None:
                yield each.identified_at, each.step.worker
        for fact in self.facts:
            worker = fact.worker if fact.exchange is None else fact.exchange.step.worker
            yield fact.at, worker

    @property
    def workers(self) -> set[int]:
        """The workers that have received requests whose owner is known, or that have cancelled."""
        is_divided = self.application.has_many_workers
        workers = [each.step.worker for each in self.identified]
        workers += [each.worker for each in self.cancels]
        return {worker if is_divided else 0 for worker in workers}

    def fact_of(self, exchange: Exchange) -> Fact | None:
        """Return how *exchange* ended; None if it has not."""
        return next((fact for fact in self.facts if fact.exchange is exchange), None)

    @property
    def identified(self) -> list[Exchange]:
        """The requests whose owner is known."""
        return [each for each in self.exchanges if each.identified_at is not None]

    @property
    def cancels(self) -> list[Fact]:
        """The calls of the owner that cancelled the upload."""
        return [fact for fact in self.facts if fact.cause is Cause.CANCELLED]

    @property
    def wire_bytes(self) -> int:
        """How many different bytes of the upload were received over the wire.

        The bytes at two addresses are different ones, see ``Application.place_of``.
        """
        if self.protocol == "plain":
            return max((each.received for each in self.exchanges), default=0)
        places = (
            self.application.places_of(each, each.positions(each.received))
            for each in self.exchanges
        )
        return len(set().union(*places))

    @property
    def completions(self) -> int:
        """How often the application has had the whole upload."""
        answers = [fact.answer for fact in self.facts if fact.answer is not None]
        return sum(answer.meaning is Meaning.COMPLETED for answer in answers)

    @property
    def failed_creations(self) -> int:
        """How many requests to create an upload were not accepted."""
        facts = [fact for fact in self.facts if fact.exchange is not None]
        return sum(
            fact.exchange.plan.kind is Kind.CREATE
            and not (fact.answer and fact.answer.meaning in {Meaning.ACCEPTED, Meaning.COMPLETED})
            for fact in facts
            if fact.exchange
        )

    def expectation(self) -> Expectation:
        """Return what may be shown when all requests have ended."""
        return self.expect_plain() if self.protocol == "plain" else self.expect_several()

    # An upload in one request

    def expect_plain(self) -> Expectation:
        """Return what a plain upload may be shown as: like its newest request."""
        known = self.identified
        if not known:
            state = S.PENDING if self.is_announced else GONE
            expectation = Expectation(frozenset({state}), 0, 0)
            return self._after_cancels(expectation, 0.0, inf)
        newest = max(exchange.started_at for exchange in known)
        # Of requests that begin within a moment, the one whose owner is known last may count.
        several = [
            self._expect_request(exchange)
            for exchange in known
            if exchange.started_at >= newest - LATE_SECONDS
        ]
        return reduce(or_, several)

    def _expect_request(self, exchange: Exchange) -> Expectation:
        fact = self.fact_of(exchange)
        assert fact is not None
        # What is known only after the owner has cancelled changes nothing.
        is_known = all((exchange.identified_at or 0.0) <= each.at for each in self.cancels)
        is_named = exchange.set_at is not None and is_known
        expectation = evolve(plain_outcome(exchange, fact), is_named=is_named)
        ended_at = inf if S.PENDING in expectation.states else fact.at
        return self._after_cancels(expectation, exchange.started_at, ended_at)

    def _after_cancels(
        self, expectation: Expectation, started_at: float, ended_at: float
    ) -> Expectation:
        for cancel in self.cancels:
            if started_at <= cancel.at and cancel.since <= ended_at:
                errors = frozenset({(ErrorCode.CANCELLED_BY_OWNER, None)})
                high = max(expectation.high, self.wire_bytes)
                cancelled = Expectation(frozenset({S.CANCELLED}), 0, high, errors=errors)
                cancelled = evolve(cancelled, is_named=expectation.is_named)
                is_certain = started_at < cancel.since and cancel.at < ended_at
                expectation = cancelled if is_certain else expectation | cancelled
        return expectation

    # An upload in several requests

    def expect_several(self) -> Expectation:
        """Return what an upload in several requests may be shown as."""
        known = [
            fact
            for fact in self.facts
            if fact.exchange is None or fact.exchange.identified_at is not None
        ]
        # What happened during a call that cancelled the upload may have been first. An upload has
        # failed already when the application says so, if another request ends then.
        early = [evolve(fact, at=fact.begun_at) for fact in known]
        results = list[Expectation]()
        for facts in (known, early):
            # A request may count from when it happened, or from when its owner is known.
            as_known = [evolve(fact, at=fact.known_at) for fact in facts]
            as_admitted = [evolve(fact, at=self._admitted_at(fact)) for fact in facts]
            for order in (facts, as_known, as_admitted):
                results += [self._replay(order, reading) for reading in self._readings()]
        return reduce(or_, results)

    def _readings(self) -> Iterator[Reading]:
        first = next((each for each in self.identified if not each.is_identified_at_once), None)
        late = range(first.number, len(self.exchanges) + 1) if first else ()
        joins = (False, True) if self.application.has_many_workers else (False,)
        for resumes, close, joins_ended in product((False, True), (0, *late), joins):
            yield Reading(resumes, close, joins_ended)

    def _admitted_at(self, fact: Fact) -> float:
        """Return when the owners of all earlier requests at the worker of a request are known."""
        exchange, is_one = fact.exchange, not self.application.has_many_workers
        earlier = [
            each
            for each in self.identified
            if exchange is not None
            and each.number <= exchange.number
            and (is_one or each.step.worker == exchange.step.worker)
        ]
        if all(each.is_identified_at_once for each in earlier):
            return fact.at
        # Before the next one is admitted, the store is asked.
        known = max(each.identified_at or 0.0 for each in earlier)
        return max(fact.at, known + len(earlier) * self.load_seconds + MOMENT)

    def _replay(self, facts: Sequence[Fact], reading: Reading) -> Expectation:
        replay = Replay(reading, self.application, self.identified, self.wire_bytes)
        replay.delay_seconds = self.delay_seconds
        for fact in sorted(facts, key=lambda fact: fact.at):
            replay.apply(fact)
        return replay.expectation()
