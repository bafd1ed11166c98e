"""A ``SessionStore`` in Redis or Valkey, for several workers on one or many machines.

Each operation is one Lua script, so it takes one round trip whatever the number of uploads. Redis
decides which version of a record is the newest, by ``(attempt, sequence)``, and whose lease has
ended, by its own clock. Every key has a time to live from the moment it is created: nothing is
left behind if all workers go away.

Keys
----
All keys begin with ``PREFIX:{SHARD}:``. A Redis Cluster puts keys with the same text in braces
into the same slot, which is what a script requires. An owner's keys are all in one shard; several
shards spread the owners over the nodes.

=====================  ==========  ==============================================================
key                    type        content
=====================  ==========  ==============================================================
``u:OWNER:UPLOAD``     hash        transfer id → record; the field ``""`` → name of the owner
``o:OWNER``            sorted set  ids of the owner's uploads, by time of creation
``e:OWNER``            sorted set  ids of the owner's ended uploads, by the time they were saved
``p:OWNER``            sorted set  ids of the owner's pending and paused uploads, likewise
``a:OWNER``            sorted set  ids of the owner's pending uploads, by expiry
``w:WORKER``           sorted set  ``OWNER:UPLOAD`` of what a worker receives; the score is the
                                   time before which the upload is not reported as lost again
``open``               sorted set  ``OWNER:UPLOAD`` of all uploads that have not ended
``due``                sorted set  ``OWNER:UPLOAD`` of pending and paused uploads, by expiry
``leases``             sorted set  workers, by the end of their lease
``renewals``           hash        the newest renewal of any worker: ``at``, ``seconds``; and
                                   ``resumed``, the first one after a pause
``k:WORKER``           string      exists while the keys of what the worker receives were extended
                                   recently
=====================  ==========  ==============================================================

OWNER and WORKER are hashes of the names, so that no name can contain the separator.

A record is a header, a newline and the packed record. Scripts read only the header: version,
attempt, state code, hashed worker, hashed group, sequence, and in which second the record changed
or ended, separated by tabs. Values with another version, or without a header, are left as they are:
a newer release has written them.
"""

import asyncio
import builtins
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from math import inf
from random import shuffle
from types import TracebackType
from typing import Final, Literal, Self, TypeVar, cast, get_args
from zlib import crc32

from attrs import Factory, define, field, frozen
from redis.asyncio import RedisCluster
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError

from upload_progress._model.fold import newest_attempt, received_by
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.backends.redis.client import (
    Client,
    is_pool_exhausted,
    name_in_database,
    open_client,
    validate_client,
)
from upload_progress.backends.redis.nodes import ScriptRunner, runners_of
from upload_progress.backends.redis.packing import pack_leases, pack_rows, pack_strings
from upload_progress.backends.store_records import (
    decode_record,
    format_cursor,
    is_open,
    overdue_records,
    parse_cursor,
    with_store_times,
)
from upload_progress.backends.subscriptions import key_of
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue, StoreBusy
from upload_progress.interfaces import RecordPage

__all__ = [
    "BATCH_SIZE",
    "EXPIRY_GRACE_SECONDS",
    "LIST_SCAN_LIMIT",
    "RETRY_SECONDS",
    "SHARDS",
    "RedisShard",
    "RedisStore",
]


BATCH_SIZE: Final = 500
"""Records in one script; while a script runs, Redis serves no other client."""
LIST_SCAN_LIMIT: Final = 1000
"""Uploads that one page of a list reads at most; with filters the page may be shorter."""
SHARDS: Final = 16
"""Default number of shards on a Redis Cluster."""
RETRY_SECONDS: Final = 5.0
"""After so long an overdue upload is reported again, if no worker has ended it."""
EXPIRY_GRACE_SECONDS: Final = 60.0
"""How much longer than its retention an open upload is kept, so that a worker can end it."""

T = TypeVar("T")

_VERSION: Final = b"1\t"
_SHARD_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)

_Operation = Literal["save", "load", "list", "list_open", "renew", "running", "overdue"]
_Uploads = Sequence[tuple[bytes, Sequence[bytes]]]
_Answer = tuple[bytes, Sequence[bytes], _Uploads]
_Page = tuple[
    bytes, Sequence[bytes], Sequence[tuple[bytes, Sequence[bytes], bytes]], Sequence[bytes]
]

_OpenPage = tuple[bytes, Sequence[bytes], _Uploads, bytes]


def _script_sources() -> dict[_Operation, str]:
    folder = files(__package__).joinpath("scripts")
    prelude = folder.joinpath("prelude.lua").read_text("utf-8")
    return {
        name: prelude + folder.joinpath(f"{name}.lua").read_text("utf-8")
        for name in get_args(_Operation)
    }


_SOURCES: Final = _script_sources()


@define(eq=False, repr=False)
class RedisStore:
    """A ``SessionStore`` in Redis 6.2 or newer, or Valkey, for asyncio.

    ``ProgressTracker.from_url("redis://…")`` makes one. With a client of the application::

        from redis.asyncio import Redis

        store = RedisStore(Redis(host="localhost"), prefix="shop")

    Args:
        client: A client of a server or of a cluster, without ``decode_responses``. It stays open.
        retention: How long records are kept.
        prefix: What the names of all keys begin with.
        shards: Over how many slots owners are spread: 1 for a server and 16 for a cluster by
            default. It has to be the same for all workers.
        reopen: Makes a client like *client*, to be closed by the store. With it, the store can be
            used in several event loops and after a fork: each of them has its own client.

    Attributes:
        unreadable: How many stored values could not be decoded and were skipped.

    Raises:
        InvalidValue: The client decodes responses, or the prefix contains a brace.
    """

    client: Client
    retention: Retention = field(factory=Retention, kw_only=True)
    prefix: str = field(default="upload-progress", kw_only=True)
    shards: int = field(
        default=Factory(lambda store: _default_shards(store.client), takes_self=True), kw_only=True
    )
    reopen: Callable[[], Client] | None = field(default=None, kw_only=True)
    unreadable: int = field(default=0, init=False)
    _runners: LoopBound[ScriptRunner] | BorrowedClient[ScriptRunner] = field(
        default=Factory(lambda store: runners_of(store.client, store.reopen), takes_self=True),
        init=False,
    )
    _scripts: Mapping[_Operation, AsyncScript] = field(
        default=Factory(lambda store: _register_scripts(store.client), takes_self=True), init=False
    )

    parts: Sequence["RedisShard"] = field(
        default=Factory(
            lambda store: [RedisShard(store, number) for number in range(store.shards)],
            takes_self=True,
        ),
        init=False,
    )

    def __attrs_post_init__(self) -> None:
        """Check the client and the prefix."""
        validate_client(self.client)
        if set(self.prefix) & set("{}"):
            raise InvalidValue("prefix", "must have no braces: they decide the slot in a cluster")

    @classmethod
    def open(
        cls, url: str, *, retention: Retention | None = None, prefix: str = "upload-progress"
    ) -> Self:
        """Return a store with a client of its own, which it closes. It connects when first used.

        Args:
            url: ``redis://…``, ``valkey://…`` or ``redis+sentinel://…``; see ``open_client``.
            retention: How long records are kept; by default as in ``Retention()``.
            prefix: What the names of all keys begin with.

        Raises:
            InvalidValue: The URL is not valid.
        """
        reopen = partial(open_client, url)
        return cls(reopen(), retention=retention or Retention(), prefix=prefix, reopen=reopen)

    async def __aenter__(self) -> Self:
        """Do nothing: the client connects when it is first used."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the client, if the store has opened it."""
        await self._runners.aclose()

    @property
    def namespace(self) -> str:
        """The prefix, followed by the number of the database unless that is 0."""
        return name_in_database(self.prefix, self.client)

    def part_of(self, owner: str) -> int:
        """Return the number of the shard that has the uploads of *owner*."""
        return self._shard(key_of(owner))

    def _shard(self, hashed_owner: str) -> int:
        return crc32(hashed_owner.encode()) % self.shards

    @property
    def _open_ms(self) -> int:
        """The time to live of an open upload after its last write, in milliseconds."""
        kept = self.retention.waiting_seconds + self.retention.ended_seconds + EXPIRY_GRACE_SECONDS
        return round(kept * 1000)

    async def _run(self, operation: _Operation, shard: int, *args: str | bytes | float) -> object:
        """Return the result of a script.

        Raises:
            StoreBusy: All connections of the client are in use.
            InvalidValue: The client is not for a cluster, and the server is a node of one.
        """
        key, runner = f"{self.prefix}:{{{shard}}}", await self._runners.get()
        try:
            return await runner.run(self._scripts[operation], key, args)
        except RedisConnectionError as error:
            if is_pool_exhausted(error):
                raise StoreBusy from None
            raise

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*; return those that are not newer than the stored ones."""
        if self.shards == 1:
            return await self._save_batches(0, records)
        shards: dict[int, list[TransferRecord]] = defaultdict(list)
        for record in records:
            shards[self._shard(key_of(record.owner))].append(record)
        saved = [self._save_batches(shard, found) for shard, found in shards.items()]
        return [record for refused in await _together(saved) for record in refused]

    async def _save_batches(
        self, shard: int, records: Sequence[TransferRecord]
    ) -> Sequence[TransferRecord]:
        refused: list[TransferRecord] = []
        for start in range(0, len(records), BATCH_SIZE):
            batch = records[start : start + BATCH_SIZE]
            numbers = await self._save(shard, batch, max_pending=0)
            refused += [batch[number - 1] for number in cast("Sequence[int]", numbers)]
        return refused

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, unless its owner has *limit* of them."""
        shard = self._shard(key_of(record.owner))
        return limit > 0 and await self._save(shard, [record], max_pending=limit) != 0

    async def _save(
        self, shard: int, records: Sequence[TransferRecord], *, max_pending: int
    ) -> object:
        """Return the numbers of those *records* that changed nothing, counted from 1.

        Or 0, if the owner of a pending one has *max_pending* of them, which 0 allows.
        """
        retention = self.retention
        ended_ms = max(1, round(retention.ended_seconds * 1000))
        times = (ended_ms, self._open_ms, retention.waiting_seconds)
        # In one argument: without a password, Redis tells a command with more than ten that its
        # protocol is wrong, instead of asking for the password.
        limits = f"{retention.ended_per_owner} {retention.waiting_per_owner} {max_pending}"
        leases = pack_leases(records, time.time())
        return await self._run("save", shard, pack_rows(records), *times, limits, leases)

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* for *seconds* from now."""
        await _together(
            [self.renew_in(shard, worker, seconds=seconds) for shard in range(self.shards)]
        )

    async def renew_in(self, shard: int, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* in one shard."""
        await self._run("renew", shard, key_of(worker), seconds, self._open_ms)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of the uploads *keys*; unknown uploads add nothing."""
        shards: dict[int, list[str]] = defaultdict(list)
        for key in keys:
            owner = key_of(key.owner)
            shards[self._shard(owner)].append(f"{owner}:{key.upload_id}")
        loaded = [self._load(shard, members) for shard, members in shards.items()]
        return [record for records in await _together(loaded) for record in records]

    async def _load(self, shard: int, members: Sequence[str]) -> Sequence[TransferRecord]:
        records: list[TransferRecord] = []
        for start in range(0, len(members), BATCH_SIZE):
            packed = pack_strings(*members[start : start + BATCH_SIZE])
            answer = cast("_Answer", await self._run("load", shard, packed))
            for upload in self._decode(*answer):
                records += upload
        return records

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return one page of the uploads of *owner*, newest first.

        A page may hold fewer than *limit* uploads although more follow.
        """
        hashed_owner = key_of(owner)
        page = await self._run(
            "list",
            self._shard(hashed_owner),
            hashed_owner,
            *_position(cursor),
            limit,
            "" if group is None else key_of(group),
            "" if ended_within_seconds is None else ended_within_seconds,
            LIST_SCAN_LIMIT,
        )
        now, leases, found, last = cast("_Page", page)
        uploads, cursors = list[tuple[TransferRecord, ...]](), list[str]()
        positions = {_upload_id(member): created_at for member, _, created_at in found}
        for upload in self._decode(now, leases, [(member, fields) for member, fields, _ in found]):
            upload_id = upload[0].upload_id
            uploads.append(tuple(upload))
            cursors.append(format_cursor(float(positions[upload_id]), upload_id))
        following = format_cursor(float(last[0]), last[1].decode()) if last else None
        return RecordPage(tuple(uploads), following, tuple(cursors))

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return one page of the open uploads of all owners, shard by shard."""
        number, _, member = (cursor or "").partition(":")
        shard = int(number) if _SHARD_NUMBER.fullmatch(number) else 0
        uploads: builtins.list[tuple[TransferRecord, ...]] = []
        while shard < self.shards:
            answer = await self._run("list_open", shard, member, limit - len(uploads))
            now, leases, found, last = cast("_OpenPage", answer)
            decoded = self._decode(now, leases, found)
            uploads += (tuple(upload) for upload in decoded if is_open(upload))
            if last:
                return RecordPage(tuple(uploads), f"{shard}:{last.decode()}")
            shard, member = shard + 1, ""
        return RecordPage(tuple(uploads))

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives."""
        found = await _together(
            [self.running_in(shard, worker, limit=limit) for shard in range(self.shards)]
        )
        return [record for records in found for record in records][:limit]

    async def running_in(self, shard: int, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of one shard of transfers that *worker* receives."""
        answer = await self._run("running", shard, key_of(worker), limit)
        return [
            record
            for upload in self._decode(*cast("_Answer", answer))
            for record in received_by(worker, upload)
        ][:limit]

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* open records whose lease ended or that have expired."""
        # What a shard returns is claimed: it is not asked for more than its share.
        share, shards = max(1, limit // self.shards), list(range(self.shards))
        shuffle(shards)
        found = await _together([self.overdue_in(shard, limit=share) for shard in shards[:limit]])
        return [record for records in found for record in records][:limit]

    async def overdue_in(self, shard: int, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* overdue records of one shard."""
        answer = await self._run("overdue", shard, limit, RETRY_SECONDS)
        return [
            record
            for upload in self._decode(*cast("_Answer", answer))
            for record in overdue_records(upload, time.time())
        ][:limit]

    def _decode(
        self, now: bytes, leases: Sequence[bytes], uploads: _Uploads
    ) -> Iterator[Sequence[TransferRecord]]:
        """Yield the records of each upload, with store times on the clock of this machine.

        Args:
            now: Time of the server, in seconds since the epoch.
            leases: Hashed worker names, each followed by the end of the lease.
            uploads: Member and hash fields of each upload.
        """
        # What counts is how long a lease still runs: the clocks of the machines may differ.
        skew_seconds = time.time() - float(now)
        lease_until = {
            worker.decode(): float(until) + skew_seconds
            for worker, until in zip(leases[::2], leases[1::2], strict=True)
        }
        for member, fields in uploads:
            upload_id = _upload_id(member)
            values = dict(zip(fields[::2], fields[1::2], strict=True))
            owner = values.pop(b"", b"").decode("utf-8", "surrogatepass")
            records = [self._decode_record(owner, upload_id, value) for value in values.values()]
            upload = newest_attempt(
                with_store_times(
                    record, self.retention, lease_until.get(key_of(record.worker or ""))
                )
                for record in records
                if record
            )
            if upload:
                yield upload

    def _decode_record(self, owner: str, upload_id: str, value: bytes) -> TransferRecord | None:
        header, _, packed = value.partition(b"\n")
        is_known = header.startswith(_VERSION)
        record = decode_record(owner, upload_id, packed) if is_known else None
        self.unreadable += record is None
        return record


@frozen(eq=False, repr=False)
class RedisShard:
    """The part of a ``RedisStore`` that is in one shard, for owners whose uploads are there."""

    _store: RedisStore
    _number: int

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*; return those that are not newer than the stored ones."""
        return await self._store.save(records)

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, unless its owner has *limit* of them."""
        return await self._store.announce(record, limit=limit)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of the uploads *keys*; unknown uploads add nothing."""
        return await self._store.load(*keys)

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
        return await self._store.list(
            owner,
            group=group,
            ended_within_seconds=ended_within_seconds,
            cursor=cursor,
            limit=limit,
        )

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* in this shard for *seconds* from now."""
        await self._store.renew_in(self._number, worker, seconds=seconds)

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives."""
        return await self._store.running_in(self._number, worker, limit=limit)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* open records whose lease ended or that have expired."""
        return await self._store.overdue_in(self._number, limit=limit)


async def _together(calls: Sequence[Awaitable[T]]) -> Sequence[T]:
    """Return the results of *calls* to several shards; raise the first error when all are done.

    So a shard that is not available delays no other one, and stops only its part.
    """
    if len(calls) == 1:
        return [await calls[0]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("Sequence[T]", results)


def _position(cursor: str | None) -> tuple[str, str]:
    """Return the time of creation and the id in *cursor* for ``list.lua``; empty without one."""
    created_at, upload_id = parse_cursor(cursor)
    return ("", "") if created_at == inf else (repr(created_at), upload_id)


def _upload_id(member: bytes) -> str:
    return member.decode().partition(":")[2]


def _default_shards(client: Client) -> int:
    return SHARDS if isinstance(client, RedisCluster) else 1


def _register_scripts(client: Client) -> dict[_Operation, AsyncScript]:
    """Return the scripts, which are called by their hash, and loaded where Redis lacks them."""
    return {name: client.register_script(source) for name, source in _SOURCES.items()}
