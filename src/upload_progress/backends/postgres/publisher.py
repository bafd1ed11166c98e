"""Events and letters over PostgreSQL: ``LISTEN`` and ``NOTIFY``.

Channels, below a prefix: ``upload_progress:events:<owner>``, ``upload_progress:letters:<worker>``,
both names hashed (``key_of``). An event is a CloudEvent in structured JSON, a letter base64. A
channel has no wildcards: who wants everybody's events listens to ``upload_progress:events:all``,
to which each event is told, too.

A notification carries less than 8000 bytes. An event that is larger goes without its data, as a
*stub*, and who listens is told to read the store: nothing shorter would be true.

One connection listens for the whole process, and does nothing else. A half-open one would be silent
for ever, so after a silence it is asked for a sign of life. A pooler in transaction mode passes
notifications on, but no ``LISTEN``: then the listener needs an address of its own.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final, Self

import anyio
from attrs import define, field
from psycopg import AsyncConnection, Notify, sql
from psycopg.rows import TupleRow

from upload_progress._model.cloudevents import (
    CloudEvent,
    decode_structured,
    encode_structured,
    encode_stub,
)
from upload_progress.backends.postgres.client import (
    ConnectionPool,
    connect,
    fetch_rows,
    validate_url,
)
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import (
    ALL_OWNERS,
    Address,
    SubscriptionTable,
    checked_letter,
)
from upload_progress.exceptions import InvalidValue

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "MAX_PREFIX_CHARACTERS",
    "PostgresPublisher",
]


MAX_PAYLOAD_BYTES: Final = 7999
MAX_PREFIX_CHARACTERS: Final = 32
"""A name has 63 bytes; what follows the prefix has up to 31."""

_TELL: Final = sql.SQL(
    "SELECT pg_notify(channel, payload)"
    " FROM unnest(%s::text[], %s::text[]) AS batch(channel, payload)"
)


_QUESTION: Final = sql.SQL("SELECT 1")


def _channel(prefix: str, address: Address) -> str:
    return f"{prefix}:{address.kind}:{address.key or 'all'}"


def _payload(event: CloudEvent) -> str:
    whole = encode_structured(event)
    return (whole if len(whole) <= MAX_PAYLOAD_BYTES else encode_stub(event)).decode()


@define(eq=False, repr=False)
class PostgresPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``Post`` over PostgreSQL.

    Args:
        client: A pool of psycopg. It stays open; one of its connections is kept to listen, unless
            there is a ``listen_url``.
        prefix: What the names of all channels begin with.
        listen_url: Where to listen, if the client leads to a pooler in transaction mode.
    """

    client: ConnectionPool
    prefix: str = field(default="upload_progress", kw_only=True)
    listen_url: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse what would be cut off."""
        if not (self.prefix.isascii() and len(self.prefix) <= MAX_PREFIX_CHARACTERS):
            raise InvalidValue("prefix", f"must be ASCII, of up to {MAX_PREFIX_CHARACTERS}")
        super().__attrs_post_init__()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        prefix: str = "upload_progress",
        listen_url: str | None = None,
        heartbeat_seconds: float = 4.0,
    ) -> Self:
        """Return one with two connections of its own, which it closes.

        Args:
            url: ``postgresql://…``, or any other ``conninfo`` of libpq.
            prefix: As above.
            listen_url: Where to listen, if *url* leads to a pooler in transaction mode.
            heartbeat_seconds: As above.

        Raises:
            InvalidValue: The URL is none of these.
        """
        for each in (url, listen_url or ""):
            validate_url(each)
        return cls(
            _Single(url),
            prefix=prefix,
            listen_url=listen_url or url,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip."""
        told = [
            (_channel(self.prefix, address), payload)
            for event in events
            for payload in [_payload(event)]
            for address in (Address.of_owner(event.owner), ALL_OWNERS)
        ]
        await self._tell(told)

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        payload = b64encode(checked_letter(letter)).decode()
        await self._tell([(_channel(self.prefix, Address.of_worker(worker)), payload)])

    async def _tell(self, told: Sequence[tuple[str, str]]) -> None:
        if told:
            channels, payloads = ([each[i] for each in told] for i in (0, 1))
            async with self.client.connection() as connection:
                await fetch_rows(connection, _TELL, (channels, payloads))

    async def _dial(self) -> "_Line":
        loan = _lent(self.listen_url) if self.listen_url else self.client.connection()
        connection = await loan.__aenter__()
        line = _Line(loan, connection, self._board, self.prefix, self.heartbeat_seconds)
        try:
            await connection.set_autocommit(True)
        except BaseException:
            await line.close()
            raise
        return line

    async def _close(self) -> None:
        if isinstance(self.client, _Single):
            await self.client.close()


@asynccontextmanager
async def _lent(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@define(eq=False, repr=False)
class _Single:
    """Lends its one connection, made when it is first needed, and again after whatever happened."""

    _url: str
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)
    _connection: AsyncConnection[TupleRow] | None = field(default=None, init=False)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        async with self._lock:
            if self._connection is None:
                self._connection = await connect(self._url)
            try:
                yield self._connection
            except BaseException:
                # Also when it was cancelled: nobody knows what it still answers.
                await self.close()
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@define(eq=False, repr=False)
class _Command:
    statements: Sequence[sql.Composed]
    done: anyio.Event = field(factory=anyio.Event, init=False)


@define(eq=False, repr=False)
class _Line:
    """The connection that listens. It belongs to ``hear``, which others interrupt to command."""

    _loan: AbstractAsyncContextManager[AsyncConnection[TupleRow]]
    _connection: AsyncConnection[TupleRow]
    _board: SubscriptionTable
    _prefix: str
    _heartbeat_seconds: float
    _addresses: dict[str, Address] = field(factory=dict, init=False)
    _commands: list[_Command] = field(factory=list, init=False)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    async def hear(self) -> None:
        while True:
            if not self._commands:
                await self._listen()
            with anyio.fail_after(self._heartbeat_seconds):
                await self._obey()

    async def _listen(self) -> None:
        """Take what comes, until there is something to do, or it was silent for too long."""
        with anyio.CancelScope() as self._scope:
            async with aclosing(self._connection.notifies()) as notifications:
                while True:
                    self._scope.deadline = anyio.current_time() + self._heartbeat_seconds
                    self._take(await anext(notifications))

    def _take(self, notification: Notify) -> None:
        address = self._addresses.get(notification.channel)
        if address is None:
            return
        if address.kind == "letters":
            try:
                self._board.bring_letter(b64decode(notification.payload, validate=True), address)
            except (binascii.Error, ValueError):
                self._board.unreadable += 1
        else:
            self._board.bring_event(lambda: decode_structured(notification.payload), address)

    async def _obey(self) -> None:
        """Do what there is to do; else ask whether anybody is there."""
        commands, self._commands = self._commands, []
        statements = [each for command in commands for each in command.statements]
        await fetch_rows(self._connection, sql.SQL("; ").join([*statements, _QUESTION]), None)
        for command in commands:
            command.done.set()

    async def _command(self, verb: sql.SQL, channels: Collection[str]) -> None:
        command = _Command([verb.format(sql.Identifier(channel)) for channel in channels])
        self._commands.append(command)
        self._scope.cancel()
        await command.done.wait()

    async def subscribe(self, addresses: Collection[Address]) -> None:
        named = {_channel(self._prefix, address): address for address in addresses}
        self._addresses |= named
        await self._command(sql.SQL("LISTEN {}"), named)

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        named = [_channel(self._prefix, address) for address in addresses]
        for name in named:
            del self._addresses[name]
        await self._command(sql.SQL("UNLISTEN {}"), named)

    async def close(self) -> None:
        # What it listens to would stay with it: nobody gets it after us.
        await self._connection.close()
        await self._loan.__aexit__(None, None, None)
