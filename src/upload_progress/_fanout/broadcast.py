"""Sends on behalf of watchers that wait for news only to send them on.

To wake a task for each of a thousand sockets takes three times as long as to send to them. So one
task, the courier, goes round and sends for all of those that wait. That must never make one of
them wait for another: as soon as a ``send`` does not return at once, the courier is relieved, and
whoever has got nothing yet is woken to send for itself. The one that does not read keeps that
courier, and nobody else: the next news are for a new one, who finds it still busy and leaves the
newest in its slot.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._fanout.update import Update

__all__ = [
    "Broadcaster",
    "PORTION",
    "Recipient",
]

PORTION: Final = 128
"""After so many it gives way to others: about a millisecond."""

_Spawn = Callable[[Callable[[], Awaitable[None]]], bool]


_Errand = tuple["Recipient", list[Update]]


class Recipient(Protocol):
    """A watcher, as the courier sees it."""

    @property
    def is_waiting(self) -> bool:
        """Whether it may be sent for."""

    def offer(self, update: Update) -> None:
        """Wake it, to send for itself."""

    async def send_for(self, updates: list[Update], scope: anyio.CancelScope) -> None:
        """Send for it; its failure is its own, and when it leaves it cancels *scope*."""


@define(eq=False, repr=False)
class _Tour:
    errands: Iterator[_Errand]
    is_sending: bool = False
    is_over: bool = False


@define(eq=False, repr=False)
class Broadcaster:
    """Brings news to recipients. Where it cannot be employed, they are woken.

    Attributes:
        recipients: Says who gets which of some updates of one owner.
        spawn: Runs a task in the background; returns False where nothing runs that could.
    """

    recipients: Callable[[str, list[Update]], Iterator[_Errand]]
    spawn: _Spawn = field(default=lambda _work: False)
    _pending: dict[tuple[str, str], Update] = field(factory=dict, init=False)
    _tour: _Tour | None = field(default=None, init=False)

    def add(self, update: Update) -> None:
        """Bring *update* to everybody whom it concerns; of one upload the newest is enough."""
        known = self._pending.get(update.topic)
        if known is None or known.progress.sequence < update.progress.sequence:
            self._pending[update.topic] = update
        if self._tour is None:
            tour = self._tour = _Tour(self._walk())
            # Started second, so that it runs when the first gives way.
            employed = self.spawn(lambda: self._go(tour)) and self.spawn(
                lambda: self._relieve(tour)
            )
            if not employed:
                self.hand_over()

    @property
    def is_out(self) -> bool:
        """Whether somebody has not got everything yet."""
        return self._tour is not None

    def hand_over(self) -> None:
        """Let everybody who has got nothing yet send for themselves."""
        tour, self._tour = self._tour, None
        if tour is not None:
            tour.is_over = True
            for recipient, updates in tour.errands:
                _offer(recipient, updates)

    def _walk(self) -> Iterator[_Errand]:
        while self._pending:
            owner = next(iter(self._pending))[0]
            topics = [topic for topic in self._pending if topic[0] == owner]
            updates = [self._pending.pop(topic) for topic in topics]
            for recipient, wanted in self.recipients(owner, updates):
                if recipient.is_waiting:
                    yield recipient, wanted
                else:
                    _offer(recipient, wanted)

    async def _go(self, tour: _Tour) -> None:
        try:
            with anyio.CancelScope() as scope:
                await self._deliver(tour, scope)
        finally:
            if not tour.is_over:
                self.hand_over()

    async def _deliver(self, tour: _Tour, scope: anyio.CancelScope) -> None:
        sent = 0
        for recipient, updates in tour.errands:
            tour.is_sending = True
            await recipient.send_for(updates, scope)
            tour.is_sending = False
            if tour.is_over:
                return
            sent += len(updates)
            if sent >= PORTION:
                sent = 0
                await checkpoint()

    async def _relieve(self, tour: _Tour) -> None:
        """Look whether the courier is held up: this runs when it does not."""
        while not tour.is_over:
            if tour.is_sending:
                self.hand_over()
            else:
                await checkpoint()


def _offer(recipient: Recipient, updates: list[Update]) -> None:
    for update in updates:
        recipient.offer(update)
