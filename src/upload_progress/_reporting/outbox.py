"""Events that wait for the publisher: the newest report and the ends of each upload.

Their number is limited: an end is dropped only if nothing but ends waits. After a failure, events
are sent one by one, and in growing batches while that succeeds: an event that cannot be encoded, or
that the broker refuses, delays the others, and does not stop them.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._fanout.update import Topic, Update
from upload_progress._model.cloudevents import event_of
from upload_progress._reporting.end_outbox import EndOutbox
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import EventPublisher

__all__ = ["MAX_REFUSALS", "MAX_UNPUBLISHED", "PORTION", "Outbox"]

MAX_UNPUBLISHED: Final = 10_000
PORTION: Final = 1000
MAX_REFUSALS: Final = 3
"""How often the broker has to refuse an event, and to accept another one after that, until the
event is dropped."""

_REPORT: Final = 0
_Key = tuple[Topic, int]
"""An upload, and the attempt that has ended; ``_REPORT`` for the newest report."""


@define(eq=False, repr=False, kw_only=True)
class Outbox:
    """Keeps the events that the broker has not accepted yet.

    Args:
        publisher: Publishes the events; None publishes nothing.
        breaker: The circuit breaker of the publisher.
        source: The ``source`` of the events.
        namespace: The ``namespace`` of the events.
        ends: Keeps the ends in the store, too.
        is_held: Returns whether the events of an owner are not to be published at the moment.
        log_limiter: Logs what is dropped.
        edge: The outbox of a push server, which gets the same events, also while the broker is
            away.

    Attributes:
        published: How many events the broker has accepted.
        dropped: How many events were dropped, ends included.
        dropped_ends: How many ends were dropped.
    """

    publisher: EventPublisher | None
    breaker: CircuitBreaker
    source: str
    namespace: str
    ends: EndOutbox
    is_held: Callable[[str], bool]
    log_limiter: LogLimiter
    edge: "Outbox | None" = None
    published: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    dropped_ends: int = field(default=0, init=False)
    _waiting: dict[_Key, Update] = field(factory=dict, init=False)
    _reports: dict[_Key, None] = field(factory=dict, init=False)
    _portion: int = field(default=PORTION, init=False)
    _suspect: _Key | None = field(default=None, init=False)
    _refusals: dict[_Key, int] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of events that wait."""
        return len(self._waiting) + (len(self.edge) if self.edge else 0)

    @property
    def is_used(self) -> bool:
        """Whether a broker or a push server gets the events."""
        return self.publisher is not None or self.edge is not None

    @property
    def waiting_ends(self) -> int:
        """The number of ends that wait."""
        return len(self._waiting) - len(self._reports)

    async def send(self, updates: Mapping[Topic, Update]) -> None:
        """Publish *updates*, and what could not be published before, unless it is held."""
        self.hold(updates)
        if self.publisher is not None:
            await self._send(self.publisher, updates)
        if self.edge is not None:
            await self.edge.send({})

    async def _send(self, publisher: EventPublisher, updates: Mapping[Topic, Update]) -> None:
        await self.ends.add(updates.values())
        if not self._waiting or self.breaker.is_open:
            return
        batch = self._take()
        if not batch:
            return
        events = [
            event_of(each.owner, each.progress, self.source, namespace=self.namespace)
            for each in batch.values()
        ]
        try:
            await self.breaker.call(lambda: publisher.publish(events))
        except BaseException as error:
            self._put_back(batch)
            if isinstance(error, StoreUnavailable):
                return
            raise
        self.published += len(events)
        self._portion = min(PORTION, 2 * self._portion)
        await self.ends.confirm([*batch.values(), *self._refused_since(batch)])

    def hold(self, updates: Mapping[Topic, Update]) -> None:
        """Keep *updates*, to be published later."""
        if self.edge is not None:
            self.edge.hold(updates)
        for update in updates.values() if self.publisher is not None else ():
            report = update.topic, _REPORT
            if update.is_end:
                self._remove(report)
                self._refusals.pop(report, None)
                self._waiting[update.topic, update.progress.attempt] = update
            else:
                self._waiting[report] = update
                self._reports[report] = None
        while len(self._waiting) > MAX_UNPUBLISHED:
            dropped = self._drop(
                next(iter(self._reports or self._waiting)),
                f"more than {MAX_UNPUBLISHED} events wait for the broker: the oldest are dropped",
            )
            self.ends.forget(dropped)

    def drop(self, topic: Topic, attempt: int) -> None:
        """Drop what waits to be published of an upload: the store has something else."""
        if self.edge is not None:
            self.edge.drop(topic, attempt)
        self._remove((topic, _REPORT))
        self._remove((topic, attempt))

    def reset(self) -> None:
        """Allow the next call at once, because there is no later one: the tracker stops."""
        self.breaker.reset()
        if self.edge is not None:
            self.edge.reset()

    def log_waiting(self) -> None:
        """Log what waits; the process is about to stop."""
        if self.edge is not None:
            self.edge.log_waiting()
        if self._waiting:
            self.log_limiter.log_warning(
                f"stopped before {self.breaker.name} had accepted {len(self._waiting)} events, "
                f"of which {self.waiting_ends} are ends of uploads",
                effect="their consumers read the store, or miss them",
                topic="unpublished at stop",
            )

    def _remove(self, key: _Key) -> None:
        self._waiting.pop(key, None)
        self._reports.pop(key, None)

    def _drop(self, key: _Key, reason: str) -> Update:
        self.dropped += 1
        self.dropped_ends += key not in self._reports
        update = self._waiting[key]
        self._remove(key)
        self.log_limiter.log_warning(reason, effect="their consumers read the store, or miss them")
        return update

    def _take(self) -> dict[_Key, Update]:
        """Remove and return the oldest events: passes that overlap do not send them twice."""
        ready = (item for item in self._waiting.items() if not self.is_held(item[1].owner))
        batch = dict(islice(ready, self._portion))
        for key in batch:
            self._remove(key)
        return batch

    def _put_back(self, batch: Mapping[_Key, Update]) -> None:
        """Let *batch* wait again, unless newer events wait; a single event waits as the last."""
        left = {key: update for key, update in batch.items() if not self._is_outdated(key, update)}
        self._portion = 1
        if len(batch) == 1:
            self._suspect = next(iter(batch))
            self._waiting |= left
        else:
            self._waiting = left | self._waiting
        self._reports |= {key: None for key in left if key[1] == _REPORT}

    def _is_outdated(self, key: _Key, update: Update) -> bool:
        return key in self._waiting or (update.topic, update.progress.attempt) in self._waiting

    def _refused_since(self, published: Mapping[_Key, Update]) -> Sequence[Update]:
        """Count that the broker has refused an event alone, and has accepted *published* since.

        Returns:
            The event, if that is dropped now.
        """
        suspect, self._suspect = self._suspect, None
        for key in published:
            self._refusals.pop(key, None)
        if suspect is None or suspect not in self._waiting:
            return ()
        refusals = self._refusals[suspect] = self._refusals.get(suspect, 0) + 1
        if refusals < MAX_REFUSALS:
            return ()
        del self._refusals[suspect]
        reason = "the broker refuses an event, or it cannot be encoded: it is dropped"
        return [self._drop(suspect, reason)]
