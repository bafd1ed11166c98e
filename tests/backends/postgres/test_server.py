"""``PostgresStore`` with a server that fails, is slow or restricts rights, and with poolers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, field
from psycopg import AsyncConnection, OperationalError, sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import (
    DeadlockDetected,
    InsufficientPrivilege,
    QueryCanceled,
    ReadOnlySqlTransaction,
)
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed

from tests._support.connection_faults import until
from tests._support.leases import let_lease_run_out
from tests._support.paths import ROOT
from tests._support.records import record
from tests._support.server_factories import pgbouncer, postgres_standby
from tests._support.server_processes import ServerProcess, free_port
from tests._support.services import ProxyTo
from tests.conftest import RequireProgram
from upload_progress import ProgressTracker, StoreUnavailable, UploadProgress
from upload_progress._model.models import UploadKey, UploadState
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress.backends.postgres import client as postgres_client
from upload_progress.backends.postgres import store as postgres_store
from upload_progress.backends.postgres.client import MAX_CONNECTIONS, LazyConnectionPool, connect
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue, SchemaMissing, StoreBusy
from upload_progress.interfaces import SystemClock

pytestmark = pytest.mark.anyio

GUIDE = ROOT / "docs" / "guides" / "stores.md"
SECONDS = 20.0
UNKNOWN = UploadKey("ann", "unknown")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """PostgreSQL's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture
async def store(
    migrated_postgres_url: str, admin: AsyncConnection[TupleRow]
) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(migrated_postgres_url) as store:
        yield store


async def test_missing_schema_raises_schema_missing(migrated_postgres_url: str) -> None:
    """D03: the message names the command that creates it."""
    async with PostgresStore.open(migrated_postgres_url, schema="nowhere") as store:
        with pytest.raises(SchemaMissing, match="'nowhere' is missing or too old: run"):
            await store.save([record()])
        with pytest.raises(SchemaMissing):
            await store.load(record().key)


async def test_missing_schema_is_logged_with_command_to_run(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """D03: the application starts, and uploads go on."""
    tracker = ProgressTracker(store=PostgresStore.open(postgres_url, schema="nowhere"))
    async with tracker.lifespan(), tracker.track(owner="ann") as upload:
        upload.advance(1)

    assert "run `upload-progress migrate URL --schema nowhere`" in caplog.text


async def test_role_of_guide_saves_and_cannot_migrate(
    migrated_postgres_url: str, admin: AsyncConnection[TupleRow]
) -> None:
    """D03: least privilege, with the statements of the documentation."""
    [statements] = re.findall(r"```sql\n(CREATE ROLE.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    await drop_role(admin)
    for statement in statements.strip().splitlines():
        await admin.execute(statement)
    await admin.execute("ALTER ROLE uploads PASSWORD 'uploads'")
    url = make_conninfo(migrated_postgres_url, user="uploads", password="uploads")
    try:
        async with PostgresStore.open(url) as store:
            await store.save([record(attempt=2)])
            await let_lease_run_out(store, "w")
            assert len(await store.overdue(limit=9)) == 1
            assert len((await store.list("ann")).uploads) == 1
        with pytest.raises(InsufficientPrivilege):
            await migrate(url, schema="other")
        # Also where nothing is to be migrated.
        with pytest.raises(InsufficientPrivilege):
            await migrate(url)
    finally:
        await drop_role(admin)


async def drop_role(admin: AsyncConnection[TupleRow]) -> None:
    """Drop the role of the guide and its grants, if it exists."""
    await admin.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'uploads')"
        " THEN DROP OWNED BY uploads; DROP ROLE uploads; END IF; END $$"
    )


async def test_pool_of_application_stays_open(
    migrated_postgres_url: str, admin: AsyncConnection[TupleRow]
) -> None:
    async with AsyncConnectionPool(migrated_postgres_url, min_size=1, open=False) as pool:
        async with PostgresStore(pool) as store:
            await store.save([record(), record("other", attempt=2)])
            assert len(await store.load(record().key)) == 1
        assert not pool.closed


@define
class PoolWithoutStatistics:
    """A pool of another kind than those of psycopg_pool."""

    inner: AsyncConnectionPool

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[TupleRow]]:
        return self.inner.connection()


@pytest.mark.parametrize(
    "options", [{"timeout": 30.0}, {"timeout": 0.01}, {"max_waiting": 1}], ids=str
)
async def test_application_that_uses_its_whole_pool_is_no_failure_of_the_store(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(postgres_client, "WAIT_SECONDS", 0.1)
    pool = AsyncConnectionPool(migrated_postgres_url, min_size=1, max_size=1, open=False, **options)
    async with pool, PostgresStore(pool) as store:
        breaker = CircuitBreaker("store", SystemClock())
        await pool.wait()
        async with pool.connection(), anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(expect_busy, breaker, store)
    assert breaker.failures == 0


async def expect_busy(breaker: CircuitBreaker, store: PostgresStore) -> None:
    with pytest.raises(StoreBusy):
        await breaker.call(lambda: store.load(UNKNOWN))


async def test_pool_that_does_not_count_its_errors_is_busy(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_client, "WAIT_SECONDS", 0.01)
    async with AsyncConnectionPool(migrated_postgres_url, min_size=1, open=False) as pool:
        store = PostgresStore(PoolWithoutStatistics(pool))
        async with AsyncExitStack() as stack:
            for _ in range(pool.max_size):
                await stack.enter_async_context(pool.connection())
            with pytest.raises(StoreBusy):
                await store.load(UNKNOWN)


async def test_pool_that_cannot_connect_is_a_failure_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so is one that the application has closed."""
    monkeypatch.setattr(postgres_client, "WAIT_SECONDS", 0.01)
    url = f"postgresql://test@127.0.0.1:{free_port()}/postgres"
    async with AsyncConnectionPool(url, min_size=1, open=False) as pool:
        await until(lambda: pool.get_stats().get("connections_errors"))
        store = PostgresStore(pool)
        with pytest.raises(TimeoutError):
            await store.load(record().key)
    with pytest.raises(PoolClosed):
        await store.load(record().key)


async def test_pooler_in_transaction_mode_works(
    postgres_server: ServerProcess,
    require_program: RequireProgram,
    admin: AsyncConnection[TupleRow],
) -> None:
    """S09: no statement depends on the session of an earlier one."""
    await migrate(postgres_server.url)
    pooler = pgbouncer(require_program, postgres_server).start()
    try:
        async with PostgresStore.open(pooler.url) as store, anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(store.save, [record("pooled", transfer_id=f"t{number}")])
        async with PostgresStore.open(pooler.url) as store:
            with anyio.fail_after(20):
                assert len(await store.load(record("pooled").key)) == 20
    finally:
        pooler.stop()


async def test_terminated_connections_fail_one_call_in_all(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    """S09: after ``pg_terminate_backend`` one call fails, and not one per connection."""
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(store.save, [record(f"u{number}")])
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )

    with pytest.raises(OperationalError):
        await store.load(record().key)

    assert len(await store.load(*(UploadKey("ann", f"u{number}") for number in range(4)))) == 4


async def test_restarted_server_is_found_at_first_attempt(postgres_server: ServerProcess) -> None:
    """S02: the store connects again with the next call."""
    await migrate(postgres_server.url)
    async with PostgresStore.open(postgres_server.url) as store:
        await store.save([record()])
        postgres_server.kill()
        with pytest.raises(OperationalError):
            await store.save([record()])
        with pytest.raises(OperationalError):
            await store.save([record()])
        postgres_server.start()
        await store.save([record(sequence=2)])
        assert len(await store.load(record().key)) == 1


async def test_read_only_server_raises_until_it_is_writable(
    migrated_postgres_url: str, store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    """S09: a standby is read-only."""
    name = admin.info.dbname
    await store.save([record()])
    try:
        await admin.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(
                sql.Identifier(name)
            )
        )
        async with PostgresStore.open(migrated_postgres_url) as reading:
            with pytest.raises(ReadOnlySqlTransaction):
                await reading.save([record(sequence=2)])
            assert len(await reading.load(record().key)) == 1
    finally:
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(
            sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(
                sql.Identifier(name)
            )
        )
    async with PostgresStore.open(migrated_postgres_url) as writing:
        await writing.save([record(sequence=2)])
        assert [each.sequence for each in await writing.load(record().key)] == [2]


async def get_when_available(tracker: ProgressTracker, upload_id: str) -> UploadProgress:
    """Poll: the store is not read before a write has succeeded again."""
    while True:
        await anyio.sleep(0.05)
        with suppress(StoreUnavailable):
            return await tracker.get(upload_id, owner="ann")


async def test_standby_is_read_and_written_after_promotion(
    postgres_server: ServerProcess,
    require_program: RequireProgram,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """S09, I11 and I12: uploads go on, nothing old is shown, and ends are stored afterwards."""
    await migrate(postgres_server.url)
    async with PostgresStore.open(postgres_server.url) as primary:
        await primary.save([record("before", state=UploadState.PAUSED, worker=None)])
    standby = postgres_standby(require_program, postgres_server).start()
    try:
        with anyio.fail_after(SECONDS):
            tracker = ProgressTracker.from_url(standby.url)
            async with tracker.lifespan(), await connect(standby.url) as admin:
                # The lease of the worker cannot be renewed in a standby.
                await until(lambda: tracker.statistics().store_failures)
                with pytest.raises(StoreUnavailable):
                    await tracker.get("before", owner="ann")
                async with tracker.track(owner="ann", upload_id="during") as upload:
                    upload.advance(1)
                await admin.execute("SELECT pg_promote()")
                await until(lambda: not tracker.statistics().live_uploads)
                found = await get_when_available(tracker, "before")
            async with PostgresStore.open(standby.url) as leading:
                [stored] = await leading.load(UploadKey("ann", "during"))
    finally:
        standby.stop()
    logged = {each.getMessage().partition(" (")[0] for each in caplog.records}

    assert (found.state, stored.state) == (UploadState.PAUSED, UploadState.COMPLETED)
    assert len(caplog.records) == len(logged) == 2
    # The broker adapter or the circuit breaker logs the loss, whichever notices it first.
    assert "the session store is not available" in logged
    assert logged & {"PostgresPublisher: connection lost", "the event publisher is not available"}


async def until_waiting(admin: AsyncConnection[TupleRow], sessions: int) -> None:
    """Return when that many sessions wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    found: TupleRow | None = None
    with anyio.fail_after(SECONDS):
        while found != (sessions,):
            await anyio.lowlevel.checkpoint()
            found = await (await admin.execute(query)).fetchone()


async def test_timed_out_call_leaves_no_session_waiting_for_lock(
    store: PostgresStore,
    migrated_postgres_url: str,
    admin: AsyncConnection[TupleRow],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """S09: while a table is locked, each attempt would else add a waiting session."""
    caplog.set_level(logging.DEBUG)
    await store.save([record()])
    async with await connect(migrated_postgres_url) as other, other.transaction():
        await other.execute("LOCK TABLE upload_progress.transfers")
        with pytest.raises(TimeoutError):
            await store.save([record(sequence=2)])
        for _ in range(5):
            with anyio.move_on_after(0.05) as scope:
                await store.save([record(sequence=3)])
            assert scope.cancelled_caught
        await until_waiting(admin, 0)

    assert [each.sequence for each in await store.load(record().key)] == [1]
    await store.save([record(sequence=4)])
    assert [each.sequence for each in await store.load(record().key)] == [4]
    # The tracker logs one line in 30 s; the driver must not add any.
    assert "psycopg" not in {each.name.partition(".")[0] for each in caplog.records}


async def test_statement_timeout_of_role_raises_and_next_call_succeeds(
    migrated_postgres_url: str, store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    """Administrators may set a ``statement_timeout``."""
    url = make_conninfo(migrated_postgres_url, options="-c statement_timeout=50ms")
    async with PostgresStore.open(url) as limited:
        await limited.save([record()])
        async with await connect(migrated_postgres_url) as other, other.transaction():
            await other.execute("LOCK TABLE upload_progress.transfers")
            with pytest.raises(QueryCanceled):
                await limited.save([record(sequence=2)])
        await limited.save([record(sequence=3)])
        assert [each.sequence for each in await limited.load(record().key)] == [3]


async def test_deadlock_raises_and_next_call_succeeds(
    migrated_postgres_url: str,
    store: PostgresStore,
    admin: AsyncConnection[TupleRow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S09: workers lock rows in the same order; other programs may not."""
    # PostgreSQL looks for a deadlock once, that long after a session has begun to wait. The other
    # session must wait by then, also on a busy machine, where 0.75 s for the call is not enough.
    monkeypatch.setattr("upload_progress.backends.postgres.store.CALL_SECONDS", SECONDS)
    await store.save([record("a"), record("b")])
    url = make_conninfo(migrated_postgres_url, options="-c deadlock_timeout=2s")
    ended = list[str]()
    locks = "SELECT FROM upload_progress.transfers WHERE upload_id = %s FOR UPDATE"

    async with await connect(migrated_postgres_url) as other, PostgresStore.open(url) as ours:

        async def save() -> None:
            with pytest.raises(DeadlockDetected):
                await ours.save([record("a", sequence=2), record("b", sequence=2)])
            ended.append("ours")

        async with other.transaction():
            await other.execute(locks, ("b",))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(save)
                await until_waiting(admin, 1)
                # It holds a, and waits for b.
                await other.execute("SET LOCAL deadlock_timeout = '60s'")
                await other.execute(locks, ("a",))

        assert ended == ["ours"]
        await ours.save([record("a", sequence=3), record("b", sequence=3)])


async def test_cancelled_call_leaves_no_result_for_next_call(
    postgres_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """The next caller must not get the result of the cancelled call."""
    await migrate(postgres_server.url)
    proxy = proxy_to(postgres_server.port)
    url = postgres_server.url.replace(str(postgres_server.port), str(proxy.port))
    async with PostgresStore.open(url) as store:
        await store.save([record(f"u{number}", received_bytes=number) for number in range(20)])
        proxy.delay_seconds = 0.05
        for number in range(5):
            with anyio.move_on_after(0.02):
                await store.load(UploadKey("ann", f"u{number}"))
        proxy.delay_seconds = 0.0
        for number in range(20):
            [loaded] = await store.load(UploadKey("ann", f"u{number}"))
            assert loaded.received_bytes == number


async def test_unresponsive_connection_does_not_delay_cancellation(
    postgres_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """S03: a call that is cancelled ends, although the server does not answer."""
    await migrate(postgres_server.url)
    proxy = proxy_to(postgres_server.port)
    url = postgres_server.url.replace(str(postgres_server.port), str(proxy.port))
    async with PostgresStore.open(url) as store:
        await store.save([record()])
        proxy.drops_data = True
        with anyio.fail_after(SECONDS):
            for _ in range(2):
                with anyio.move_on_after(0.2) as scope:
                    await store.load(record().key)
                assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                await store.load(record().key)
        proxy.drops_data = False
        assert len(await store.load(record().key)) == 1


@define
class ConcurrentBorrowers:
    """Many tasks that hold a connection until all others wait for one."""

    pool: LazyConnectionPool
    borrowed: int = 0
    maximum: int = 0
    is_full: anyio.Event = field(factory=anyio.Event)

    async def borrow(self) -> None:
        async with self.pool.connection():
            self.borrowed += 1
            self.maximum = max(self.maximum, self.borrowed)
            waiting = (await self.pool._pools.get())._limit.statistics().tasks_waiting
            if (self.borrowed, waiting) == (MAX_CONNECTIONS, 4 * MAX_CONNECTIONS):
                self.is_full.set()
            await self.is_full.wait()
            self.borrowed -= 1


async def test_number_of_connections_is_limited(migrated_postgres_url: str) -> None:
    borrowers = ConcurrentBorrowers(LazyConnectionPool(migrated_postgres_url))
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(5 * MAX_CONNECTIONS):
                tasks.start_soon(borrowers.borrow)
    await borrowers.pool.close()

    assert borrowers.maximum == MAX_CONNECTIONS


async def test_full_pool_is_not_a_failure_of_the_server(migrated_postgres_url: str) -> None:
    pool = LazyConnectionPool(migrated_postgres_url, max_connections=1, wait_seconds=0.01)
    async with pool.connection():
        with pytest.raises(StoreBusy):
            await PostgresStore(pool).load(record().key)
    assert await PostgresStore(pool).load(record("unknown").key) == []
    await pool.close()


async def test_timeout_of_a_process_that_stood_still_is_not_a_failure(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may have been there in time, but the event loop did not run."""
    monkeypatch.setattr(postgres_store, "CALL_SECONDS", 0.02)
    monkeypatch.setattr(postgres_store, "LATE_SECONDS", 0.02)
    async with (
        PostgresStore.open(migrated_postgres_url) as store,
        anyio.create_task_group() as tasks,
    ):

        async def load() -> None:
            with pytest.raises(StoreBusy):
                await store.load(record().key)

        tasks.start_soon(load)
        await checkpoint()
        time.sleep(0.1)  # noqa: ASYNC251  # it blocks the event loop


async def test_pool_shrinks_after_a_burst(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is returned later has been used last, and stays."""
    pool = LazyConnectionPool(migrated_postgres_url)
    async with pool.connection() as last, pool.connection() as first:
        pass
    async with pool.connection() as connection:
        assert connection is last
        monkeypatch.setattr(postgres_client, "IDLE_SECONDS", 0.0)
    assert first.closed
    await pool.close()


def test_invalid_schema_name_and_url_are_rejected() -> None:
    for name in ("", "a" * 64, "a\0b", "a%sb"):
        with pytest.raises(InvalidValue, match="schema: must have"):
            PostgresStore.open("postgresql://127.0.0.1", schema=name)
    with pytest.raises(InvalidValue, match="is not a valid PostgreSQL URL"):
        PostgresStore.open("nonsense")


def test_password_is_not_in_repr() -> None:
    opened = PostgresStore.open("postgresql://u:secret@127.0.0.1", retention=Retention())
    assert "secret" not in repr(opened) + repr(opened.client)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
async def test_unreachable_server_raises_error_without_password(host: str) -> None:
    """S01: the message of the driver holds no secret."""
    async with PostgresStore.open(f"postgresql://u:secret@{host}/d") as store:
        with pytest.raises((OperationalError, TimeoutError)) as caught:
            await store.save([record()])
    assert "secret" not in str(caught.value)
