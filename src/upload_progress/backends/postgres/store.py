"""Sessions in PostgreSQL: for several workers, where there is a database already.

A batch is one statement, whatever the number of uploads; a connection is held for one statement,
and never while something is waited for. PostgreSQL decides which version of a record is the last,
by ``(attempt, sequence)``, and its clock says whose lease has run out. What has ended is deleted by
whichever worker sweeps next.

The schema is made beforehand: ``upload-progress migrate URL``.
"""

import builtins
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, LiteralString, Self

import anyio
from attrs import define, field
from psycopg import sql
from psycopg.errors import InvalidSchemaName, UndefinedColumn, UndefinedTable
from psycopg.rows import TupleRow

from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress.backends.postgres import statements
from upload_progress.backends.postgres.client import (
    CALL_SECONDS,
    ConnectionPool,
    LazyConnectionPool,
    fetch_rows,
    validate_schema,
    validate_url,
)
from upload_progress.backends.postgres.rows import (
    FORMAT,
    Key,
    Row,
    columns_of,
    cursor_of,
    keys_of,
    raw,
    read_cursor,
    split,
    uploads_of,
    versions_of,
)
from upload_progress.backends.store_records import (
    decode_record,
    latest_records,
    overdue_records,
    with_store_times,
)
from upload_progress.config import Retention
from upload_progress.exceptions import SchemaMissing
from upload_progress.interfaces import Clock, RecordPage, SystemClock

__all__ = [
    "AGAIN_SECONDS",
    "NEWBORN_SECONDS",
    "PORTION",
    "ROUNDS",
    "PostgresStore",
]


PORTION: Final = 1000
"""Records in one statement."""
ROUNDS: Final = 10
"""Portions of what has ended that one sweep deletes."""
AGAIN_SECONDS: Final = 30.0
NEWBORN_SECONDS: Final = 60.0
"""The lease of a worker that has not renewed it yet."""

_ENDED: Final = sql.SQL("kind IN ('C', 'D', 'S')")
_WAITING: Final = sql.SQL("kind IN ('N', 'P')")


@define(eq=False, repr=False)
class PostgresStore:
    """A ``SessionStore`` in PostgreSQL 13 or newer, for asyncio.

    A call takes at most a second, whatever the server or the pool does.

    Args:
        client: A pool of psycopg, or what lends connections as it does. It stays open.
        retention: How long sessions are kept.
        schema: Where the tables are.
        clock: Whose time is stamped on records; that of this machine.

    Attributes:
        spoiled: Records that were passed over, since nothing here could read them.
    """

    client: ConnectionPool
    retention: Retention = field(factory=Retention, kw_only=True)
    schema: str = field(default="upload_progress", kw_only=True)
    clock: Clock = field(factory=SystemClock, kw_only=True)
    spoiled: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuse what is no name."""
        validate_schema(self.schema)

    @classmethod
    def open(
        cls, url: str, *, retention: Retention | None = None, schema: str = "upload_progress"
    ) -> Self:
        """Return one with a few connections of its own, which it closes.

        Args:
            url: ``postgresql://…``, or any other ``conninfo`` of libpq.
            retention: As above.
            schema: As above.

        Raises:
            InvalidValue: The URL is none of these.
        """
        client = LazyConnectionPool(validate_url(url))
        return cls(client, retention=retention or Retention(), schema=schema)

    async def __aenter__(self) -> Self:
        """Do nothing: a connection is made when it is first needed."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the connections that were opened here; a pool that was given stays open."""
        if isinstance(self.client, LazyConnectionPool):
            await self.client.close()

    async def _run(
        self,
        statement: LiteralString,
        values: Mapping[str, object] | Sequence[object],
        kinds: sql.SQL | None = None,
    ) -> Sequence[TupleRow]:
        """Return the rows of *statement*, which is a transaction of its own.

        Raises:
            SchemaMissing: There is no such table.
            TimeoutError: It took too long.
        """
        schema, columns = sql.Identifier(self.schema), sql.SQL(statements.COLUMNS)
        query = sql.SQL(statement).format(schema=schema, columns=columns, kinds=kinds)
        try:
            with anyio.fail_after(CALL_SECONDS):
                async with self.client.connection() as connection:
                    return await fetch_rows(connection, query, values)
        except (UndefinedTable, UndefinedColumn, InvalidSchemaName):
            raise SchemaMissing(self.schema) from None

    # Writing

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Keep *records*; one that was overtaken changes nothing."""
        current = latest_records(records)
        for start in range(0, len(current), PORTION):
            await self._save(current[start : start + PORTION])

    async def _save(self, records: Sequence[TransferRecord]) -> None:
        terms = {
            "ended": self.retention.ended_seconds,
            "waiting": self.retention.waiting_seconds,
            "newborn": NEWBORN_SECONDS,
        }
        await self._run(statements.SAVE, {**terms, **columns_of(records)})
        if again := [record for record in records if record.attempt > 1]:
            # Nobody reads them any more. This only keeps the table small.
            keys = split(keys_of(record.key for record in again))
            await self._run(statements.DROP_OLD, (*keys, [each.attempt for each in again]))

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Prolong the lease of *worker*."""
        await self._run(statements.RENEW, (worker, seconds))

    # Reading

    async def load(self, *keys: UploadKey) -> builtins.list[TransferRecord]:
        """Return all records of those uploads."""
        unique = keys_of(dict.fromkeys(keys))
        records: builtins.list[TransferRecord] = []
        for start in range(0, len(unique), PORTION):
            for upload in await self._load(unique[start : start + PORTION]):
                records += self._records(upload)
        return records

    async def _load(self, keys: Collection[Key]) -> builtins.list[builtins.list[Row]]:
        return uploads_of(await self._run(statements.LOAD, split(keys))) if keys else []

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_since: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the uploads of *owner*, newest first."""
        before, upload_id = read_cursor(cursor)
        values = {
            "owner": raw(owner),
            "group": None if group is None else raw(group),
            "since": ended_since,
            "before": before,
            "upload_id": upload_id,
            "limit": limit,
        }
        found = uploads_of(await self._run(statements.LIST, values))
        uploads = [tuple(self._records(upload)) for upload in found]
        further = cursor_of(found[-1][0]) if len(found) == limit else None
        return RecordPage(tuple(upload for upload in uploads if upload), further)

    def _records(self, upload: Sequence[Row]) -> builtins.list[TransferRecord]:
        """Decode an upload, and stamp it with the times that only the store knows."""
        now = self.clock.time()
        return newest(
            with_store_times(record, self.retention, row.lease_until(now))
            for row in upload
            if (record := self._record(row))
        )

    def _record(self, row: Row) -> TransferRecord | None:
        record = None
        if row.format == FORMAT:
            owner = row.owner.decode("utf-8", "surrogatepass")
            record = decode_record(owner, row.upload_id, row.record)
        self.spoiled += record is None
        return record

    # Sweeping

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ran out, or that waited too long; drop the ended."""
        for _ in range(ROUNDS):
            if await self._forget() < PORTION:
                break
        found = await self._expired(limit)
        if len(found) < limit:
            found += await self._lost(limit - len(found))
        return found[:limit]

    async def _claim(
        self, limit: int, statement: LiteralString, kinds: sql.SQL | None = None
    ) -> dict[Key, set[str]]:
        claimed: dict[Key, set[str]] = {}
        for owner, upload_id, transfer_id in await self._run(
            statement, (AGAIN_SECONDS, limit), kinds
        ):
            claimed.setdefault((owner, upload_id), set()).add(transfer_id)
        return claimed

    async def _forget(self) -> int:
        """Delete a portion of the uploads that ended long ago, and return how many were looked at.

        A transfer that has ended is not the upload: others of it may go on. Only versions that
        were seen are deleted, so that an attempt that begins meanwhile stays.
        """
        claimed = await self._claim(PORTION, statements.CLAIM, _ENDED)
        gone = [
            row
            for upload in await self._load(claimed)
            if self._is_over(upload, claimed[upload[0].key])
            for row in upload
            if row.format <= FORMAT
        ]
        if gone:
            await self._run(statements.DROP, versions_of(gone))
        return sum(map(len, claimed.values()))

    def _is_over(self, upload: Sequence[Row], due: set[str]) -> bool:
        records = self._records(upload)
        if not records:
            return True
        decided = deciding(records)
        return is_final(decided.state) and decided.transfer_id in due

    async def _expired(self, limit: int) -> builtins.list[TransferRecord]:
        claimed = await self._claim(limit, statements.CLAIM, _WAITING)
        return [each for rows in await self._load(claimed) for each in self._open(rows, claimed)]

    def _open(
        self, upload: Sequence[Row], claimed: Mapping[Key, set[str]]
    ) -> Iterator[TransferRecord]:
        """Yield those that were claimed: the others are another worker's to end."""
        for record in overdue_records(self._records(upload), self.clock.time()):
            if record.transfer_id in claimed[upload[0].key]:
                yield record

    async def _lost(self, limit: int) -> builtins.list[TransferRecord]:
        claimed = await self._claim(limit, statements.CLAIM_LOST)
        found: builtins.list[TransferRecord] = []
        stale: builtins.list[Row] = []
        for upload in await self._load(claimed):
            records = self._records(upload)
            found += self._open(upload, claimed)
            current = {record.transfer_id for record in records}
            is_ended = not records or is_final(deciding(records).state)
            stale += [row for row in upload if is_ended or row.transfer_id not in current]
        if stale:
            await self._run(statements.RELEASE, versions_of(stale))
        return found
