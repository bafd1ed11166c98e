"""The subscribing half of a broker adapter: one connection per process, reconnected when lost.

``BrokerSubscriber`` connects, subscribes to all channels of its ``SubscriptionTable``, and keeps
the subscriptions of the connection equal to the table. When the connection is lost, it reconnects
with exponential backoff; all streams and inboxes yield ``ConnectionLost``, and ``EventsMissed``
after the reconnect. What differs between brokers is behind ``BrokerConnection``.

The network drivers run on asyncio only, and so does this.
"""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, closing
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from upload_progress._runtime.backoff import Backoff
from upload_progress._runtime.log_limiter import AVAILABILITY, LogLimiter, first_cause
from upload_progress.backends.subscriptions import Channel, EventQueue, Inbox, SubscriptionTable
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import ConnectionLost, EventsMissed, SystemClock

__all__ = [
    "CLOSE_SECONDS",
    "CONNECT_SECONDS",
    "FIRST_DELAY_SECONDS",
    "MAXIMUM_DELAY_SECONDS",
    "BrokerConnection",
    "BrokerEventStream",
    "BrokerStatistics",
    "BrokerSubscriber",
]

CONNECT_SECONDS: Final = 4.0
"""Timeout to connect, and to subscribe."""
CLOSE_SECONDS: Final = 1.0
FIRST_DELAY_SECONDS: Final = 0.1
MAXIMUM_DELAY_SECONDS: Final = 3.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


class BrokerConnection(Protocol):
    """A connection to a broker that receives, from connecting until it is lost."""

    async def receive(self) -> None:
        """Deliver what arrives to the subscription table; raise when the connection is lost.

        The connection also counts as lost when the broker does not answer a heartbeat.
        """

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Receive from *channels*, too; return when the broker has confirmed it."""

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Receive nothing more from *channels*."""

    async def close(self) -> None:
        """Disconnect."""


@frozen
class BrokerStatistics:
    """Counters of a broker adapter since it was created.

    Attributes:
        is_connected: Whether it is connected, and all subscriptions are confirmed.
        connection_failures: How often the connection was lost or could not be made.
        events: Events that were delivered to at least one stream.
        messages: Messages that were delivered to at least one inbox.
        unreadable: Events and messages that could not be decoded.
        forged: Events that came over the channel of another owner.
    """

    is_connected: bool
    connection_failures: int
    events: int
    messages: int
    unreadable: int
    forged: int


@define(eq=False, repr=False, kw_only=True)
class BrokerSubscriber(ABC):
    """An ``EventSubscriber``, and the receiving half of a ``MessageTransport``, over a broker.

    Enter it with ``async with``.

    Args:
        heartbeat_seconds: After this long without traffic the broker is asked for a sign of life.
            Without an answer within the same time the connection counts as lost.

    Attributes:
        log_limiter: Limits the log lines about this broker; its circuit breaker shares it.
    """

    heartbeat_seconds: float = 4.0
    log_limiter: LogLimiter = field(factory=lambda: LogLimiter(SystemClock()), init=False)
    _table: SubscriptionTable = field(factory=SubscriptionTable, init=False)
    _confirmed: set[Channel] = field(factory=set, init=False)
    _progressed: anyio.Event = field(factory=anyio.Event, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _process_id: int = field(default=0, init=False)
    _is_connected: bool = field(default=False, init=False)
    _connection_failures: int = field(default=0, init=False)

    @abstractmethod
    async def _connect(self) -> BrokerConnection:
        """Return a new connection to the broker."""

    @abstractmethod
    async def _close(self) -> None:
        """Close what this adapter opened itself."""

    async def __aenter__(self) -> Self:
        """Start to connect. The broker need not be available.

        Raises:
            InvalidValue: The event loop is not asyncio's, or this is entered already.
        """
        name = type(self).__name__
        if self._is_entered:
            raise InvalidValue(name, "is entered already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidValue(name, "needs asyncio: its driver runs on no other loop") from None
        if self._tasks is not None:
            # The parent process goes on to receive for its streams.
            self._table, self._confirmed, self._is_connected = SubscriptionTable(), set(), False
        # An event belongs to the event loop in which a task has waited for it.
        self._process_id, self._progressed = os.getpid(), anyio.Event()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._stay_connected)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect, and close what was opened here. A client that was passed in stays open."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None  # noqa: S101  # Python calls this only after __aenter__
        self._wake_waiting()
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._close()

    @property
    def _is_entered(self) -> bool:
        """Whether this is entered, and not only in a parent process."""
        return self._tasks is not None and self._process_id == os.getpid()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventQueue]:
        """Return a new stream of events, which is subscribed to no owner yet.

        Raises:
            NotEntered: This adapter is not entered.
        """
        await self.wait_until_confirmed(())
        with closing(BrokerEventStream(self._table, self)) as stream:
            yield stream

    @asynccontextmanager
    async def inbox(self, worker: str) -> AsyncIterator[Inbox]:
        """Receive the messages to *worker*, once the broker has confirmed the subscription.

        Raises:
            NotEntered: This adapter is not entered.
        """
        with self._table.inbox(worker) as inbox:
            await self.wait_until_confirmed([Channel.of_worker(worker)])
            yield inbox

    def statistics(self) -> BrokerStatistics:
        """Return the current counters."""
        table = self._table
        return BrokerStatistics(
            is_connected=self._is_connected,
            connection_failures=self._connection_failures,
            events=table.events,
            messages=table.messages,
            unreadable=table.unreadable,
            forged=table.forged,
        )

    async def wait_until_confirmed(self, channels: Collection[Channel]) -> None:
        """Return when the broker has confirmed the subscriptions to *channels*.

        Raises:
            NotEntered: This adapter is not entered, or was left meanwhile.
        """
        while self._is_entered:
            progressed = self._progressed
            if self._confirmed.issuperset(channels):
                return
            await progressed.wait()
        raise NotEntered(type(self).__name__)

    async def _stay_connected(self) -> None:
        """Reconnect until cancelled."""
        backoff = Backoff(first_seconds=FIRST_DELAY_SECONDS, maximum_seconds=MAXIMUM_DELAY_SECONDS)
        while True:
            error: Exception = ConnectionError()
            try:
                await self._use_connection()
            except Exception as caught:  # noqa: BLE001  # whatever it is, a reconnect may help
                error = caught
            if self._is_connected:
                backoff.reset()
            self._confirmed, self._is_connected = set(), False
            self._connection_failures += 1
            self._table.notify(ConnectionLost())
            delay_seconds = backoff.next_delay_seconds()
            self._log(error, delay_seconds)
            await anyio.sleep(delay_seconds)

    async def _use_connection(self) -> None:
        """Connect, and receive until the connection is lost."""
        with anyio.fail_after(CONNECT_SECONDS):
            connection = await self._connect()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._receive, connection, tasks.cancel_scope)
                await self._update_subscriptions(connection)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await connection.close()

    async def _receive(self, connection: BrokerConnection, scope: anyio.CancelScope) -> None:
        try:
            await connection.receive()
        finally:
            # Also if a driver's own task was cancelled, which looks as if this one were.
            scope.cancel()

    async def _update_subscriptions(self, connection: BrokerConnection) -> None:
        """Keep the subscriptions of *connection* equal to those of the table."""
        while True:
            wanted = self._table.channels
            removed, added = self._confirmed - wanted, wanted - self._confirmed
            self._confirmed -= removed
            with anyio.fail_after(CONNECT_SECONDS):
                if removed:
                    await connection.unsubscribe(removed)
                if added:
                    await connection.subscribe(added)
            self._confirmed |= added
            if not self._is_connected and self._connection_failures:
                self._table.notify(EventsMissed())
            self._is_connected = True
            self._wake_waiting()
            await self._table.changed()

    def _wake_waiting(self) -> None:
        """Let the tasks in ``wait_until_confirmed`` check again."""
        self._progressed.set()
        self._progressed = anyio.Event()

    def _log(self, error: Exception, delay_seconds: float) -> None:
        self.log_limiter.log_warning(
            f"{type(self).__name__}: connection lost",
            first_cause(error),
            effect=f"reconnecting in {delay_seconds:.1f} s",
            topic=AVAILABILITY,
        )


@define(eq=False, repr=False)
class BrokerEventStream(EventQueue):
    """An ``EventStream`` over a broker: to subscribe waits for the broker's confirmation."""

    _subscriber: BrokerSubscriber

    async def subscribe(self, *owners: str | None) -> None:
        """Receive the events of *owners*; return when the broker has confirmed it.

        Raises:
            NotEntered: The adapter was left meanwhile.
        """
        await super().subscribe(*owners)
        await self._subscriber.wait_until_confirmed(list(map(Channel.of_owner, owners)))
