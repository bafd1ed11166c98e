"""The half of a broker's adapter that hears: one line for the whole process, mended by itself.

A line is dialled, and what is listened to is subscribed; when the broker has confirmed it, those
who listen are let in. A line that breaks is dialled again, after a rest that grows up to a bound,
and then everybody is told that they may have missed something. What is a broker's own, its channels
and its heartbeat, is behind ``Wire``.

For asyncio only, as the drivers are.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from upload_progress.backends.subscriptions import Address, EventQueue, Inbox, SubscriptionTable
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import OnConnectionLost

__all__ = [
    "CLOSE_SECONDS",
    "DIAL_SECONDS",
    "FIRST_REST_SECONDS",
    "LOG_EVERY_SECONDS",
    "LONGEST_REST_SECONDS",
    "BrokerConnection",
    "BrokerStatistics",
    "BrokerSubscriber",
]

DIAL_SECONDS: Final = 4.0
CLOSE_SECONDS: Final = 1.0
FIRST_REST_SECONDS: Final = 0.1
LONGEST_REST_SECONDS: Final = 3.0
LOG_EVERY_SECONDS: Final = 30.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


class BrokerConnection(Protocol):
    """A line to a broker, from when it was dialled until it breaks."""

    async def hear(self) -> None:
        """Bring what comes to the switchboard; raise when the line is dead or silent."""

    async def subscribe(self, addresses: Collection[Address]) -> None:
        """Hear what is sent to *addresses*, too; return when the broker has confirmed it."""

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        """Hear nothing more of *addresses*."""

    async def close(self) -> None:
        """Hang up."""


@frozen
class BrokerStatistics:
    """What a feed has done so far.

    Attributes:
        is_connected: Whether the line is up.
        breaks: How often it broke, or could not be dialled.
        events: How many came that somebody listens to.
        letters: How many came that somebody waits for.
        unreadable: How many of the events were none, and were passed over.
        forged: How many came on the channel of an owner who is not theirs.
    """

    is_connected: bool
    breaks: int
    events: int
    letters: int
    unreadable: int
    forged: int


@define(eq=False, repr=False, kw_only=True)
class BrokerSubscriber(ABC):
    """An ``EventSubscriber``, and the receiving half of a ``Post``. Enter it with ``async with``.

    Args:
        heartbeat_seconds: After so long a silence the broker is asked whether it is there; after
            as long again without an answer the line is taken for dead.

    Attributes:
        on_connection_lost: Told of each break instead of the log.
    """

    heartbeat_seconds: float = 4.0
    on_connection_lost: OnConnectionLost | None = field(default=None, init=False)
    _board: SubscriptionTable = field(factory=SubscriptionTable, init=False)
    _confirmed: set[Address] = field(factory=set, init=False)
    _changed: anyio.Event = field(factory=anyio.Event, init=False)
    _settled: anyio.Event = field(factory=anyio.Event, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _is_connected: bool = field(default=False, init=False)
    _breaks: int = field(default=0, init=False)
    _has_missed: bool = field(default=False, init=False)
    _logged_at: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Let the switchboard say when what is listened to has changed."""
        self._board.on_change = self._note_change

    @abstractmethod
    async def _dial(self) -> BrokerConnection:
        """Return a new line to the broker."""

    @abstractmethod
    async def _close(self) -> None:
        """Close what this adapter opened itself."""

    async def __aenter__(self) -> Self:
        """Begin to keep a line up; the broker need not be there.

        Raises:
            InvalidValue: The event loop is not asyncio's, or this is entered already.
        """
        name = type(self).__name__
        if self._tasks is not None:
            raise InvalidValue(name, "is entered already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidValue(name, "needs asyncio: its driver runs on no other loop") from None
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._keep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up, and close what was opened here; a client that was given stays open."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None  # noqa: S101  # entered, as Python calls this only then
        self._load_prior_state()
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._close()

    @asynccontextmanager
    async def listen(self, owner: str | None = None) -> AsyncIterator[EventQueue]:
        """Follow the events of *owner*, or of everybody, from now on.

        Entered, it hears; while the broker is not there, entering waits for it.

        Raises:
            NotEntered: Nothing keeps a line up.
        """
        with self._board.listening(owner) as listener:
            await self._confirmation(Address.of_owner(owner))
            yield listener

    @asynccontextmanager
    async def letters(self, worker: str) -> AsyncIterator[Inbox]:
        """Empty the box of *worker*, from now on.

        Raises:
            NotEntered: Nothing keeps a line up.
        """
        with self._board.emptying(worker) as box:
            await self._confirmation(Address.of_worker(worker))
            yield box

    def statistics(self) -> BrokerStatistics:
        """Return the figures of this moment."""
        board = self._board
        return BrokerStatistics(
            self._is_connected,
            self._breaks,
            board.events,
            board.letters,
            board.unreadable,
            board.forged,
        )

    async def _confirmation(self, address: Address) -> None:
        while self._tasks is not None:
            settled = self._settled
            if address in self._confirmed:
                return
            await settled.wait()
        raise NotEntered(type(self).__name__)

    async def _keep(self) -> None:
        """Keep a line up for ever."""
        rest_seconds = FIRST_REST_SECONDS
        while True:
            error: Exception | None = None
            try:
                await self._serve()
            except Exception as caught:  # noqa: BLE001  # whatever it is, the line is mended
                error = caught
            if self._is_connected:
                rest_seconds = FIRST_REST_SECONDS
            self._confirmed, self._is_connected, self._has_missed = set(), False, True
            self._breaks += 1
            self._complain(error)
            await anyio.sleep(rest_seconds * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            rest_seconds = min(rest_seconds * 2, LONGEST_REST_SECONDS)

    async def _serve(self) -> None:
        """Use one line until it breaks."""
        with anyio.fail_after(DIAL_SECONDS):
            wire = await self._dial()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, wire, tasks.cancel_scope)
                await self._follow(wire)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await wire.close()

    async def _hear(self, wire: BrokerConnection, both: anyio.CancelScope) -> None:
        try:
            await wire.hear()
        finally:
            # Also when a driver's own task was cancelled, which looks as if this one were.
            both.cancel()

    async def _follow(self, wire: BrokerConnection) -> None:
        """Subscribe to what is listened to, whenever that changes."""
        while True:
            changed = self._changed = anyio.Event()
            wanted = self._board.addresses
            gone, new = self._confirmed - wanted, wanted - self._confirmed
            self._confirmed -= gone
            with anyio.fail_after(DIAL_SECONDS):
                if gone:
                    await wire.unsubscribe(gone)
                if new:
                    await wire.subscribe(new)
            self._confirmed |= new
            self._is_connected = True
            if self._has_missed:
                self._has_missed = False
                self._board.miss()
            self._load_prior_state()
            await changed.wait()

    def _note_change(self) -> None:
        self._changed.set()

    def _load_prior_state(self) -> None:
        """Let those look who wait for a confirmation."""
        self._settled.set()
        self._settled = anyio.Event()

    def _complain(self, error: Exception | None) -> None:
        now, cause = asyncio.get_running_loop().time(), _first(error or ConnectionError())
        if self.on_connection_lost is not None:
            self.on_connection_lost(cause)
        elif self._logged_at is None or now - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = now
            # What is ours says what to do; what is a driver's may hold anything.
            what = str(cause) if isinstance(cause, InvalidValue) else type(cause).__name__
            name = type(self).__name__
            logger.warning("the line of %s is down (%s); it is being mended", name, what)


def _first(error: Exception) -> Exception:
    """Return what began it: a task group wraps what its tasks raise."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
