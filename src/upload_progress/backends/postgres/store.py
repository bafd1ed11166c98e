"""A ``SessionStore`` in PostgreSQL, for several workers that share a database already.

A batch is one statement, whatever the number of uploads. A connection is used for one statement at
a time. PostgreSQL decides which version of a record is the newest, by ``(attempt, sequence)``, and
whose lease has ended, by its own clock. Any worker that looks for overdue uploads deletes the ended
ones.

The tables have to exist: ``upload-progress migrate URL``.
"""

import builtins
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, LiteralString, Self

import anyio
from attrs import Factory, define, field
from psycopg import sql
from psycopg.errors import InvalidSchemaName, UndefinedColumn, UndefinedTable
from psycopg.rows import TupleRow

from upload_progress._model.fold import deciding, newest, newest_attempt, received_by
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final, is_waiting
from upload_progress.backends.postgres import statements
from upload_progress.backends.postgres.client import (
    CALL_SECONDS,
    LATE_SECONDS,
    ConnectionPool,
    LazyConnectionPool,
    fetch_rows,
    safe_pool,
    validate_schema,
    validate_url,
)
from upload_progress.backends.postgres.rows import (
    FORMAT,
    Key,
    TransferRow,
    encode_name,
    group_by_upload,
    key_columns,
    to_columns,
    to_keys,
    version_columns,
)
from upload_progress.backends.store_records import (
    decode_record,
    format_cursor,
    format_open_cursor,
    is_open,
    latest_records,
    overdue_records,
    parse_cursor,
    parse_open_cursor,
    with_store_times,
)
from upload_progress.config import Retention
from upload_progress.exceptions import SchemaMissing, StoreBusy
from upload_progress.interfaces import Clock, RecordPage, SystemClock

__all__ = [
    "BATCH_SIZE",
    "MAX_COUNTED_OWNERS",
    "MAX_DELETE_BATCHES",
    "RETRY_SECONDS",
    "PostgresStore",
]


BATCH_SIZE: Final = 1000
"""Records in one statement."""
MAX_DELETE_BATCHES: Final = 10
"""Batches of ended uploads that one call of ``overdue`` deletes."""
MAX_COUNTED_OWNERS: Final = 10_000
"""Owners whose saved uploads are counted; see ``PostgresStore._limit_owners``."""
RETRY_SECONDS: Final = 30.0
"""After so long a claimed row can be claimed again, if no worker has ended its upload."""

_ENDED: Final = "state_code IN ('C', 'D', 'S')"
_WAITING: Final = "state_code IN ('N', 'P')"


@define(eq=False, repr=False)
class PostgresStore:
    """A ``SessionStore`` in PostgreSQL 13 or newer, for asyncio. A call takes at most a second.

    ``ProgressTracker.from_url("postgresql://…")`` makes one. With a pool of the application::

        store = PostgresStore(AsyncConnectionPool(url, open=False), schema="shop_uploads")

    Args:
        client: A pool such as ``psycopg_pool.AsyncConnectionPool``. It stays open.
        retention: How long records are kept.
        schema: The schema of the tables.
        clock: Gives the times that are added to records; by default the clock of this machine.

    Attributes:
        unreadable: How many rows could not be decoded and were skipped.

    Raises:
        InvalidValue: *schema* cannot be the name of a schema.
    """

    client: ConnectionPool
    retention: Retention = field(factory=Retention, kw_only=True)
    schema: str = field(default="upload_progress", kw_only=True)
    clock: Clock = field(factory=SystemClock, kw_only=True)
    unreadable: int = field(default=0, init=False)
    _pool: ConnectionPool = field(
        default=Factory(lambda store: safe_pool(store.client), takes_self=True), init=False
    )
    _saved: dict[str, int] = field(factory=dict, init=False)
    _composed: dict[tuple[str, str], sql.Composed] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Check the name of the schema."""
        validate_schema(self.schema)

    @classmethod
    def open(
        cls, url: str, *, retention: Retention | None = None, schema: str = "upload_progress"
    ) -> Self:
        """Return a store with a few connections of its own, which it closes.

        It connects when it is first used.

        Args:
            url: ``postgresql://…``, or any other ``conninfo`` of libpq.
            retention: How long records are kept; by default as in ``Retention()``.
            schema: The schema of the tables.

        Raises:
            InvalidValue: The URL or the name of the schema is not valid.
        """
        client = LazyConnectionPool(validate_url(url))
        return cls(client, retention=retention or Retention(), schema=schema)

    @property
    def namespace(self) -> str:
        """The schema, with hyphens for underscores as in ``from_url(namespace=…)``."""
        return self.schema.replace("_", "-")

    async def __aenter__(self) -> Self:
        """Do nothing: connections are made when they are first used."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the connections that the store has opened; a pool of the application stays open."""
        if isinstance(self.client, LazyConnectionPool):
            await self.client.close()

    async def _run(
        self,
        statement: LiteralString,
        values: Mapping[str, object] | Sequence[object],
        states: LiteralString = "",
    ) -> Sequence[TupleRow]:
        """Return the rows of *statement*, which is a transaction of its own.

        Args:
            statement: One of ``statements``.
            values: Its parameters.
            states: The condition that replaces ``{states}``.

        Raises:
            SchemaMissing: A table or column does not exist.
            TimeoutError: The call took longer than ``CALL_SECONDS``.
            StoreBusy: There was no free connection, or this process was too busy.
        """
        query = self._composed.get((statement, states)) or self._compose(statement, states)
        late_at = anyio.current_time() + CALL_SECONDS + LATE_SECONDS
        try:
            with anyio.fail_after(CALL_SECONDS):
                async with self._pool.connection() as connection:
                    return await fetch_rows(connection, query, values)
        except TimeoutError:
            if anyio.current_time() >= late_at:
                raise StoreBusy from None
            raise
        except (UndefinedTable, UndefinedColumn, InvalidSchemaName):
            raise SchemaMissing(self.schema) from None

    def _compose(self, statement: LiteralString, states: LiteralString) -> sql.Composed:
        """Return *statement* with its names; it is composed once, as that takes a while."""
        schema = sql.Identifier(self.schema)
        columns = sql.SQL(statements.COLUMNS).format(schema=schema)
        query = sql.SQL(statement).format(schema=schema, columns=columns, states=sql.SQL(states))
        self._composed[statement, states] = query
        return query

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*; return those that are not newer than the stored ones."""
        latest = latest_records(records)
        refused: builtins.list[TransferRecord] = []
        for start in range(0, len(latest), BATCH_SIZE):
            refused += await self._save(latest[start : start + BATCH_SIZE])
        return refused

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, unless its owner has *limit* of them."""
        values = {**self._times, **to_columns([record], self.clock.time()), "limit": limit}
        is_saved = bool(await self._run(statements.ANNOUNCE, values))
        if is_saved:
            await self._limit_owners([record])
        return is_saved

    @property
    def _times(self) -> dict[str, float]:
        return {
            "ended": self.retention.ended_seconds,
            "waiting": self.retention.waiting_seconds,
        }

    async def _save(self, records: Sequence[TransferRecord]) -> builtins.list[TransferRecord]:
        columns = to_columns(records, self.clock.time())
        refused = await self._run(statements.SAVE, {**self._times, **columns})
        if repeated := [record for record in records if record.attempt > 1]:
            # Rows of older attempts are ignored when read. Deleting them keeps the table small.
            keys = key_columns(to_keys(record.key for record in repeated))
            await self._run(statements.DROP_OLD, (*keys, [each.attempt for each in repeated]))
        await self._limit_owners(records)
        return [records[position - 1] for (position,) in refused]

    async def _limit_owners(self, records: Sequence[TransferRecord]) -> None:
        """Let the oldest uploads of an owner be due who has more of them than the limits allow.

        That reads all rows of the owner, and is done after a tenth of the limit has been saved
        here: so the work is constant for each record, and an owner may exceed a limit by a tenth
        for each worker.
        """
        limits = (self.retention.ended_per_owner, self.retention.waiting_per_owner)
        interval = max(1, min(limits) // 10)
        due: dict[str, None] = {}
        for record in records:
            if is_final(record.state) or is_waiting(record.state):
                saved = self._saved.pop(record.owner, 0) + 1
                if saved < interval:
                    self._saved[record.owner] = saved
                else:
                    due[record.owner] = None
        while len(self._saved) > MAX_COUNTED_OWNERS:
            del self._saved[next(iter(self._saved))]
        if due:
            owners = [encode_name(owner) for owner in due]
            values = {"owners": owners, "ended": limits[0], "waiting": limits[1]}
            await self._run(statements.LIMIT_OWNERS, values)

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* for *seconds* from now."""
        await self._run(statements.RENEW, {"worker": worker, "seconds": seconds})

    async def load(self, *keys: UploadKey) -> builtins.list[TransferRecord]:
        """Return all records of the uploads *keys*; unknown uploads add nothing."""
        unique = to_keys(dict.fromkeys(keys))
        records: builtins.list[TransferRecord] = []
        for start in range(0, len(unique), BATCH_SIZE):
            for upload in await self._load(unique[start : start + BATCH_SIZE]):
                records += self._decode(upload)
        return records

    async def _load(self, keys: Collection[Key]) -> builtins.list[builtins.list[TransferRow]]:
        if not keys:
            return []
        return group_by_upload(await self._run(statements.LOAD, key_columns(keys)))

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return one page of the uploads of *owner*, newest first."""
        before, upload_id = parse_cursor(cursor)
        values = {
            "owner": encode_name(owner),
            "group": None if group is None else encode_name(group),
            "left": self._least_left(ended_within_seconds),
            "before": before,
            "upload_id": upload_id,
            "limit": limit,
        }
        found = group_by_upload(await self._run(statements.LIST, values))
        cursors = [format_cursor(rows[0].created_at, rows[0].upload_id) for rows in found]
        next_cursor = cursors[-1] if found and len(found) == limit else None
        decoded = zip((tuple(self._decode(rows)) for rows in found), cursors, strict=True)
        uploads = [(records, cursor) for records, cursor in decoded if records]
        return RecordPage(
            tuple(records for records, _ in uploads),
            next_cursor,
            tuple(cursor for _, cursor in uploads),
        )

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return one page of the open uploads of all owners, by owner and id."""
        owner, upload_id = parse_open_cursor(cursor)
        values = (encode_name(owner), upload_id, limit)
        keys = [tuple(row) for row in await self._run(statements.LIST_OPEN, values)]
        uploads = [tuple(self._decode(upload)) for upload in await self._load(keys)]
        following = None
        if len(keys) == limit:
            last_owner, last_id = keys[-1]
            following = format_open_cursor(last_owner.decode("utf-8", "surrogatepass"), last_id)
        return RecordPage(tuple(filter(is_open, uploads)), following)

    def _least_left(self, ended_within_seconds: float | None) -> float | None:
        """Return for how long at least uploads that ended so recently are still kept."""
        if ended_within_seconds is None:
            return None
        return self.retention.ended_seconds - ended_within_seconds

    def _decode(self, upload: Sequence[TransferRow]) -> builtins.list[TransferRecord]:
        """Return the newest records of an upload, with store times on the clock of this machine."""
        now = self.clock.time()
        return newest_attempt(
            with_store_times(record, self.retention, row.lease_until(now))
            for row in upload
            if (record := self._decode_row(row))
        )

    def _decode_row(self, row: TransferRow) -> TransferRecord | None:
        record = None
        if row.format == FORMAT:
            owner = row.owner.decode("utf-8", "surrogatepass")
            record = decode_record(owner, row.upload_id, row.record)
        self.unreadable += record is None
        return record

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives."""
        rows = await self._run(statements.RUNNING, (worker, limit))
        uploads = [self._decode(upload) for upload in group_by_upload(rows)]
        return [record for upload in uploads for record in received_by(worker, upload)]

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ended or that have expired; delete old ended uploads."""
        for _ in range(MAX_DELETE_BATCHES):
            if await self._delete_ended() < BATCH_SIZE:
                break
        found = await self._claim_expired(limit)
        if len(found) < limit:
            found += await self._claim_lost(limit - len(found))
        return found[:limit]

    async def _claim(
        self, limit: int, statement: LiteralString, states: LiteralString = ""
    ) -> dict[Key, set[str]]:
        """Claim up to *limit* rows, and return the transfer ids of each upload."""
        claimed: dict[Key, set[str]] = {}
        for owner, upload_id, transfer_id in await self._run(
            statement, (RETRY_SECONDS, limit), states
        ):
            claimed.setdefault((owner, upload_id), set()).add(transfer_id)
        return claimed

    async def _delete_ended(self) -> int:
        """Delete a batch of uploads that ended long ago, and return how many rows were claimed.

        A transfer that has ended does not mean that its upload has: other transfers may be open.
        Only the versions that were read are deleted, so that a new attempt is never lost.
        """
        claimed = await self._claim(BATCH_SIZE, statements.CLAIM, _ENDED)
        deletable = [
            row
            for upload in await self._load(claimed)
            if self._has_ended(upload, claimed[upload[0].key])
            for row in upload
            if row.format <= FORMAT
        ]
        if deletable:
            await self._run(statements.DROP, version_columns(deletable))
        return sum(map(len, claimed.values()))

    def _has_ended(self, upload: Sequence[TransferRow], due: set[str]) -> bool:
        """Return whether the transfer that decides the state of *upload* is final, and *due*."""
        records = self._decode(upload)
        if not records:
            return True
        decided = deciding(newest(records))
        return is_final(decided.state) and decided.transfer_id in due

    async def _claim_expired(self, limit: int) -> builtins.list[TransferRecord]:
        claimed = await self._claim(limit, statements.CLAIM, _WAITING)
        return [
            record
            for upload in await self._load(claimed)
            for record in self._overdue(upload, claimed)
        ]

    def _overdue(
        self, upload: Sequence[TransferRow], claimed: Mapping[Key, set[str]]
    ) -> Iterator[TransferRecord]:
        """Yield the claimed records; other workers may have claimed others of the same upload."""
        for record in overdue_records(self._decode(upload), self.clock.time()):
            if record.transfer_id in claimed[upload[0].key]:
                yield record

    async def _claim_lost(self, limit: int) -> builtins.list[TransferRecord]:
        claimed = await self._claim(limit, statements.CLAIM_LOST)
        found: builtins.list[TransferRecord] = []
        stale: builtins.list[TransferRow] = []
        for upload in await self._load(claimed):
            records = self._decode(upload)
            found += self._overdue(upload, claimed)
            current = {record.transfer_id for record in records}
            has_ended = not records or is_final(deciding(newest(records)).state)
            stale += [row for row in upload if has_ended or row.transfer_id not in current]
        if stale:
            await self._run(statements.RELEASE, version_columns(stale))
        return found
