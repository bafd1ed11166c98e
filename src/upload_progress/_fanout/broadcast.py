"""Send an update to many waiting sockets from one task.

Waking a task for each of a thousand sockets takes three times as long as sending to them. So one
task, a *round*, sends for all subscriptions that only wait in order to send. No socket may wait for
another: as soon as one ``send`` does not return at once, the round is stopped, and subscriptions
that have received nothing yet are woken to send themselves. The socket that does not read blocks
this round only; the next update starts a new round, which finds that socket busy and leaves the
newest update in its slot.

How a blocked ``send`` is noticed: a second task is started after the round's. It runs only when the
round gives way to the event loop, which a ``send`` that returns at once does not do.
"""

from collections.abc import Callable, Iterator
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Topic, Update
from upload_progress._runtime.task_spawner import TaskSpawner

__all__ = ["UPDATES_PER_TURN", "Broadcaster"]

UPDATES_PER_TURN: Final = 128
"""After so many updates the round gives way to the event loop: about one millisecond."""

_Delivery = tuple[Subscription, list[Update]]


@define(eq=False, repr=False)
class _Round:
    deliveries: Iterator[_Delivery]
    is_sending: bool = False
    is_over: bool = False


@define(eq=False, repr=False)
class Broadcaster:
    """Sends updates for subscriptions that wait; where no task can be started, wakes them.

    Args:
        recipients: Returns the subscriptions that match some updates of one owner, and the
            matching updates.
        tasks: Starts the two tasks of a round.
    """

    _recipients: Callable[[str, list[Update]], Iterator[_Delivery]]
    _tasks: TaskSpawner
    _pending: dict[Topic, Update] = field(factory=dict, init=False)
    _round: _Round | None = field(default=None, init=False)

    def add(self, update: Update) -> None:
        """Send *update* to all matching subscriptions; of one upload only the newest is sent."""
        pending = self._pending.get(update.topic)
        if pending is None or update.version.supersedes(pending.version):
            self._pending[update.topic] = update
        if self._round is None:
            current = self._round = _Round(self._deliveries())
            # The second task must be started second: it runs when the first gives way.
            is_started = self._tasks.spawn(lambda: self._run(current)) and self._tasks.spawn(
                lambda: self._stop_if_blocked(current)
            )
            if not is_started:
                self.stop_round()

    @property
    def is_busy(self) -> bool:
        """Whether some subscription has not received everything yet."""
        return self._round is not None

    def stop_round(self) -> None:
        """Wake all subscriptions that have received nothing yet, to send themselves."""
        current, self._round = self._round, None
        if current is not None:
            current.is_over = True
            for subscription, updates in current.deliveries:
                _offer(subscription, updates)

    def _deliveries(self) -> Iterator[_Delivery]:
        while self._pending:
            owner = next(iter(self._pending))[0]
            topics = [topic for topic in self._pending if topic[0] == owner]
            updates = [self._pending.pop(topic) for topic in topics]
            yield from self._recipients(owner, updates)

    async def _run(self, current: _Round) -> None:
        try:
            with anyio.CancelScope() as scope:
                await self._send(current, scope)
        finally:
            if not current.is_over:
                self.stop_round()

    async def _send(self, current: _Round, scope: anyio.CancelScope) -> None:
        sent = 0
        for subscription, updates in current.deliveries:
            current.is_sending = True
            await subscription.send_directly(updates, scope)
            current.is_sending = False
            if current.is_over:
                return
            sent += len(updates)
            if sent >= UPDATES_PER_TURN:
                sent = 0
                await checkpoint()

    async def _stop_if_blocked(self, current: _Round) -> None:
        while not current.is_over:
            if current.is_sending:
                self.stop_round()
            else:
                await checkpoint()


def _offer(subscription: Subscription, updates: list[Update]) -> None:
    for update in updates:
        subscription.offer(update)
