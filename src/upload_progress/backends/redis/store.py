"""Sessions in Redis: for several workers, on one machine or many.

Each operation is one script, hence one round trip, whatever the number of uploads. Redis decides
which version of a record is the last, by ``(attempt, sequence)``, and its clock says whose lease
has run out. Every key has a time to live from birth, so that nothing stays if all workers go away.

A cluster of Redis spreads owners over ``shards``; all that is an owner's lies in one slot.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha1
from struct import Struct
from types import TracebackType
from typing import Any, Final, Self
from zlib import crc32

from attrs import Factory, define, field
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError

from upload_progress._model.codec import pack_record
from upload_progress._model.fold import newest
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.redis import scripts as scripts
from upload_progress.backends.redis.client import checked_client, open_client
from upload_progress.backends.store_records import (
    bare,
    decided_at,
    kind_of,
    lost,
    stamped,
    unpacked,
)
from upload_progress.backends.subscriptions import key_of
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import RecordPage

__all__ = [
    "AGAIN_SECONDS",
    "GRACE_SECONDS",
    "NEWBORN_SECONDS",
    "PORTION",
    "RedisStore",
    "SCANNED",
    "SHARDS",
]


PORTION: Final = 500
"""Records in one script: Redis does nothing else meanwhile."""
SCANNED: Final = 1000
"""Uploads that one look into a list goes through; a page may come out shorter."""
SHARDS: Final = 16
AGAIN_SECONDS: Final = 5.0
NEWBORN_SECONDS: Final = 60.0
"""The lease of a worker that has not renewed it yet."""
GRACE_SECONDS: Final = 60.0
"""How much longer than its time an upload that waits is there, for somebody to end it."""

_VERSION: Final = b"1\t"

_length: Final = Struct(">I").pack

_Found = Sequence[tuple[bytes, Sequence[bytes]]]


@define(eq=False, repr=False)
class RedisStore:
    """A ``SessionStore`` in Redis 6.2 or newer, for asyncio.

    Args:
        client: A ready client, which does not decode responses and stays open, of a server or of
            a cluster.
        retention: How long sessions are kept.
        prefix: What the names of all keys begin with.
        shards: Over how many slots owners are spread; the same for all workers. One by default,
            16 for a cluster.

    Attributes:
        spoiled: Records that were passed over, since nothing here could read them.
    """

    client: Redis | RedisCluster
    retention: Retention = field(factory=Retention, kw_only=True)
    prefix: str = field(default="upload-progress", kw_only=True)
    shards: int = field(
        default=Factory(lambda store: _shards_of(store.client), takes_self=True), kw_only=True
    )
    spoiled: int = field(default=0, init=False)
    _is_ours: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuse a client that decodes, and a prefix that would choose the slot."""
        checked_client(self.client)
        if set(self.prefix) & set("{}"):
            raise InvalidValue("prefix", "must have no braces: a cluster spreads keys by them")

    @classmethod
    def open(
        cls, url: str, *, retention: Retention | None = None, prefix: str = "upload-progress"
    ) -> Self:
        """Return one with a client of its own, which it closes.

        Args:
            url: ``redis://…``, ``rediss://…`` or ``unix://…``, as redis-py takes it.
            retention: As above.
            prefix: As above.

        Raises:
            InvalidValue: The URL is none of these.
        """
        store = cls(open_client(url), retention=retention or Retention(), prefix=prefix)
        store._is_ours = True
        return store

    async def __aenter__(self) -> Self:
        """Do nothing: a connection is made when it is first needed."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the client that was opened here; one that was given stays open."""
        if self._is_ours:
            await self.client.aclose()

    # Where things lie

    def _shard(self, owner: str) -> int:
        return crc32(owner.encode()) % self.shards

    def _by_shard(self, keys: Sequence[UploadKey]) -> dict[int, list[UploadKey]]:
        shards: dict[int, list[UploadKey]] = defaultdict(list)
        for key in keys:
            shards[self._shard(key_of(key.owner))].append(key)
        return shards

    @property
    def _open_ms(self) -> int:
        """How long keys live that nobody uses any more."""
        kept = self.retention.waiting_seconds + self.retention.ended_seconds + GRACE_SECONDS
        return round(kept * 1000)

    async def _run(self, script: str, shard: int, *args: str | bytes | float) -> Any:  # noqa: ANN401  # what the script returns
        base = f"{self.prefix}:{{{shard}}}"
        try:
            return await self.client.evalsha(_sha_of(script), 1, base, *args)
        except NoScriptError:
            return await self.client.eval(script, 1, base, *args)

    # Writing

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Keep *records*; one that was overtaken changes nothing."""
        shards: dict[int, list[bytes]] = defaultdict(list)
        for record in records:
            owner = key_of(record.owner)
            shards[self._shard(owner)].append(_row(owner, record))
        ended_ms = max(1, round(self.retention.ended_seconds * 1000))
        terms = (ended_ms, self._open_ms, self.retention.waiting_seconds, NEWBORN_SECONDS)
        for shard, rows in shards.items():
            for start in range(0, len(rows), PORTION):
                packed = b"".join(rows[start : start + PORTION])
                await self._run(scripts.SAVE, shard, packed, *terms)

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Prolong the lease of *worker*."""
        for shard in range(self.shards):
            await self._run(scripts.RENEW, shard, key_of(worker), seconds, self._open_ms)

    # Reading

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of those uploads."""
        records: list[TransferRecord] = []
        for shard, theirs in self._by_shard(keys).items():
            for start in range(0, len(theirs), PORTION):
                members = _packed(*(_member(key) for key in theirs[start : start + PORTION]))
                now, leases, found = await self._run(scripts.LOAD, shard, members)
                uploads = self._read(now, leases, found)
                records += [record for upload in uploads for record in upload]
        return records

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_since: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the uploads of *owner*, newest first; a page may be shorter than *limit*."""
        name = key_of(owner)
        now, leases, found, further = await self._run(
            scripts.LIST,
            self._shard(name),
            name,
            cursor or "",
            limit,
            "" if group is None else key_of(group),
            "" if ended_since is None else f"{ended_since:.6f}",
            SCANNED,
        )
        uploads = [tuple(upload) for upload in self._read(now, leases, found)]
        return RecordPage(tuple(uploads), further.decode() or None)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ran out, or that waited too long."""
        overdue: list[TransferRecord] = []
        for shard in range(self.shards):
            left = limit - len(overdue)
            if left > 0:
                now, leases, found = await self._run(scripts.OVERDUE, shard, left, AGAIN_SECONDS)
                for upload in self._read(now, leases, found):
                    overdue += lost(upload, time.time())
        return overdue[:limit]

    def _read(
        self, now: bytes, leases: Sequence[bytes], found: _Found
    ) -> Iterator[Sequence[TransferRecord]]:
        """Decode uploads, and stamp them with the times that only the store knows."""
        # By our clock: only how long a lease still lasts is said by that of the server.
        skew = time.time() - float(now)
        until = {
            worker.decode(): float(moment) + skew
            for worker, moment in zip(leases[::2], leases[1::2], strict=True)
        }
        for member, fields in found:
            upload_id = member.decode().partition(":")[2]
            values = dict(zip(fields[::2], fields[1::2], strict=True))
            owner = values.pop(b"", b"").decode("utf-8", "surrogatepass")
            records = [self._record(owner, upload_id, value) for value in values.values()]
            upload = newest(
                stamped(record, self.retention, until.get(key_of(record.worker or "")))
                for record in records
                if record
            )
            if upload:
                yield upload

    def _record(self, owner: str, upload_id: str, value: bytes) -> TransferRecord | None:
        head, _, packed = value.partition(b"\n")
        known = head.startswith(_VERSION)
        record = unpacked(owner, upload_id, packed) if known else None
        self.spoiled += record is None
        return record


@cache
def _sha_of(script: str) -> str:
    """Return what Redis calls *script*."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _shards_of(client: Redis | RedisCluster) -> int:
    return SHARDS if isinstance(client, RedisCluster) else 1


def _member(key: UploadKey) -> str:
    return f"{key_of(key.owner)}:{key.upload_id}"


def _packed(*strings: str | bytes) -> bytes:
    """Return many arguments as one, which the driver sends faster: each behind its length."""
    pieces: list[bytes] = []
    for each in strings:
        transfer_head = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
        pieces += (_length(len(transfer_head)), transfer_head)
    return b"".join(pieces)


def _row(owner: str, record: TransferRecord) -> bytes:
    """Return what the script takes: where it goes, and what it is."""
    worker = "" if record.worker is None else key_of(record.worker)
    group = "" if record.group is None else key_of(record.group)
    same = f"1\t{record.attempt}\t{kind_of(record)}\t{worker}\t{group}"
    head = f"{same}\t{record.sequence}\t{decided_at(record):.6f}\n"
    value = head.encode() + pack_record(bare(record))
    created = f"{record.created_at:.6f}"
    return _packed(owner, record.owner, record.upload_id, record.transfer_id, value, created)
