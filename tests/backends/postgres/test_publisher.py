"""Events and messages over PostgreSQL: the contracts, and faults of server and connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from tests._support.connection_faults import (
    FAULT_SECONDS,
    HEARTBEAT_SECONDS,
    ConnectionFaults,
    event,
    missed,
    received,
    until,
)
from tests._support.server_factories import pgbouncer
from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from tests.conftest import RequireProgram
from upload_progress._model.cloudevents import CloudEvent, encode_structured
from upload_progress.backends.postgres.publisher import (
    MAX_PAYLOAD_BYTES,
    PostgresPublisher,
)
from upload_progress.backends.subscriptions import Channel, SubscriptionTable, key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS, ConnectionLost, EventsMissed
from upload_progress.testing import MessageTransportContract, PublisherContract
from upload_progress.testing.publisher_contract import next_item, subscribed


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestPostgresPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher


class TestPostgresTransport(MessageTransportContract):
    @pytest.fixture
    async def transport(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher


async def notify(url: str, channel: str, payload: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))


class TestPostgresFaults(ConnectionFaults):
    @pytest.fixture
    def server(self, postgres_server: ServerProcess) -> ServerProcess:
        return postgres_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> PostgresPublisher:
        return PostgresPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def publish_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        texts = [payload.decode() for payload in payloads if payload.isascii()]
        for text in texts:
            await notify(url, f"upload_progress:events:{key_of(owner)}", text)
        return len(texts)

    async def publish_forged(self, url: str, owner: str, forged: CloudEvent) -> None:
        await self.publish_raw(url, owner, [encode_structured(forged)])

    async def test_connection_that_the_server_terminated_is_replaced(
        self, server: ServerProcess
    ) -> None:
        async with self.open(server.url) as publisher, subscribed(publisher, "ann") as stream:
            await publisher.publish([event(1)])
            assert await received(stream, 1) == [1]
            async with await psycopg.AsyncConnection.connect(server.url) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            with pytest.raises(psycopg.OperationalError):
                await publisher.publish([event(2)])
            await missed(stream)
            await publisher.publish([event(3)])

            assert await received(stream, 3) == [3]


@pytest.mark.anyio
async def test_pool_that_is_passed_in_stays_open(postgres_url: str) -> None:
    """It may have one connection, which the application needs itself."""
    async with AsyncConnectionPool(postgres_url, min_size=1, max_size=1, open=False) as pool:
        for sequence in (1, 2):
            async with PostgresPublisher(pool) as publisher, subscribed(publisher, "ann") as stream:
                await publisher.publish([event(sequence)])
                assert await received(stream, sequence) == [sequence]
                async with pool.connection():
                    await publisher.wait_until_confirmed(())
        async with pool.connection() as connection:
            channels = await connection.execute("SELECT pg_listening_channels()")
            assert await channels.fetchall() == []


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_events_do_not_depend_on_the_encoding_of_the_database(
    postgres_url: str, encoding: str
) -> None:
    """The own connections use UTF-8; those of an application may use any encoding."""
    async with database_with(postgres_url, encoding) as url:
        for sent in (event(1, "Боб", "Отчёт 📈"), event(2, "Боб", "\0 \x7f \ud7ff")):
            async with (
                PostgresPublisher.open(url) as publisher,
                AsyncConnectionPool(url, min_size=1, open=False) as pool,
                PostgresPublisher(pool) as other,
                subscribed(publisher, "Боб") as one,
                subscribed(other, ALL_OWNERS) as all_owners,
            ):
                for each in (publisher, other):
                    await each.publish([sent, event(3)])
                    assert await next_item(one) == sent
                    assert {(await next_item(all_owners)).owner for _ in range(2)} == {"Боб", "ann"}


@asynccontextmanager
async def database_with(url: str, encoding: str) -> AsyncIterator[str]:
    """Create a database with *encoding* while the block runs; yield its URL."""
    name = f"with_{encoding.lower()}"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        await admin.execute(
            sql.SQL(
                "CREATE DATABASE {} ENCODING {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            ).format(sql.Identifier(name), encoding)
        )
        try:
            yield f"{url.rpartition('/')[0]}/{name}"
        finally:
            await admin.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.mark.anyio
async def test_event_that_is_too_large_is_reported_as_missed(postgres_url: str) -> None:
    room = MAX_PAYLOAD_BYTES - len(encode_structured(event(1, text="")))
    async with PostgresPublisher.open(postgres_url) as publisher:
        async with (
            subscribed(publisher, "ann") as stream,
            subscribed(publisher, ALL_OWNERS) as all_owners,
        ):
            await publisher.publish([event(1, text="x" * room), event(2, text="x" * (room + 1))])

            with anyio.fail_after(FAULT_SECONDS):
                for each in (stream, all_owners):
                    found = {type(await anext(each)), type(await anext(each))}
                    assert found == {CloudEvent, EventsMissed}
        assert publisher.statistics().unreadable == 0


@pytest.mark.anyio
async def test_message_that_is_no_base64_is_skipped(postgres_url: str) -> None:
    async with PostgresPublisher.open(postgres_url) as publisher, publisher.inbox("w") as inbox:
        for poison in ("%", "ü"):
            await notify(postgres_url, f"upload_progress:messages:{key_of('w')}", poison)
        await publisher.send("w", b"message")

        with anyio.fail_after(FAULT_SECONDS):
            assert await anext(inbox) == b"message"
        assert publisher.statistics().unreadable == 2


@pytest.mark.anyio
async def test_listener_behind_a_pooler_has_a_url_of_its_own(
    postgres_server: ServerProcess, require_program: RequireProgram
) -> None:
    pooler = pgbouncer(require_program, postgres_server).start()
    try:
        async with (
            PostgresPublisher.open(pooler.url, listen_url=postgres_server.url) as publisher,
            subscribed(publisher, "ann") as stream,
        ):
            for sequence in range(1, 10):
                await publisher.publish([event(sequence)])
            assert (await received(stream, 9))[-1] == 9
    finally:
        pooler.stop()


@pytest.mark.anyio
async def test_pooler_without_a_url_to_listen_at_is_logged_with_the_fix(
    postgres_server: ServerProcess,
    require_program: RequireProgram,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, and not for a publisher that listens at the server."""
    monkeypatch.setattr("upload_progress.backends.postgres.publisher.ECHO_SECONDS", 0.5)
    pooler = pgbouncer(require_program, postgres_server).start()
    try:
        async with (
            PostgresPublisher.open(pooler.url, listen_url=postgres_server.url) as direct,
            PostgresPublisher.open(postgres_server.url) as without,
        ):
            await until(lambda: direct.statistics().messages and without.statistics().messages)
            assert not caplog.records
            async with PostgresPublisher.open(pooler.url, heartbeat_seconds=30):
                await until(lambda: caplog.records)
    finally:
        pooler.stop()

    [logged] = [each.getMessage() for each in caplog.records]
    assert "LISTEN has no effect" in logged
    assert "listen_url=SERVER" in logged


@pytest.mark.anyio
async def test_listening_is_checked_when_the_server_accepts_notifications(
    postgres_server: ServerProcess, proxy_to: ProxyTo, caplog: pytest.LogCaptureFixture
) -> None:
    """A lost connection proves nothing."""
    proxy = proxy_to(postgres_server.port)
    url = f"postgresql://test@127.0.0.1:{proxy.port}/postgres"
    publisher = PostgresPublisher.open(url, listen_url=postgres_server.url, heartbeat_seconds=0.1)
    proxy.refuses_connections = True
    async with publisher:
        await until(lambda: proxy.connections > 1)
        proxy.refuses_connections = False
        await until(lambda: publisher.statistics().messages)

    assert "LISTEN" not in caplog.text


@pytest.mark.anyio
async def test_lost_connection_proves_nothing_about_listening(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresPublisher.open(postgres_url) as publisher:
        table = SubscriptionTable()
        with table.inbox("w") as inbox:
            table.notify(ConnectionLost())
            assert not await publisher._has_checked("w", inbox)
            table.deliver_message(b"echo", Channel.of_worker("w"))
            assert await publisher._has_checked("w", inbox)
            assert not caplog.records


def test_prefix_length_is_limited() -> None:
    for prefix in ("x" * 32, "ü"):
        with pytest.raises(InvalidValue, match="prefix"):
            PostgresPublisher.open("postgresql://host", prefix=prefix)
    assert PostgresPublisher.open("postgresql://host", prefix="x" * 31).prefix == "x" * 31


@pytest.mark.anyio
async def test_connection_that_is_closed_is_returned(postgres_url: str) -> None:
    returned: list[bool] = []

    class Pool:
        @asynccontextmanager
        async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
            connection = await psycopg.AsyncConnection.connect(postgres_url)
            await connection.close()
            try:
                yield connection
            finally:
                returned.append(True)

    async with PostgresPublisher(Pool()) as publisher:
        await until(lambda: returned)
        assert not publisher.statistics().is_connected


@pytest.mark.anyio
async def test_notification_after_unsubscribing_is_ignored(postgres_url: str) -> None:
    async with PostgresPublisher.open(postgres_url) as publisher:
        connection = await publisher._connect()
        connection._handle(psycopg.Notify("unsubscribed meanwhile", "{", 1))
        await connection.close()

        assert publisher.statistics().unreadable == 0
