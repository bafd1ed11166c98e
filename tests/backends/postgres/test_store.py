"""``PostgresStore``: the contract of all stores, and what is particular to PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from attrs import evolve
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from tests._support.leases import let_lease_run_out
from tests._support.records import record
from upload_progress._model.models import UploadState
from upload_progress.backends.postgres import statements
from upload_progress.backends.postgres.store import BATCH_SIZE, PostgresStore
from upload_progress.testing import StoreContract
from upload_progress.testing.lease_contract import comparable

pytestmark = pytest.mark.anyio

S = UploadState


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


class TestPostgresStore(StoreContract):
    @pytest.fixture
    async def store(
        self, migrated_postgres_url: str, admin: AsyncConnection[TupleRow]
    ) -> AsyncIterator[PostgresStore]:
        async with PostgresStore.open(migrated_postgres_url, retention=self.RETENTION) as store:
            yield store


async def test_batch_is_one_statement(
    store: PostgresStore, admin: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budget: one round trip, whatever the number of uploads."""
    executed: list[object] = []
    execute = AsyncConnection.execute

    async def counted(self: AsyncConnection[TupleRow], *args: Any, **more: Any) -> object:  # noqa: ANN401  # whatever
        executed.append(args)
        return await execute(self, *args, **more)

    monkeypatch.setattr(AsyncConnection, "execute", counted)
    await store.save([record(f"u{number}") for number in range(500)])

    assert len(executed) == 1


MANY = """
INSERT INTO upload_progress.transfers
SELECT 'ann', 'u' || number, 't', 1, 1, 'C', %(now)s - number, %(now)s - number, NULL, NULL,
    now() + make_interval(secs => 3600 - number), 1, ''
FROM generate_series(1, 20000) AS number
"""


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan that read a table or an index."""
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)
    if "Scan" in plan["Node Type"]:
        yield plan


@pytest.mark.parametrize("within", [None, 15_000.0])
@pytest.mark.parametrize("before", [float("inf"), -10_000.0])
async def test_page_of_a_long_list_reads_few_rows(
    migrated_postgres_url: str,
    admin: AsyncConnection[TupleRow],
    within: float | None,
    before: float,
) -> None:
    """The first page and a late one, of all uploads and of those that ended lately."""
    now = time.time()
    await admin.execute(MANY, {"now": now})
    await admin.execute("ANALYZE upload_progress.transfers")
    schema = sql.Identifier("upload_progress")
    columns = sql.SQL(statements.COLUMNS).format(schema=schema)
    query = sql.SQL(statements.LIST).format(schema=schema, columns=columns)
    values = {
        "owner": b"ann",
        "group": None,
        "left": None if within is None else 3600 - within,
        "before": now + before,
        "upload_id": "",
        "limit": 101,
    }
    explained = await admin.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + query, values)
    [[[plan]]] = await explained.fetchall()

    read = [node["Actual Rows"] * node["Actual Loops"] for node in nodes_of(plan["Plan"])]
    assert max(read) == 101


async def test_batch_larger_than_one_statement_is_saved_and_loaded(store: PostgresStore) -> None:
    records = [record(f"u{number:05}") for number in range(BATCH_SIZE + 1)]
    await store.save(records)

    assert len(await store.load(*(each.key for each in records))) == BATCH_SIZE + 1
    assert len(await store.load(record("u00000").key, record("u00000").key)) == 1


async def test_late_record_of_older_attempt_is_ignored(store: PostgresStore) -> None:
    """Two concurrent transactions do not see each other's rows; a reader sees both."""
    await store.save([record(attempt=2)])

    await store.save([record(transfer_id="late", attempt=1, sequence=9)])

    assert comparable(await store.load(record().key)) == [record(attempt=2)]
    assert len((await store.list("ann")).uploads[0]) == 1


async def test_new_attempt_replaces_older_records_in_one_batch(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    await store.save([record(), record(transfer_id="t2")])
    await store.save([record(sequence=2), record(transfer_id="t3", attempt=2)])

    assert comparable(await store.load(record().key)) == [record(transfer_id="t3", attempt=2)]
    assert await rows(admin) == 1


async def rows(admin: AsyncConnection[TupleRow], table: str = "transfers") -> int:
    query = sql.SQL("SELECT count(*) FROM upload_progress.{}").format(sql.Identifier(table))
    [count] = await (await admin.execute(query)).fetchone() or [None]
    assert isinstance(count, int)
    return count


async def test_row_of_newer_release_is_kept_and_unreadable_row_is_skipped(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    """D04 and S07: such rows are neither read nor overwritten, and do not end an upload."""
    await store.save([record(transfer_id=name) for name in ("future", "torn", "good")])
    await admin.execute(
        "UPDATE upload_progress.transfers SET format = 2 WHERE transfer_id = 'future'"
    )
    await admin.execute(
        "UPDATE upload_progress.transfers SET record = '\\xc1' WHERE transfer_id = 'torn'"
    )
    await let_lease_run_out(store, "w")

    await store.save([record(transfer_id="future", sequence=9)])

    [loaded] = await store.load(record().key)
    assert loaded.transfer_id == "good"
    assert store.unreadable == 2
    assert [each.transfer_id for each in await store.overdue(limit=9)] == ["good"]
    found = await admin.execute(
        "SELECT sequence FROM upload_progress.transfers WHERE transfer_id = 'future'"
    )
    assert await found.fetchone() == (1,)


async def test_unreadable_row_is_not_listed_and_is_deleted_when_due(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    ended = record(state=S.COMPLETED, worker=None, finished_at=5.0)
    await store.save([ended])
    await admin.execute("UPDATE upload_progress.transfers SET record = '\\xc1', due_at = now()")

    assert await store.load(record().key) == []
    assert (await store.list("ann")).uploads == ()
    assert await store.overdue(limit=9) == []
    assert await rows(admin) == 0


async def make_due(admin: AsyncConnection[TupleRow], transfer_id: str) -> None:
    """Set the due time of a row to now."""
    await admin.execute(
        "UPDATE upload_progress.transfers SET due_at = now() WHERE transfer_id = %s",
        (transfer_id,),
    )


async def test_ended_transfer_is_kept_while_others_of_its_upload_are_open(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    await store.save(
        [
            record(transfer_id="first", state=S.COMPLETED, worker=None, finished_at=5.0),
            record(transfer_id="second"),
        ]
    )
    await make_due(admin, "first")

    assert await store.overdue(limit=9) == []
    assert await rows(admin) == 2


async def test_announcement_neither_expires_nor_outlives_its_upload(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    """A pending record beside a running one is not overdue, and is deleted with the upload."""
    announced = record(transfer_id="announced", state=S.PENDING, worker=None)
    await store.save([announced, record()])
    await make_due(admin, "announced")
    assert await store.overdue(limit=9) == []

    await store.save([record(sequence=2, state=S.COMPLETED, worker=None, finished_at=5.0)])
    await make_due(admin, "t")
    assert await store.overdue(limit=9) == []
    assert await rows(admin) == 0


async def test_expired_record_is_not_claimed_again_at_once(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    now = time.time()
    await store.save([record(state=S.PENDING, worker=None, updated_at=now)])
    await make_due(admin, "t")

    [expired] = await store.overdue(limit=9)

    assert expired.expires_at is not None
    assert expired.expires_at <= time.time()
    assert await store.overdue(limit=9) == []


async def test_only_transfers_of_dead_worker_are_overdue(store: PostgresStore) -> None:
    await store.save([record(), record(transfer_id="t2", worker="w2")])
    await store.renew("w", seconds=60)
    await let_lease_run_out(store, "w2")

    assert [lost.transfer_id for lost in await store.overdue(limit=9)] == ["t2"]
    assert await store.overdue(limit=0) == []


async def test_lost_transfers_of_one_upload_are_claimed_once_each(
    store: PostgresStore,
) -> None:
    """P10: each is returned once, also if both belong to one upload."""
    await store.save([record(), record(transfer_id="t2")])
    await let_lease_run_out(store, "w")

    claimed = [each.transfer_id for _ in range(3) for each in await store.overdue(limit=1)]

    assert sorted(claimed) == ["t", "t2"]


async def test_record_of_cancelled_upload_is_not_overdue(store: PostgresStore) -> None:
    """The worker that cancels adds a record beside that of the worker that receives."""
    await store.save([record()])
    await let_lease_run_out(store, "w")
    await store.save([record(transfer_id="c", state=S.CANCELLED, worker=None, finished_at=9.0)])

    assert await store.overdue(limit=9) == []
    assert await store._run("SELECT 1 FROM {schema}.transfers WHERE worker = 'w'", ()) == []


async def test_worker_without_lease_gets_one_of_a_minute(store: PostgresStore) -> None:
    await store.save([record()])

    [loaded] = await store.load(record().key)

    assert loaded.lease_until is not None
    assert time.time() + 30 < loaded.lease_until <= time.time() + 60


async def test_old_lease_of_worker_without_uploads_is_deleted(
    store: PostgresStore, admin: AsyncConnection[TupleRow]
) -> None:
    await store.save([record()])
    for worker in ("w", "gone"):
        await store.renew(worker, seconds=-4000)

    await store.renew("other", seconds=15)
    assert await rows(admin, "leases") == 2

    await store.renew("w", seconds=-4000)
    await store.save([record(sequence=2, state=S.FAILED, worker=None, finished_at=5.0)])
    await store.renew("w", seconds=15)
    assert await rows(admin, "leases") == 2


async def test_ended_uploads_are_deleted_in_bounded_batches(
    store: PostgresStore, admin: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress.backends.postgres.store.BATCH_SIZE", 2)
    monkeypatch.setattr("upload_progress.backends.postgres.store.MAX_DELETE_BATCHES", 3)
    await store.save(
        [record(f"u{n}", state=S.FAILED, worker=None, finished_at=5.0) for n in range(7)]
    )
    await make_due(admin, "t")

    await store.overdue(limit=1)
    assert await rows(admin) == 1
    await store.overdue(limit=1)
    assert await rows(admin) == 0


async def test_owners_are_limited_after_a_tenth_of_the_limit(
    store: PostgresStore, admin: AsyncConnection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of an owner are not read for each record; the number of counters is bounded."""
    executed: list[object] = []
    run = PostgresStore._run

    async def counted(self: PostgresStore, statement: Any, *args: Any) -> object:  # noqa: ANN401  # whatever
        executed.append(statement)
        return await run(self, statement, *args)

    monkeypatch.setattr(PostgresStore, "_run", counted)
    monkeypatch.setattr("upload_progress.backends.postgres.store.MAX_COUNTED_OWNERS", 1)
    for number in range(250):
        end = record(f"u{number}", state=S.FAILED, worker=None, finished_at=5.0)
        await store.save([end])
    assert executed.count(statements.LIMIT_OWNERS) == 2

    for owner in ("bob", "carol"):
        await store.save([record(owner=owner, state=S.FAILED, worker=None, finished_at=5.0)])
    assert store._saved == {"carol": 1}
    await store.save([record(f"v{n}", state=S.FAILED, worker=None) for n in range(200)])
    assert executed.count(statements.LIMIT_OWNERS) == 3


async def test_list_decides_state_like_fold(store: PostgresStore) -> None:
    """Ended, open or stopped: SQL and Python derive the same state."""
    completed = record("mixed", state=S.COMPLETED, worker=None, finished_at=10.0)
    await store.save(
        [
            completed,
            record("mixed", transfer_id="t2", state=S.PAUSED, worker=None),
            evolve(completed, upload_id="done", finished_at=20.0),
            evolve(completed, upload_id="done", transfer_id="t2", state=S.PENDING),
            evolve(completed, upload_id="cut"),
            record("cut", transfer_id="t2", state=S.FAILED, worker=None, finished_at=9.0),
        ]
    )

    async def listed(ended_within_seconds: float) -> set[str]:
        page = await store.list("ann", ended_within_seconds=ended_within_seconds)
        return {upload[0].upload_id for upload in page.uploads}

    assert await listed(60.0) == {"mixed", "done", "cut"}
    assert await listed(0.0) == {"mixed"}


async def test_wrong_clock_of_a_worker_expires_nothing_early(store: PostgresStore) -> None:
    """The clock of the server decides."""
    a_month_ago = time.time() - 30 * 24 * 3600
    for number, state in enumerate((S.PENDING, S.PAUSED, S.COMPLETED)):
        await store.save(
            [
                record(
                    f"u{number}",
                    state=state,
                    worker=None,
                    created_at=a_month_ago,
                    updated_at=a_month_ago,
                    finished_at=a_month_ago if state is S.COMPLETED else None,
                )
            ]
        )

    assert list(await store.overdue(limit=9)) == []
    assert len((await store.list("ann")).uploads) == 3
