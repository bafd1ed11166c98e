"""Events that wait for the publisher: the newest of each upload, up to a limit."""

from collections.abc import Mapping
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._fanout.update import Topic, Update
from upload_progress._model.cloudevents import event_of
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import EventPublisher

__all__ = ["MAX_UNPUBLISHED", "PORTION", "Outbox"]

MAX_UNPUBLISHED: Final = 10_000
PORTION: Final = 1000


@define(eq=False, repr=False)
class Outbox:
    """Keeps the events that the broker has not accepted yet.

    Args:
        publisher: Publishes the events; None publishes nothing.
        breaker: The circuit breaker of the publisher.
        source: The ``source`` of the events.
        namespace: The ``namespace`` of the events.

    Attributes:
        published: How many events the broker has accepted.
    """

    publisher: EventPublisher | None
    breaker: CircuitBreaker
    source: str
    namespace: str
    published: int = field(default=0, init=False)
    waiting: dict[Topic, Update] = field(factory=dict, init=False)

    async def send(self, updates: Mapping[Topic, Update]) -> None:
        """Publish *updates*, and what could not be published before."""
        publisher, waiting = self.publisher, self.waiting
        if publisher is None:
            return
        waiting |= updates
        while len(waiting) > MAX_UNPUBLISHED:
            del waiting[next(iter(waiting))]
        if not waiting or self.breaker.is_open:
            return
        # Not sent twice by passes that overlap.
        batch = {topic: waiting.pop(topic) for topic in list(islice(waiting, PORTION))}
        events = [
            event_of(each.owner, each.progress, self.source, namespace=self.namespace)
            for each in batch.values()
        ]
        try:
            await self.breaker.call(lambda: publisher.publish(events))
        except BaseException as error:
            self.waiting = batch | self.waiting
            if isinstance(error, StoreUnavailable):
                return
            raise
        self.published += len(events)
