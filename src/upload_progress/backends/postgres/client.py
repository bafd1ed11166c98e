"""Connections to PostgreSQL for the store and the publisher: few, with short timeouts.

``psycopg_pool`` is supported and not used by default. Its pool hides a failure to connect behind
``PoolTimeout`` until its whole timeout is over, connects and retries in background tasks with a
warning for each attempt and for each cancelled statement, and after a restart of the server it
hands out each of its dead connections once, unless it checks them with a round trip per call.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from typing import Final, Protocol, runtime_checkable

import anyio
from attrs import Factory, define, field
from psycopg import AsyncConnection, Error, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed

from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.exceptions import InvalidValue, StoreBusy

__all__ = [
    "CALL_SECONDS",
    "CANCEL_SECONDS",
    "IDLE_SECONDS",
    "LATE_SECONDS",
    "MAX_CONNECTIONS",
    "WAIT_SECONDS",
    "BorrowedPool",
    "ConnectionPool",
    "LazyConnectionPool",
    "connect",
    "fetch_rows",
    "safe_pool",
    "validate_schema",
    "validate_url",
]


MAX_CONNECTIONS: Final = 6
"""Four for what clients cause (see ``ClientLane``), and two for the worker itself."""
IDLE_SECONDS: Final = 30.0
"""A connection that has been idle for this long is closed."""
CALL_SECONDS: Final = 0.75
"""Timeout of a call, including the wait for a connection."""
WAIT_SECONDS: Final = 0.5
"""Timeout of the wait for a connection."""
CANCEL_SECONDS: Final = 0.2
"""How long the server has to stop a cancelled statement before its connection is cut."""
LATE_SECONDS: Final = CANCEL_SECONDS + 0.15
"""If a call ends later than this after its timeout, the event loop did not run meanwhile."""
_MAX_NAME_BYTES: Final = 63
# PostgreSQL has no zero byte in names; psycopg reads a percent sign as a placeholder.
_FORBIDDEN: Final = frozenset("\0%")


class ConnectionPool(Protocol):
    """What a store or publisher needs of a pool, such as ``psycopg_pool.AsyncConnectionPool``."""

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[TupleRow]]:
        """Lend a connection for a block, and commit at its end if it did not raise."""


@runtime_checkable
class _CountingPool(Protocol):
    """A pool with statistics, such as those of psycopg_pool."""

    def get_stats(self) -> Mapping[str, int]:
        """Return the counters."""


def validate_url(url: str) -> str:
    """Return *url*, if libpq accepts it.

    Raises:
        InvalidValue: libpq does not. Its message is left out, as it may contain a password.
    """
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise InvalidValue(
            "url", "is not a valid PostgreSQL URL: expected postgresql://HOST:PORT/DATABASE"
        ) from None
    return url


def validate_schema(name: str) -> str:
    """Return *name*, if it can be the name of a schema. Statements quote it.

    Raises:
        InvalidValue: PostgreSQL would truncate the name, or does not accept it.
    """
    if not 0 < len(name.encode()) <= _MAX_NAME_BYTES or set(name) & _FORBIDDEN:
        raise InvalidValue("schema", f"must have 1 to {_MAX_NAME_BYTES} bytes without 0 and %")
    return name


async def connect(url: str) -> AsyncConnection[TupleRow]:
    """Return a new connection with autocommit and without prepared statements."""
    return await AsyncConnection.connect(
        url,
        autocommit=True,
        # A pooler such as PgBouncer may run the next transaction in another session.
        prepare_threshold=None,
        # The default is the encoding of the database; psycopg returns bytes for SQL_ASCII.
        client_encoding="UTF8",
    )


async def fetch_rows(
    connection: AsyncConnection[TupleRow],
    query: SQL | Composed,
    values: Mapping[str, object] | Sequence[object] | None,
) -> Sequence[TupleRow]:
    """Execute *query* and return its rows.

    If the caller is cancelled, so is the statement on the server, which otherwise would go on
    waiting for a lock, one session more with each attempt. If the server does not confirm that
    within ``CANCEL_SECONDS``, the connection is cut: psycopg alone would wait for as long as the
    network is down, and log a warning.

    Args:
        connection: Runs the statement, and is closed if the caller is cancelled.
        query: One statement; or several without *values*, of which the first returns the rows.
        values: Its parameters.
    """
    execution = asyncio.ensure_future(_execute(connection, query, values))
    try:
        return await asyncio.shield(execution)
    finally:
        if not execution.done():
            with anyio.CancelScope(shield=True):
                await _cancel(connection, execution)


async def _execute(
    connection: AsyncConnection[TupleRow],
    query: SQL | Composed,
    values: Mapping[str, object] | Sequence[object] | None,
) -> Sequence[TupleRow]:
    cursor = await connection.execute(query, values, prepare=False)
    return await cursor.fetchall() if cursor.description else ()


async def _cancel(
    connection: AsyncConnection[TupleRow], execution: asyncio.Future[Sequence[TupleRow]]
) -> None:
    with anyio.move_on_after(CANCEL_SECONDS), suppress(Error):
        await connection.cancel_safe()
        await asyncio.wait([execution])
    _shut_down_socket(connection)
    await asyncio.wait([execution])
    # Retrieved, as asyncio logs exceptions that nothing has retrieved.
    execution.exception()


def _shut_down_socket(connection: AsyncConnection[TupleRow]) -> None:
    """End the connection below psycopg, which then notices that by itself."""
    with suppress(Error, OSError):
        number = connection.fileno()
        with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


@define(eq=False, repr=False)
class LazyConnectionPool:
    """Pools of connections that are opened when needed, one for each event loop of each process.

    Args:
        url: Where they lead to.
        max_connections: How many one event loop uses at once.
        wait_seconds: How long a caller waits for one of them, at most.
    """

    _url: str
    _max_connections: int = field(default=MAX_CONNECTIONS, kw_only=True)
    _wait_seconds: float = field(default=WAIT_SECONDS, kw_only=True)
    _pools: LoopBound["_LoopPool"] = field(
        default=Factory(lambda self: self._make_pools(), takes_self=True), init=False
    )

    def _make_pools(self) -> LoopBound["_LoopPool"]:
        return LoopBound(
            lambda: _LoopPool(self._url, self._max_connections, self._wait_seconds),
            _LoopPool.close,
            _LoopPool.abandon,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Lend a connection for a block, in which each statement is a transaction of its own.

        Raises:
            StoreBusy: No connection became free within *wait_seconds*.
        """
        pool = await self._pools.get()
        async with pool.connection() as connection:
            yield connection

    async def close(self) -> None:
        """Close the idle connections of this event loop."""
        await self._pools.aclose()


@define(eq=False, repr=False)
class _LoopPool:
    """A pool of a few connections, opened when needed, without a task.

    After an error in a block its connection is closed, and so are the idle ones: most likely the
    server or the network has failed, and the next call connects again. So a server that is back
    is found at the first attempt. The connection that was used last is lent first; those that
    nothing has needed for ``IDLE_SECONDS`` are closed when another one is returned.
    """

    _url: str
    _max_connections: int
    _wait_seconds: float
    _limit: anyio.Semaphore = field(
        default=Factory(lambda self: anyio.Semaphore(self._max_connections), takes_self=True),
        init=False,
    )
    _idle: dict[AsyncConnection[TupleRow], float] = field(factory=dict, init=False)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        await self._wait_for_turn()
        try:
            connection = self._idle.popitem()[0] if self._idle else await connect(self._url)
            try:
                yield connection
            except BaseException:
                await connection.close()
                await self.close()
                raise
            self._idle[connection] = anyio.current_time()
            await self._close_unused()
        finally:
            self._limit.release()

    async def _wait_for_turn(self) -> None:
        try:
            self._limit.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(self._wait_seconds):
                    await self._limit.acquire()
            except TimeoutError:
                raise StoreBusy from None

    async def _close_unused(self) -> None:
        now = anyio.current_time()
        unused = [each for each, since in self._idle.items() if now - since >= IDLE_SECONDS]
        for connection in unused:
            del self._idle[connection]
        for connection in unused:
            await connection.close()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.popitem()[0].close()

    async def abandon(self) -> None:
        """Close the idle connections of the parent process, which goes on using them."""
        for connection in self._idle:
            # The goodbye that libpq sends would end the session.
            with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230, PTH123  # does not block
                os.dup2(nowhere.fileno(), connection.fileno())
        await self.close()


@define(eq=False, repr=False)
class BorrowedPool:
    """A pool of the application, which is not used if a parent process has used it.

    The application may use all of its connections: to wait for one is no failure of the server,
    unless the pool has tried to connect meanwhile, and failed.
    """

    _pool: BorrowedClient[ConnectionPool]
    _known_errors: int = field(default=0, init=False)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Lend a connection of the pool.

        Raises:
            InvalidValue: The pool was used before this process was forked.
            StoreBusy: No connection became free within ``WAIT_SECONDS``.
            TimeoutError: Nor could the pool connect to the server.
        """
        pool = await self._pool.get()
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(WAIT_SECONDS):
                    connection = await stack.enter_async_context(pool.connection())
            except (TimeoutError, OperationalError) as error:
                if not isinstance(error, TimeoutError) and not _is_exhausted(error):
                    raise
                if _connection_errors(pool) > self._known_errors:
                    raise TimeoutError from None
                raise StoreBusy from None
            self._known_errors = _connection_errors(pool)
            yield connection


def _is_exhausted(error: OperationalError) -> bool:
    """Return whether a pool of psycopg_pool, which need not be installed, had no connection."""
    return type(error).__name__ in {"PoolTimeout", "TooManyRequests"}


def _connection_errors(pool: ConnectionPool) -> int:
    """Return how often *pool* has failed to connect; 0 if it does not count that."""
    statistics = pool.get_stats() if isinstance(pool, _CountingPool) else {}
    return statistics.get("connections_errors", 0)


def safe_pool(pool: ConnectionPool) -> ConnectionPool:
    """Return *pool*, or a wrapper that refuses to use it in two processes."""
    if isinstance(pool, LazyConnectionPool):
        return pool
    return BorrowedPool(BorrowedClient("client", pool))
