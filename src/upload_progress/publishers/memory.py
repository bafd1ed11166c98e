"""Events inside this process: a publisher, a feed and a post in one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attrs import define, field

from upload_progress.switchboard import (
    EVERYBODY,
    MAX_WAITING,
    Address,
    Box,
    Listener,
    Switchboard,
    checked_letter,
)
from upload_progress.wire import CloudEvent

__all__ = ["MAX_WAITING", "MemoryPublisher"]


@define(eq=False, repr=False)
class MemoryPublisher:
    """An ``EventPublisher``, ``EventFeed`` and ``Post`` for consumers in the same process."""

    _board: Switchboard = field(factory=Switchboard, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Hand *events* to whoever listens."""
        for event in events:
            self._board.deliver(event, Address.of_owner(event.owner), EVERYBODY)

    @asynccontextmanager
    async def listen(self, owner: str | None = None) -> AsyncIterator[Listener]:
        """Follow the events of *owner*, or of everybody, from now on."""
        with self._board.listening(owner) as listener:
            yield listener

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        self._board.bring_letter(checked_letter(letter), Address.of_worker(worker))

    @asynccontextmanager
    async def letters(self, worker: str) -> AsyncIterator[Box]:
        """Empty the box of *worker*, from now on."""
        with self._board.emptying(worker) as box:
            yield box
