"""Events and letters over PostgreSQL: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import psycopg
import pytest
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from tests._support.connection_faults import (
    FAULT_SECONDS,
    HEARTBEAT_SECONDS,
    LineFaults,
    event,
    heard,
    missed,
    until,
)
from tests._support.server_factories import pgbouncer
from tests._support.server_processes import ServerProcess
from tests.conftest import RequireProgram
from upload_progress._model.cloudevents import CloudEvent, encode_structured
from upload_progress.backends.postgres.publisher import MAX_PAYLOAD_BYTES, PostgresPublisher
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventsMissed
from upload_progress.testing import MessageTransportContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestPostgresPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher


class TestPostgresPost(MessageTransportContract):
    @pytest.fixture
    async def post(self, postgres_url: str) -> AsyncIterator[PostgresPublisher]:
        async with PostgresPublisher.open(postgres_url) as publisher:
            yield publisher


async def notify(url: str, channel: str, payload: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))


class TestPostgresFaults(LineFaults):
    @pytest.fixture
    def server(self, postgres_server: ServerProcess) -> ServerProcess:
        return postgres_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> PostgresPublisher:
        return PostgresPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def tell_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        texts = [payload.decode() for payload in payloads if payload.isascii()]
        for text in texts:
            await notify(url, f"upload_progress:events:{key_of(owner)}", text)
        return len(texts)

    async def tell_as(self, url: str, owner: str, forged: CloudEvent) -> None:
        await self.tell_raw(url, owner, [encode_structured(forged)])

    async def test_a_connection_that_was_ended_by_the_server_is_made_again(
        self, server: ServerProcess
    ) -> None:
        async with self.open(server.url) as publisher, publisher.listen("ann") as hers:
            await publisher.publish([event(1)])
            assert await heard(hers, 1) == [1]
            async with await psycopg.AsyncConnection.connect(server.url) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            with pytest.raises(psycopg.OperationalError):
                await publisher.publish([event(2)])
            await missed(hers)
            await publisher.publish([event(3)])

            assert await heard(hers, 3) == [3]


@pytest.mark.anyio
async def test_a_pool_lends_connections_and_stays_open(postgres_url: str) -> None:
    async with AsyncConnectionPool(postgres_url, min_size=1, max_size=2, open=False) as pool:
        for sequence in (1, 2):
            async with PostgresPublisher(pool) as publisher, publisher.listen("ann") as hers:
                await publisher.publish([event(sequence)])
                assert await heard(hers, sequence) == [sequence]
        async with pool.connection() as connection:
            channels = await connection.execute("SELECT pg_listening_channels()")
            assert await channels.fetchall() == []


@pytest.mark.anyio
async def test_an_event_that_is_too_large_says_read_the_store(postgres_url: str) -> None:
    room = MAX_PAYLOAD_BYTES - len(encode_structured(event(1, text="")))
    async with PostgresPublisher.open(postgres_url) as publisher:
        async with publisher.listen("ann") as hers, publisher.listen() as everybodys:
            await publisher.publish([event(1, text="x" * room), event(2, text="x" * (room + 1))])

            with anyio.fail_after(FAULT_SECONDS):
                for feed in (hers, everybodys):
                    found = {type(await anext(feed)), type(await anext(feed))}
                    assert found == {CloudEvent, EventsMissed}
        assert publisher.statistics().unreadable == 0


@pytest.mark.anyio
async def test_a_letter_that_is_none_is_passed_over(postgres_url: str) -> None:
    async with PostgresPublisher.open(postgres_url) as publisher, publisher.letters("w") as box:
        for poison in ("%", "ü"):
            await notify(postgres_url, f"upload_progress:letters:{key_of('w')}", poison)
        await publisher.send("w", b"letter")

        with anyio.fail_after(FAULT_SECONDS):
            assert await anext(box) == b"letter"
        assert publisher.statistics().unreadable == 2


@pytest.mark.anyio
async def test_behind_a_pooler_the_listener_has_an_address_of_its_own(
    postgres_server: ServerProcess, require_program: RequireProgram
) -> None:
    pooler = pgbouncer(require_program, postgres_server).start()
    try:
        async with (
            PostgresPublisher.open(pooler.url, listen_url=postgres_server.url) as publisher,
            publisher.listen("ann") as hers,
        ):
            for sequence in range(1, 10):
                await publisher.publish([event(sequence)])
            assert (await heard(hers, 9))[-1] == 9
    finally:
        pooler.stop()


def test_a_prefix_leaves_room_for_what_follows() -> None:
    for prefix in ("x" * 33, "ü"):
        with pytest.raises(InvalidValue, match="prefix"):
            PostgresPublisher.open("postgresql://host", prefix=prefix)
    assert PostgresPublisher.open("postgresql://host", prefix="x" * 32).prefix == "x" * 32


@pytest.mark.anyio
async def test_a_connection_that_cannot_listen_is_given_back(postgres_url: str) -> None:
    lent: list[bool] = []

    class Lender:
        @asynccontextmanager
        async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
            connection = await psycopg.AsyncConnection.connect(postgres_url)
            await connection.close()
            try:
                yield connection
            finally:
                lent.append(False)

    async with PostgresPublisher(Lender()) as publisher:
        await until(lambda: lent)
        assert not publisher.statistics().is_connected


@pytest.mark.anyio
async def test_what_comes_after_leaving_is_nobodys(postgres_url: str) -> None:
    async with PostgresPublisher.open(postgres_url) as publisher:
        line = await publisher._dial()
        line._take(psycopg.Notify("left meanwhile", "{", 1))
        await line.close()

        assert publisher.statistics().unreadable == 0
