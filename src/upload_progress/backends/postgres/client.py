"""Connections to PostgreSQL as a store wants them: impatient, few, and silent about passwords."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Protocol

import anyio
from attrs import define, field
from psycopg import AsyncConnection, Error, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CALL_SECONDS",
    "CANCEL_SECONDS",
    "MOST",
    "Connections",
    "Lender",
    "checked_schema",
    "checked_url",
    "connected",
    "rows_of",
]


MOST: Final = 4
CALL_SECONDS: Final = 0.75
CANCEL_SECONDS: Final = 0.2
"""So long the server has for stopping what nobody waits for any more."""
_LONGEST_NAME: Final = 63
# PostgreSQL has no zero in names; a percent sign begins a place for a value, to psycopg.
_FORBIDDEN: Final = frozenset("\0%")


class Lender(Protocol):
    """What lends connections, as an ``AsyncConnectionPool`` of psycopg does."""

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[TupleRow]]:
        """Lend a connection for a block; commit at its end, if it did not raise."""


def checked_url(url: str) -> str:
    """Return *url*, if libpq can read it.

    Raises:
        InvalidValue: It cannot; what it says of it is kept back, for there may be a password.
    """
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise InvalidValue("url", "is no URL of PostgreSQL: postgresql://…") from None
    return url


def checked_schema(name: str) -> str:
    """Return *name*, if a schema can have it. It is quoted wherever it is used.

    Raises:
        InvalidValue: It would be cut, or is none.
    """
    if not 0 < len(name.encode()) <= _LONGEST_NAME or set(name) & _FORBIDDEN:
        raise InvalidValue("schema", f"must have 1 to {_LONGEST_NAME} bytes; none may be 0 or %")
    return name


async def connected(url: str) -> AsyncConnection[TupleRow]:
    """Return a new connection."""
    # No prepared statements: the next transaction may run on another of a pooler's sessions.
    return await AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)


async def rows_of(
    connection: AsyncConnection[TupleRow],
    query: SQL | Composed,
    values: Mapping[str, object] | Sequence[object] | None,
) -> Sequence[TupleRow]:
    """Return the rows of *query*; of several statements, which take no values, of the first.

    When it is cancelled, the server is told so, and has a moment for it: else what waits for a lock
    there would go on waiting, one more with each attempt. Then the line is cut. Left alone, psycopg
    would wait for as long as the line is broken, and complain of who does not.
    """
    asking = asyncio.ensure_future(_rows_of(connection, query, values))
    try:
        return await asyncio.shield(asking)
    finally:
        if not asking.done():
            with anyio.CancelScope(shield=True):
                await _stop(connection, asking)


async def _rows_of(
    connection: AsyncConnection[TupleRow],
    query: SQL | Composed,
    values: Mapping[str, object] | Sequence[object] | None,
) -> Sequence[TupleRow]:
    cursor = await connection.execute(query, values, prepare=False)
    return await cursor.fetchall() if cursor.description else ()


async def _stop(
    connection: AsyncConnection[TupleRow], asking: asyncio.Future[Sequence[TupleRow]]
) -> None:
    with anyio.move_on_after(CANCEL_SECONDS), suppress(Error):
        await connection.cancel_safe()
        await asyncio.wait([asking])
    _hang_up(connection)
    await asyncio.wait([asking])
    # That it failed is no news to anybody.
    asking.exception()


def _hang_up(connection: AsyncConnection[TupleRow]) -> None:
    """End the line below psycopg, which finds that out by itself."""
    with suppress(Error, OSError):
        number = connection.fileno()
        with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as line:
            line.shutdown(socket.SHUT_RDWR)


@define(eq=False, repr=False)
class Connections:
    """Lends a few connections, each made when it is first needed, and never in the background.

    One with which something went wrong is not lent again. Since that was most likely the server
    or the way to it, the others are made anew, too: a server that is back is found at the first
    attempt.
    """

    _url: str
    _places: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(MOST), init=False)
    _idle: list[AsyncConnection[TupleRow]] = field(factory=list, init=False)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Lend a connection for a block; each statement is a transaction of its own."""
        async with self._places:
            connection = self._idle.pop() if self._idle else await connected(self._url)
            try:
                yield connection
            except BaseException:
                await connection.close()
                await self.close()
                raise
            self._idle.append(connection)

    async def close(self) -> None:
        """Close those that nobody has borrowed."""
        while self._idle:
            await self._idle.pop().close()
