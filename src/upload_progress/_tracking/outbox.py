"""What is on its way to the event publisher: of each upload the newest, and no more."""

from collections.abc import Mapping
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._fanout.update import Update
from upload_progress._model.cloudevents import event_of
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import EventPublisher

__all__ = [
    "MOST_UNPUBLISHED",
    "Outbox",
    "PORTION",
    "Topic",
]

MOST_UNPUBLISHED: Final = 10_000
PORTION: Final = 1000

Topic = tuple[str, str]
"""An owner and an upload id."""


@define(eq=False, repr=False)
class Outbox:
    """Keeps what a broker has not taken yet.

    Attributes:
        published: How many events it has taken.
    """

    publisher: EventPublisher | None
    breaker: CircuitBreaker
    source: str
    published: int = field(default=0, init=False)
    waiting: dict[Topic, Update] = field(factory=dict, init=False)

    async def send(self, updates: Mapping[Topic, Update]) -> None:
        """Send *updates* and what could not be sent before."""
        publisher, waiting = self.publisher, self.waiting
        if publisher is None:
            return
        waiting |= updates
        while len(waiting) > MOST_UNPUBLISHED:
            del waiting[next(iter(waiting))]
        if not waiting or self.breaker.is_resting:
            return
        batch = dict(islice(waiting.items(), PORTION))
        events = [event_of(each.owner, each.progress, self.source) for each in batch.values()]
        try:
            await self.breaker.call(lambda: publisher.publish(events))
        except StoreUnavailable:
            return
        self.published += len(events)
        for topic, update in batch.items():
            if waiting.get(topic) is update:
                del waiting[topic]
