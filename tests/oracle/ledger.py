"""What the tracker should show: computed from what happened at the application.

A `Fact` is one thing that happened. `Ledger.expectation` replays the facts whose owner is known.
Where two orders of the facts are equally true, as when an owner is identified after the next
request has ended, both results are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum, unique
from functools import reduce
from math import inf
from operator import or_

from attrs import define, evolve, field, frozen

from tests.oracle.applications import Answer, Application, Exchange, Meaning, Position
from tests.oracle.steps import Kind
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import ErrorCode

__all__ = ["Cause", "Expectation", "Fact", "Ledger"]

S = UploadState
GONE = None
"""The state of an upload that nobody shows."""


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
    """

    at: float
    cause: Cause
    exchange: Exchange | None = None
    answer: Answer | None = None
    since: float = 0.0

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


@define(eq=False)
class Replay:
    """The state of an upload in several requests, after some facts.

    Attributes:
        application: The application, for the rules of its protocol.
        exchanges: All requests whose owner is known.
        wire_bytes: How many bytes were received over the wire.
        told: The bytes that the application said it has.
        unsure: The bytes of broken connections, by worker.
        exists: Whether the application has accepted a request.
        is_created: Whether a request has created it.
        has_begun: Whether a request has carried bytes.
        may_have_failed: Whether a first request failed, which may be shown as a failed upload.
        may_have_completed: Whether it was completed, and nothing else is known of it.
        is_refused: Whether no client can go on with it, although nothing was accepted.
        total: The size, if it is known.
        is_named: Whether the application has given it a file name.
        ended: The final states that the upload may have; none while it is open.
        ended_at: When it ended.
        before: What the attempt before may be shown as.
    """

    application: Application
    exchanges: Sequence[Exchange] = ()
    wire_bytes: int = 0
    told: set[Position] = field(factory=set)
    unsure: dict[int, set[Position]] = field(factory=dict)
    exists: bool = False
    is_created: bool = False
    has_begun: bool = False
    may_have_failed: bool = False
    may_have_completed: bool = False
    is_refused: bool = False
    total: int | None = None
    is_named: bool = False
    ended: frozenset[UploadState | None] = frozenset()
    ended_at: float = 0.0
    before: Expectation | None = None

    def apply(self, fact: Fact) -> None:
        """Apply *fact*, unless the upload has ended."""
        exchange = fact.exchange
        if exchange is None:
            if not self.ended:
                self._end(fact, S.CANCELLED)
            return
        if self.ended:
            if not self._begins_again(exchange):
                return
            self._begin_again()
        self.has_begun |= exchange.received > 0
        is_answered = fact.answer is None or fact.answer.meaning is not Meaning.TOLD
        self.is_refused = exchange.plan.kind is Kind.CREATE and is_answered
        if exchange.failed_at is not None:
            self._end(fact, S.FAILED)
        elif fact.answer is None:
            self._apply_failure(fact, exchange)
        else:
            self._apply_answer(fact, exchange, fact.answer)

    def _begin_again(self) -> None:
        """Begin the next attempt."""
        self.before, self.ended = self.expectation(), frozenset()
        self.told, self.unsure, self.total = set(), {}, None
        self.exists = self.has_begun = self.may_have_failed = self.is_created = False
        self.may_have_completed = self.is_refused = self.is_named = False

    def _begins_again(self, exchange: Exchange) -> bool:
        """Return whether a request that is sent after the end begins the next attempt."""
        plan, application = exchange.plan, self.application
        if exchange.started_at < self.ended_at:
            return False
        if plan.kind is Kind.CREATE:
            return application.has_id
        return application.starts_again and plan.kind is Kind.BYTES and not plan.start

    def _apply_failure(self, fact: Fact, exchange: Exchange) -> None:
        """Apply an exception, a broken connection, or a cancelled application."""
        if fact.cause is not Cause.RAISED:
            unsure = self.unsure.setdefault(exchange.step.worker, set())
            unsure |= exchange.positions(exchange.received)
        self._note_first_failure(exchange)

    def _note_first_failure(self, exchange: Exchange) -> None:
        if not self.exists and not self.application.knows_session:
            self.may_have_failed = True
        if not self.exists and exchange.plan.kind is Kind.CREATE:
            self.may_have_failed = True

    def _apply_answer(self, fact: Fact, exchange: Exchange, answer: Answer) -> None:
        match answer.meaning:
            case Meaning.TOLD:
                pass
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
            return
        if exchange.plan.kind is Kind.CREATE:
            self._create()
        if self._may_be_late(exchange):
            self.unsure.setdefault(exchange.step.worker, set()).update(answer.accepted)
            return
        self.exists |= exchange.plan.kind is not Kind.ASK
        self.is_named |= exchange.set_at is not None
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

    def _create(self) -> None:
        """Begin the upload; if it has begun before, its end is not known here."""
        if self.is_created and not self.application.creates_parts:
            self._begin_again()
            self.before = None
        self.is_created = True

    def _may_be_late(self, exchange: Exchange) -> bool:
        """Return whether a request may belong to an attempt that has failed before."""
        has_failed = self.may_have_failed and not self.exists
        return has_failed and self.application.knows_session and exchange.plan.kind is Kind.BYTES

    def _is_seen(self, fact: Fact) -> bool:
        """Return whether another request has shown the upload before."""
        return self.exists or any(
            each is not fact.exchange and max(each.started_at, each.identified_at or 0.0) <= fact.at
            for each in self.exchanges
        )

    def _apply_rejection(self, fact: Fact, exchange: Exchange) -> None:
        if self.exists and exchange.plan.kind is not Kind.CREATE:
            self._end(fact, S.FAILED)
        elif not self.exists:
            self.may_have_failed = self.is_refused = True

    def _accept(self, exchange: Exchange, answer: Answer) -> None:
        part, worker = exchange.plan.part, exchange.step.worker
        self.total = self.total or exchange.plan.announced or answer.total
        if answer.replaces:
            self.told -= {each for each in self.told if each[0] == part}
        self.told |= answer.accepted
        if answer.offset is not None:
            self.told |= {(part, at) for at in range(answer.offset)}
        if answer.offset is not None and self.application.is_sequential:
            unsure = self.unsure.get(worker, set())
            unsure -= {each for each in unsure if each[0] == part and each[1] >= answer.offset}

    def _complete(self, fact: Fact) -> None:
        """Complete the upload, or fail it: another request may have called ``fail()`` before."""
        has_failed = any((each.failed_at or inf) <= fact.at for each in self.exchanges)
        self._end(fact, S.COMPLETED, *([S.FAILED] if has_failed else []))

    def _end(self, fact: Fact, *states: UploadState | None) -> None:
        self.ended, self.ended_at = frozenset(states), fact.at

    @property
    def may_be(self) -> set[Position]:
        """The bytes that may be shown."""
        return self.told.union(*self.unsure.values())

    def expectation(self) -> Expectation:
        """Return what may be shown after these facts."""
        return evolve(self._expectation(), is_named=self.is_named)

    def _expectation(self) -> Expectation:
        if self.ended:
            return self._after_end()
        if self.exists:
            states: set[UploadState | None] = {S.PAUSED}
            states |= set() if self.has_begun and self.told else {S.PENDING}
            return Expectation(frozenset(states), len(self.told), len(self.may_be), self.total)
        states = {GONE} if self.is_refused else {GONE, S.PAUSED, S.PENDING}
        states |= {S.FAILED} if self.may_have_failed else set()
        states |= {S.COMPLETED} if self.may_have_completed else set()
        size = self.wire_bytes if self.may_have_completed else len(self.may_be)
        nothing = Expectation(frozenset(states), 0, size)
        return nothing | self.before if self.before else nothing

    def _after_end(self) -> Expectation:
        if self.ended == {S.COMPLETED}:
            size = self.total if self.total is not None else len(self.told)
            if self.application.completes_at_total:
                return Expectation(self.ended, size, size, size)
            # Nobody knows the bytes of requests whose owner is unknown.
            return Expectation(self.ended, min(size, len(self.told)), size)
        return Expectation(self.ended, 0, self.wire_bytes)


def plain_outcome(exchange: Exchange, fact: Fact) -> Expectation:
    """Return what a plain request may be shown as when it has ended by *fact*."""
    answer, size = fact.answer, exchange.received
    if answer is not None and exchange.failed_at is None:
        if answer.meaning is Meaning.COMPLETED:
            return Expectation(frozenset({S.COMPLETED}), size, size)
        if answer.status in {301, 307, 308}:
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
    """

    application: Application
    protocol: str = "plain"
    is_announced: bool = False
    facts: list[Fact] = field(factory=list)
    exchanges: list[Exchange] = field(factory=list)

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
        """How many different bytes of the upload were received over the wire."""
        if self.protocol == "plain":
            return max((each.received for each in self.exchanges), default=0)
        return len(set().union(*(each.positions(each.received) for each in self.exchanges)))

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
        several = [
            self._expect_request(exchange) for exchange in known if exchange.started_at == newest
        ]
        return reduce(or_, several)

    def _expect_request(self, exchange: Exchange) -> Expectation:
        fact = self.fact_of(exchange)
        assert fact is not None
        is_named = exchange.set_at is not None
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
        known = [each for each in self.facts if each.exchange is None]
        known += [fact for each in self.identified if (fact := self.fact_of(each))]
        # What happened during a call that cancelled the upload may have been first.
        early = [evolve(fact, at=fact.since) if fact.exchange is None else fact for fact in known]
        results = list[Expectation]()
        for facts in (known, early):
            # A request may count from when it happened, or from when its owner is known.
            as_known = [evolve(fact, at=fact.known_at) for fact in facts]
            results += [self._replay(facts), self._replay(as_known)]
        return reduce(or_, results)

    def _replay(self, facts: Sequence[Fact]) -> Expectation:
        replay = Replay(self.application, self.identified, self.wire_bytes)
        for fact in sorted(facts, key=lambda fact: fact.at):
            replay.apply(fact)
        return replay.expectation()
