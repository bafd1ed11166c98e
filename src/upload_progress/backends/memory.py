"""The store and the publisher for one process: nothing to install, and lost with the process.

The store keeps records packed: a hundred thousand uploads take tens of megabytes, and a caller
cannot change what is stored. Uploads that expire lie in buckets by time, which is monotonic: a step
of the wall clock expires nothing. Only buckets whose time has come are visited, a bounded number of
uploads at once.
"""

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from heapq import nsmallest
from itertools import islice
from math import inf
from struct import Struct
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.fold import deciding, newest, received_by
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadState,
    without_store_times,
)
from upload_progress._model.state import FINAL_STATES, is_waiting
from upload_progress._runtime.worker import seconds_to_deadline
from upload_progress._runtime.yielding import YIELD_EVERY, yielding
from upload_progress.backends.lease_table import LeaseTable
from upload_progress.backends.store_records import (
    format_cursor,
    format_open_cursor,
    parse_cursor,
    parse_open_cursor,
    supersedes,
    with_store_times,
)
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    Channel,
    EventQueue,
    Inbox,
    SubscriptionTable,
    check_message_size,
)
from upload_progress.config import Retention
from upload_progress.interfaces import Clock, RecordPage, SystemClock

__all__ = [
    "BUCKET_CAPACITY",
    "COARSE_BUCKET_SECONDS",
    "FINE_BUCKET_HORIZON_SECONDS",
    "RETRY_SECONDS",
    "SWEEP_BATCH",
    "Bucket",
    "Entry",
    "MemoryPublisher",
    "MemoryStore",
    "OwnerQueues",
]

COARSE_BUCKET_SECONDS: Final = 60
FINE_BUCKET_HORIZON_SECONDS: Final = 3600
"""What expires later than this is put into buckets of a minute instead of a second."""
SWEEP_BATCH: Final = YIELD_EVERY
"""Uploads taken out of a bucket before other tasks run."""
RETRY_SECONDS: Final = 30
"""After so long an expired upload is reported again, if no worker has ended it."""
BUCKET_CAPACITY: Final = 1200
"""A CPython set of so many members has 2048 slots; with a few more members it has 8192."""

_TIME: Final = Struct("=d")


def _packed(record: TransferRecord) -> bytes:
    return _TIME.pack(record.created_at) + pack_record(record)


@define(eq=False, repr=False, weakref_slot=False)
class Entry:
    """One upload in memory. There may be 100,000 of them, so whatever can be shared is shared.

    Attributes:
        owner: Owner of the upload.
        upload_id: Id of the upload.
        packed: The packed record, or several of them, each after the time when it was created.
        location: Where the entry is indexed: the bucket in which it expires, or the name of the
            worker that receives it.
        status: While it is in a bucket: its state if it waits, or when its end was saved, in
            monotonic seconds.
    """

    owner: str
    upload_id: str
    packed: bytes | tuple[bytes, ...] = b""
    location: "Bucket | str | None" = None
    status: UploadState | float | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the upload has ended, so that it is dropped with its bucket."""
        return isinstance(self.status, float)

    def has_ended_before(self, moment: float) -> bool:
        """Return whether it ended before that moment, in monotonic seconds."""
        return isinstance(self.status, float) and self.status < moment

    @property
    def created_at(self) -> float:
        """When the first of its records was created, in seconds since the epoch."""
        created_at: float = min(_TIME.unpack_from(each)[0] for each in self._parts)
        return created_at

    @property
    def records(self) -> list[TransferRecord]:
        """The stored records, without store times."""
        return [
            unpack_record(self.owner, self.upload_id, each[_TIME.size :]) for each in self._parts
        ]

    def store(self, records: Sequence[TransferRecord]) -> None:
        """Replace its records."""
        if len(records) == 1:
            self.packed = _packed(records[0])
        else:
            self.packed = tuple(map(_packed, records))

    def has_packed(self, record: bytes) -> bool:
        """Return whether it has one record alone, which is packed as *record*."""
        return isinstance(self.packed, bytes) and self.packed[_TIME.size :] == record

    @property
    def _parts(self) -> tuple[bytes, ...]:
        return (self.packed,) if isinstance(self.packed, bytes) else self.packed


class Bucket(set[Entry]):
    """The entries that expire before the second *number* of the monotonic clock."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number: int = number

    def __repr__(self) -> str:
        """Return the number without the members: there may be a thousand of them."""
        return f"<Bucket {self.number}>"


def _expires_before(entry: Entry) -> int:
    return entry.location.number if isinstance(entry.location, Bucket) else 0


@define(eq=False, repr=False)
class OwnerQueues:
    """The ended and the waiting uploads of an owner who has many, each in order of time.

    An owner with few uploads has no queues, so that they cost nothing.
    """

    ended: OrderedDict[Entry, None] = field(factory=OrderedDict, init=False)
    waiting: OrderedDict[Entry, None] = field(factory=OrderedDict, init=False)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "OwnerQueues":
        """Return the queues of *entries*, in the order in which they expire."""
        queues = cls()
        for entry in sorted(entries, key=_expires_before):
            queues.add(entry)
        return queues

    def add(self, entry: Entry) -> None:
        """Put *entry* at the end of its queue; one that is received is in none."""
        if isinstance(entry.location, Bucket):
            (self.ended if entry.is_ended else self.waiting)[entry] = None

    def remove(self, entry: Entry) -> None:
        """Remove *entry*, if it is in a queue."""
        self.ended.pop(entry, None)
        self.waiting.pop(entry, None)


@define(eq=False, repr=False)
class MemoryStore:
    """A ``SessionStore`` in the memory of this process.

    It is what a tracker uses by default::

        tracker = ProgressTracker(store=MemoryStore(retention=Retention(ended_seconds=60)))

    Args:
        clock: Its monotonic time decides what has expired.
        retention: How long records are kept.
        max_uploads: Maximum number of uploads. A new one beyond it replaces the upload of the
            same owner that is oldest, or else the upload that expires next.
    """

    clock: Clock = field(factory=SystemClock)
    retention: Retention = field(factory=Retention)
    max_uploads: int = 200_000
    _owners: dict[str, dict[str, Entry]] = field(factory=dict, init=False)
    _buckets: dict[int, Bucket] = field(factory=dict, init=False)
    _overflow: dict[int, int] = field(factory=dict, init=False)
    _running: dict[str, dict[Entry, None]] = field(factory=dict, init=False)
    _leases: LeaseTable = field(factory=LeaseTable, init=False)
    _queues: dict[str, OwnerQueues] = field(factory=dict, init=False)
    _pending: Counter[str] = field(factory=Counter, init=False)
    _size: int = field(default=0, init=False)

    def __repr__(self) -> str:
        """Return the number of uploads and no names: asyncio logs what tasks return."""
        return f"<MemoryStore of {self._size} uploads>"

    def __len__(self) -> int:
        """Return the number of uploads."""
        return self._size

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*; return those that are not newer than the stored ones."""
        return [record async for record in yielding(records) if not self._save(record)]

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, unless its owner has *limit* of them."""
        if self.count_pending(record.owner) >= limit:
            return False
        self._save(record)
        return True

    def count_pending(self, owner: str) -> int:
        """Return how many uploads of *owner* are pending."""
        return self._pending[owner]

    def _save(self, record: TransferRecord, *, age_seconds: float = 0.0) -> bool:
        """Save *record*, if it is newer than the stored one; return whether it is.

        Args:
            record: A version of a record.
            age_seconds: How long ago it was saved.
        """
        entry, current = self._owners.get(record.owner, {}).get(record.upload_id), []
        if entry is None:
            entry = self._add(record)
        else:
            known = entry.records
            if not supersedes(record, known):
                return False
            current = [
                other
                for other in known
                if other.transfer_id != record.transfer_id and other.attempt == record.attempt
            ]
        current.append(without_store_times(record))
        entry.store(current)
        self._index(entry, current, age_seconds)
        return True

    def _add(self, record: TransferRecord) -> Entry:
        if self._size >= self.max_uploads:
            self._make_room(record.owner)
        uploads = self._owners.setdefault(record.owner, {})
        # Each request brings the owner's name as a new string; all entries share the first one.
        owner = next(iter(uploads.values())).owner if uploads else record.owner
        entry = uploads[record.upload_id] = Entry(owner, record.upload_id)
        self._size += 1
        return entry

    def _make_room(self, owner: str) -> None:
        """Drop an upload of *owner*, else the one that expires next, else a running one."""
        own = self._owners.get(owner, {}).values()
        oldest = next((each for each in own if isinstance(each.location, Bucket)), None)
        if oldest is not None:
            return self._drop(oldest)
        if self._buckets:
            return self._drop(next(iter(self._buckets[min(self._buckets)])))
        running = next(iter(self._running.values()))
        return self._drop(next(iter(running)))

    def _index(self, entry: Entry, records: Sequence[TransferRecord], age_seconds: float) -> None:
        """Put *entry* into the bucket in which it expires, or under its worker."""
        self._unindex(entry)
        decided = records[0] if len(records) == 1 else deciding(newest(records))
        kept_seconds = self._kept_seconds(decided)
        if kept_seconds is None:
            entry.location = decided.worker or ""
            self._running.setdefault(entry.location, {})[entry] = None
            self._give_first_lease(entry.location)
            return
        entry.status = decided.state
        if decided.state in FINAL_STATES:
            entry.status = self.clock.monotonic() - age_seconds
        elif decided.state is UploadState.PENDING:
            self._pending[entry.owner] += 1
        self._put(entry, self._bucket_number(kept_seconds - age_seconds))
        self._enforce_owner_limits(entry)

    def _give_first_lease(self, worker: str) -> None:
        """Give *worker* a lease if it is a deadline: no process renews it."""
        seconds = seconds_to_deadline(worker, self.clock.time())
        if seconds is not None:
            self._leases.add(worker, seconds=seconds, now=self.clock.monotonic())

    def _enforce_owner_limits(self, entry: Entry) -> None:
        """Queue *entry*; of too many uploads of its owner, drop or expire the oldest."""
        queues = self._queues.get(entry.owner)
        if queues is None:
            uploads = self._owners[entry.owner]
            if len(uploads) <= self._max_unqueued:
                return
            queues = self._queues[entry.owner] = OwnerQueues.of(uploads.values())
        queues.add(entry)
        while len(queues.ended) > self.retention.ended_per_owner:
            self._drop_excess(next(iter(queues.ended)))
        while len(queues.waiting) > self.retention.waiting_per_owner:
            oldest = next(iter(queues.waiting))
            self._unindex(oldest)
            self._put(oldest, int(self.clock.monotonic()))

    @property
    def _max_unqueued(self) -> int:
        """With so many uploads, an owner cannot exceed a limit."""
        return min(self.retention.ended_per_owner, self.retention.waiting_per_owner)

    def _bucket_number(self, left_seconds: float) -> int:
        """Return the end of the second in *left_seconds*, or of its minute if that is far away."""
        expires_at = self.clock.monotonic() + left_seconds
        if left_seconds < FINE_BUCKET_HORIZON_SECONDS:
            return int(expires_at) + 1
        return (int(expires_at) // COARSE_BUCKET_SECONDS + 1) * COARSE_BUCKET_SECONDS

    def _put(self, entry: Entry, number: int) -> None:
        number = self._number_with_room(number)
        entry.location = self._buckets.get(number)
        if entry.location is None:
            entry.location = self._buckets[number] = Bucket(number)
        entry.location.add(entry)

    def _number_with_room(self, number: int) -> int:
        """Return the first bucket from *number* on that is not full.

        A set that grows is copied, so a full bucket overflows into that of the next second. What
        follows full buckets is kept, so that many entries of one second are not searched through
        again for each of them.
        """
        first = number
        while len(self._buckets.get(number, ())) >= BUCKET_CAPACITY:
            number = self._overflow.get(number, number + 1)
        if number != first:
            self._overflow[first] = number
        return number

    def _unindex(self, entry: Entry) -> None:
        """Remove *entry* from its bucket or worker, and that as well if it is empty then."""
        location, entry.location = entry.location, None
        status, entry.status = entry.status, None
        if isinstance(location, str):
            running = self._running[location]
            del running[entry]
            if not running:
                del self._running[location]
        elif location is not None:
            location.remove(entry)
            self._overflow.pop(location.number, None)
            if not location:
                del self._buckets[location.number]
        if (queues := self._queues.get(entry.owner)) is not None:
            queues.remove(entry)
        if status is UploadState.PENDING:
            self._pending[entry.owner] -= 1
            if not self._pending[entry.owner]:
                del self._pending[entry.owner]

    def _kept_seconds(self, record: TransferRecord) -> float | None:
        """Return how long *record* is kept from when it was saved; None while bytes arrive."""
        if record.state in FINAL_STATES:
            return self.retention.ended_seconds
        return self.retention.waiting_seconds if is_waiting(record.state) else None

    def _drop(self, entry: Entry) -> None:
        self._unindex(entry)
        uploads = self._owners[entry.owner]
        del uploads[entry.upload_id]
        if not uploads:
            del self._owners[entry.owner]
        if len(uploads) <= self._max_unqueued // 2:
            self._queues.pop(entry.owner, None)
        self._size -= 1

    def _drop_excess(self, entry: Entry) -> None:
        """Drop an ended upload of which its owner has too many."""
        self._drop(entry)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of the uploads *keys*; unknown uploads add nothing."""
        records: list[TransferRecord] = []
        async for key in yielding(keys):
            entry = self._owners.get(key.owner, {}).get(key.upload_id)
            if entry is not None:
                records += self._with_store_times(entry)
        return records

    def _with_store_times(self, entry: Entry) -> Iterator[TransferRecord]:
        for record in entry.records:
            yield with_store_times(record, self.retention, self._lease_until(record.worker))

    def _lease_until(self, worker: str | None) -> float | None:
        """Return when the lease of *worker* runs out, in seconds since the epoch."""
        now = self.clock.monotonic()
        until = self._leases.until(worker, now)
        return None if until is None else self.clock.time() + until - now

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
        uploads = self._owners.get(owner, {})
        since = -inf
        if ended_within_seconds is not None:
            since = self.clock.monotonic() - ended_within_seconds
        page: dict[str, tuple[TransferRecord, ...]] = {}
        # Other tasks may change the uploads meanwhile.
        for number, upload_id in enumerate(self._newest_first(owner, cursor), start=1):
            if number % YIELD_EVERY == 0:
                await checkpoint()
            entry = uploads.get(upload_id)
            if entry is None:
                continue
            if entry.has_ended_before(since):
                continue
            records = tuple(self._with_store_times(entry))
            if group is not None and all(record.group != group for record in records):
                continue
            page[format_cursor(entry.created_at, upload_id)] = records
            if len(page) == limit:
                cursors = tuple(page)
                return RecordPage(tuple(page.values()), cursors[-1], cursors)
        return RecordPage(tuple(page.values()), None, tuple(page))

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return one page of the open uploads of all owners, by owner and id."""
        after = parse_open_cursor(cursor)
        keys = (
            (owner, upload_id)
            for owner, uploads in self._owners.items()
            if owner >= after[0]
            for upload_id, entry in uploads.items()
            if not entry.is_ended
        )
        chosen = nsmallest(limit + 1, (key for key in keys if key > after))
        entries = [self._owners[owner][upload_id] for owner, upload_id in chosen[:limit]]
        uploads = tuple(tuple(self._with_store_times(entry)) for entry in entries)
        has_more = len(chosen) > limit
        return RecordPage(uploads, format_open_cursor(*chosen[limit - 1]) if has_more else None)

    def _newest_first(self, owner: str, cursor: str | None) -> Iterator[str]:
        """Return the ids of the uploads of *owner* after *cursor*."""
        # They are nearly sorted, which takes little more time than to copy them.
        order = sorted(
            (each.created_at, each.upload_id) for each in self._owners.get(owner, {}).values()
        )
        end = bisect_left(order, parse_cursor(cursor))
        return (upload_id for _, upload_id in islice(reversed(order), len(order) - end, None))

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* for *seconds* from now."""
        self._leases.renew(worker, seconds=seconds, now=self.clock.monotonic())

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives."""
        entries = islice(self._running.get(worker, ()), limit)
        uploads = [list(self._with_store_times(entry)) for entry in entries]
        return [record for upload in uploads for record in received_by(worker, upload)]

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ended or that have expired; drop old ended uploads."""
        now = self.clock.monotonic()
        found = list(islice(self._lost(), limit))
        while self._buckets and len(found) < limit:
            number = min(self._buckets)
            if number > now:
                break
            found += self._sweep(number, min(SWEEP_BATCH, limit - len(found)))
            await checkpoint()
        return found

    def _lost(self) -> Iterator[TransferRecord]:
        for worker in self._leases.overdue(self.clock.monotonic()):
            if worker not in self._running:
                self._leases.remove(worker)
            for entry in self._running.get(worker, ()):
                yield deciding(newest(self._with_store_times(entry)))

    def _sweep(self, number: int, count: int) -> Sequence[TransferRecord]:
        """Take up to *count* entries out of a bucket: drop the ended, return the expired."""
        expired = []
        entries = self._buckets[number]
        for _ in range(min(count, len(entries))):
            # Iterating to the first member of a shrinking set takes longer each time; pop() does
            # not.
            entry = entries.pop()
            entries.add(entry)
            if entry.is_ended:
                self._drop(entry)
            else:
                record = deciding(newest(self._with_store_times(entry)))
                # It may expire early, because its owner has too many.
                now = self.clock.time()
                expired.append(evolve(record, expires_at=min(record.expires_at or now, now)))
                # The caller may fail to end it: then it is reported again.
                self._unindex(entry)
                self._put(entry, int(self.clock.monotonic()) + RETRY_SECONDS)
        return expired


@define(eq=False, repr=False)
class MemoryPublisher:
    """An ``EventPublisher``, ``EventSubscriber`` and ``MessageTransport`` in this process.

    For trackers in one process that share a store, and to consume events in the process itself::

        publisher = MemoryPublisher()
        async with publisher.events() as stream:
            await stream.subscribe("alice")
            async for event in stream:
                ...
    """

    _table: SubscriptionTable = field(factory=SubscriptionTable, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Deliver *events* to the streams that are subscribed to their owners."""
        for event in events:
            owner = Channel.of_owner(event.owner)
            self._table.deliver_event(event, owner, ALL_OWNERS_CHANNEL)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventQueue]:
        """Return a new stream of events, which is subscribed to no owner yet."""
        with closing(EventQueue(self._table)) as stream:
            yield stream

    async def send(self, worker: str, message: bytes) -> None:
        """Send *message* to the inbox of *worker*.

        Raises:
            InvalidValue: It is larger than 4 KiB.
        """
        channel = Channel.of_worker(worker)
        self._table.deliver_message(check_message_size(message), channel)

    @asynccontextmanager
    async def inbox(self, worker: str) -> AsyncIterator[Inbox]:
        """Receive the messages to *worker*, in order, while the block runs."""
        with self._table.inbox(worker) as inbox:
            yield inbox
