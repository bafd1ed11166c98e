"""``PostgresPublisher``: events and messages over ``LISTEN`` and ``NOTIFY``.

Channels, after a prefix: ``upload_progress:events:<owner>``, ``upload_progress:messages:<worker>``,
both names hashed (``key_of``). An event is a CloudEvent in structured JSON mode, in ASCII, as the
encoding of the database may lack other characters. A message is base64. Channels have no wildcards:
each event is also sent to ``upload_progress:events:all``, for those who listen to all owners.

A notification carries less than 8000 bytes. A larger event is sent without its data, as a *stub*,
and its subscribers receive ``EventsMissed``.

One connection listens for the whole process, and does nothing else. A half-open connection would be
silent for ever, so after a silence the server is queried. A pooler in transaction mode passes
notifications on, but no ``LISTEN``: then the listener needs a URL of its own. A notification that
this process sends to itself at the start shows whether that is so.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from functools import partial
from math import inf
from secrets import token_urlsafe
from typing import Final, Self

import anyio
from attrs import Factory, define, field
from psycopg import AsyncConnection, Error, Notify, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from upload_progress._model.cloudevents import (
    CloudEvent,
    decode_structured,
    encode_structured,
    encode_stub,
)
from upload_progress.backends.postgres.client import (
    ConnectionPool,
    LazyConnectionPool,
    connect,
    fetch_rows,
    safe_pool,
    validate_url,
)
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    Channel,
    Inbox,
    SubscriptionTable,
    check_message_size,
)
from upload_progress.exceptions import InvalidValue, NotEntered

__all__ = [
    "ECHO_SECONDS",
    "MAX_PAYLOAD_BYTES",
    "MAX_PREFIX_CHARACTERS",
    "PostgresConnection",
    "PostgresPublisher",
]


MAX_PAYLOAD_BYTES: Final = 7999
MAX_PREFIX_CHARACTERS: Final = 31
"""A name has at most 63 bytes; ``:messages:`` and a hash take 32."""

ECHO_SECONDS: Final = 2.0
"""How long a notification to this process may take at the start."""

_NOTIFY: Final = sql.SQL(
    "SELECT pg_notify(channel, payload)"
    " FROM unnest(%s::text[], %s::text[]) AS batch(channel, payload)"
)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_HEARTBEAT: Final = sql.SQL("SELECT 1")


def _channel_name(prefix: str, channel: Channel) -> str:
    return f"{prefix}:{channel.kind}:{channel.key or 'all'}"


def _payload(event: CloudEvent) -> str:
    payload = _as_ascii(encode_structured(event))
    return payload if len(payload) <= MAX_PAYLOAD_BYTES else _as_ascii(encode_stub(event))


def _as_ascii(encoded: bytes) -> str:
    """Return JSON in which other characters are escaped: a database may not have them."""
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], encoded.decode())


@define(eq=False, repr=False)
class PostgresPublisher(BrokerSubscriber):
    """An ``EventPublisher``, ``EventSubscriber`` and ``MessageTransport`` over PostgreSQL.

    ::

        publisher = PostgresPublisher.open("postgresql://localhost/uploads")
        tracker = ProgressTracker(publisher=publisher)

    Args:
        client: A pool of psycopg. It stays open, and its connections are returned at once.
        prefix: What the names of all channels begin with: ASCII, up to 31 characters.
        listen_url: Where to listen; by default where the connections of the client lead to.
            Required if that is a pooler in transaction mode.
        heartbeat_seconds: After this long without traffic the server is queried; without an answer
            within the same time the connection counts as lost.

    Raises:
        InvalidValue: The prefix is too long or not ASCII.
    """

    client: ConnectionPool
    prefix: str = field(default="upload_progress", kw_only=True)
    listen_url: str | None = field(default=None, kw_only=True)
    _pool: ConnectionPool = field(
        default=Factory(lambda self: safe_pool(self.client), takes_self=True), init=False
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a prefix that PostgreSQL would cut off."""
        if not (self.prefix.isascii() and len(self.prefix) <= MAX_PREFIX_CHARACTERS):
            raise InvalidValue("prefix", f"must be ASCII, of up to {MAX_PREFIX_CHARACTERS}")

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
            prefix: See the class.
            listen_url: Where to listen, if *url* leads to a pooler in transaction mode.
            heartbeat_seconds: See the class.

        Raises:
            InvalidValue: A URL is not a valid PostgreSQL URL.
        """
        for each in (url, listen_url or ""):
            validate_url(each)
        return cls(
            # The circuit breaker of the caller limits the wait.
            LazyConnectionPool(url, max_connections=1, wait_seconds=inf),
            prefix=prefix,
            listen_url=listen_url or url,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def __aenter__(self) -> Self:
        """Start to connect. The server need not be available.

        Raises:
            InvalidValue: The event loop is not asyncio's, or this is entered already.
        """
        await super().__aenter__()
        assert self._tasks is not None  # noqa: S101  # just entered
        self._tasks.start_soon(self._check_listening)
        return self

    async def _check_listening(self) -> None:
        """Log a warning if a notification to this process does not come back.

        A pooler in transaction mode accepts ``LISTEN``, and delivers nothing.
        """
        name = token_urlsafe()
        # It may be left before it is connected.
        with suppress(NotEntered):
            async with self.inbox(name) as inbox:
                while not await self._has_checked(name, inbox):  # noqa: ASYNC110  # tries again
                    await anyio.sleep(self.heartbeat_seconds)

    async def _has_checked(self, name: str, inbox: Inbox) -> bool:
        """Send a notification to this process; return False if the server is not available."""
        try:
            with anyio.fail_after(ECHO_SECONDS):
                await self.send(name, b"echo")
        except (Error, OSError):
            return False
        with anyio.move_on_after(ECHO_SECONDS):
            # A lost connection proves nothing.
            return isinstance(await anext(inbox), bytes)
        self.log_limiter.log_warning(
            "PostgresPublisher: LISTEN has no effect; the URL seems to lead to a pooler in "
            "transaction mode: pass the address of the server itself, as "
            "from_url(…, events='postgresql://SERVER/…') or "
            "PostgresPublisher.open(POOLER, listen_url=SERVER)",
            effect="progress is read from the store every 5 s, cancels wait for the next bytes",
        )
        return True

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order, in one round trip."""
        notifications = [
            (channel, payload)
            for event in events
            for payload in [_payload(event)]
            for channel in (Channel.of_owner(event.owner), ALL_OWNERS_CHANNEL)
        ]
        await self._notify(notifications)

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*.

        Raises:
            InvalidValue: It is larger than 4 KiB.
        """
        payload = b64encode(check_message_size(message)).decode()
        await self._notify([(Channel.of_worker(worker), payload)])

    async def _notify(self, notifications: Sequence[tuple[Channel, str]]) -> None:
        if notifications:
            names = [_channel_name(self.prefix, channel) for channel, _ in notifications]
            payloads = [payload for _, payload in notifications]
            async with self._pool.connection() as connection:
                await fetch_rows(connection, _NOTIFY, (names, payloads))

    async def _connect(self) -> "PostgresConnection":
        connection = await connect(self.listen_url or await self._address())
        return PostgresConnection(connection, self._table, self.prefix, self.heartbeat_seconds)

    async def _address(self) -> str:
        """Return where the connections of the client lead to.

        The listener has a connection of its own: a pool may have none to spare.
        """
        async with self._pool.connection() as connection:
            info = connection.info
            return make_conninfo(**info.get_parameters(), password=info.password or None)

    async def _close(self) -> None:
        if isinstance(self.client, LazyConnectionPool):
            await self.client.close()


@define(eq=False, repr=False)
class _Command:
    statements: Sequence[sql.Composed]
    done: anyio.Event = field(factory=anyio.Event, init=False)


@define(eq=False, repr=False)
class PostgresConnection:
    """The connection that listens.

    psycopg allows one task at a time on it: that of ``receive``, which ``subscribe`` and
    ``unsubscribe`` interrupt to run their statements.
    """

    _connection: AsyncConnection[TupleRow]
    _table: SubscriptionTable
    _prefix: str
    _heartbeat_seconds: float
    _channels: dict[str, Channel] = field(factory=dict, init=False)
    _commands: list[_Command] = field(factory=list, init=False)
    _listening: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    async def receive(self) -> None:
        """Deliver what arrives; raise when the connection is lost."""
        while True:
            if not self._commands:
                await self._listen()
            with anyio.fail_after(self._heartbeat_seconds):
                await self._run_commands()

    async def _listen(self) -> None:
        """Handle notifications until there is a command to run, or none has come for a while."""
        with anyio.CancelScope() as self._listening:
            async with aclosing(self._connection.notifies()) as notifications:
                while True:
                    self._listening.deadline = anyio.current_time() + self._heartbeat_seconds
                    self._handle(await anext(notifications))

    def _handle(self, notification: Notify) -> None:
        channel = self._channels.get(notification.channel)
        if channel is None:
            return
        if channel.kind == "messages":
            try:
                message = b64decode(notification.payload, validate=True)
            except (binascii.Error, ValueError):
                self._table.unreadable += 1
                return
            self._table.deliver_message(message, channel)
        else:
            decode = partial(decode_structured, notification.payload)
            self._table.deliver_encoded_event(decode, channel)

    async def _run_commands(self) -> None:
        """Run the statements that wait, with a query that shows that the server answers."""
        commands, self._commands = self._commands, []
        statements = [each for command in commands for each in command.statements]
        await fetch_rows(self._connection, sql.SQL("; ").join([*statements, _HEARTBEAT]), None)
        for command in commands:
            command.done.set()

    async def _run(self, verb: sql.SQL, names: Collection[str]) -> None:
        command = _Command([verb.format(sql.Identifier(name)) for name in names])
        self._commands.append(command)
        self._listening.cancel()
        await command.done.wait()

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Receive from *channels*, too; return when PostgreSQL has confirmed it."""
        named = {_channel_name(self._prefix, channel): channel for channel in channels}
        self._channels |= named
        await self._run(sql.SQL("LISTEN {}"), named)

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Receive nothing more from *channels*."""
        names = [_channel_name(self._prefix, channel) for channel in channels]
        for name in names:
            del self._channels[name]
        await self._run(sql.SQL("UNLISTEN {}"), names)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()
