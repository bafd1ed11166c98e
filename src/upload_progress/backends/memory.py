"""What the memory store keeps of one upload, and where that lies."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import dropwhile, islice
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final, is_waiting
from upload_progress._runtime.yielding import YIELD_EVERY, yielding
from upload_progress.backends.subscriptions import (
    ALL_OWNERS,
    MAX_WAITING,
    Address,
    EventQueue,
    Inbox,
    SubscriptionTable,
    checked_letter,
)
from upload_progress.config import Retention
from upload_progress.interfaces import Clock, RecordPage, SystemClock

__all__ = [
    "AGAIN_SECONDS",
    "Bucket",
    "COARSE_SECONDS",
    "Entry",
    "FULL",
    "HORIZON_SECONDS",
    "MAX_WAITING",
    "MemoryPublisher",
    "MemoryStore",
    "PORTION",
    "advances",
]


@define(eq=False, repr=False, weakref_slot=False)
class Entry:
    """One upload: its packed records, and where it lies until it is looked at again.

    There may be a hundred thousand of these, most of them idle: what can be shared is shared.
    """

    owner: str
    upload_id: str
    packed: bytes | tuple[bytes, ...] = b""
    place: "Bucket | str | None" = None
    is_ended: bool = False

    @property
    def records(self) -> list[TransferRecord]:
        """What is kept of each transfer."""
        packed = (self.packed,) if isinstance(self.packed, bytes) else self.packed
        return [unpack_record(self.owner, self.upload_id, each) for each in packed]


class Bucket(set[Entry]):
    """Those whose time is over by the second *number*."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number: int = number

    def __repr__(self) -> str:
        """Say which, and not what is in it: that may be ten thousand uploads."""
        return f"<Bucket {self.number}>"


def advances(record: TransferRecord, known: Sequence[TransferRecord]) -> bool:
    """Tell whether *record* is newer than what is known, and revives nothing that ended."""
    if any(other.attempt > record.attempt for other in known):
        return False
    return not any(
        other.transfer_id == record.transfer_id
        and other.attempt == record.attempt
        and (is_final(other.state) or other.sequence >= record.sequence)
        for other in known
    )


# FROM memory: Sessions in this process: nothing to install, gone with the process.
#
# Records are kept packed: a hundred thousand sessions are tens of megabytes, and nothing that
# is handed out can be changed behind the store's back. What expires lies in buckets of time,
# and only buckets whose time has come are touched, a portion at once.
#

COARSE_SECONDS: Final = 60
HORIZON_SECONDS: Final = 3600
PORTION: Final = YIELD_EVERY
AGAIN_SECONDS: Final = 30
FULL: Final = 1200
"""Of a bucket: CPython's set of so many has 2048 places, of a few more 8192."""


@define(eq=False, repr=False)
class MemoryStore:
    """A ``SessionStore`` for one process.

    Args:
        clock: Whose time decides what has expired.
        retention: How long sessions are kept.
        max_uploads: Beyond this the session that expires next makes room, so that no flood
            of uploads fills the memory.
    """

    clock: Clock = field(factory=SystemClock)
    retention: Retention = field(factory=Retention)
    max_uploads: int = 200_000
    _owners: dict[str, dict[str, Entry]] = field(factory=dict, init=False)
    _buckets: dict[int, Bucket] = field(factory=dict, init=False)
    _running: dict[str, dict[Entry, None]] = field(factory=dict, init=False)
    _leases: dict[str, float] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def __repr__(self) -> str:
        """Say how much there is, and nothing of what it is: asyncio shows what tasks return."""
        return f"<MemoryStore of {self._size} uploads>"

    def __len__(self) -> int:
        """How many uploads are kept."""
        return self._size

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Keep *records*; one that was overtaken changes nothing."""
        async for record in yielding(records):
            self._save(record)

    def _save(self, record: TransferRecord) -> None:
        entry = self._owners.get(record.owner, {}).get(record.upload_id)
        known = entry.records if entry is not None else []
        if not advances(record, known):
            return
        if entry is None:
            entry = self._add(record)
        kept = [
            other
            for other in known
            if other.transfer_id != record.transfer_id and other.attempt == record.attempt
        ]
        current = [*kept, evolve(record, lease_until=None, expires_at=None)]
        packed = tuple(pack_record(each) for each in current)
        entry.packed = packed[0] if len(packed) == 1 else packed
        self._place(entry, current)

    def _add(self, record: TransferRecord) -> Entry:
        if self._size >= self.max_uploads:
            self._make_room()
        uploads = self._owners.setdefault(record.owner, {})
        # The name of an owner comes as another string with each request; one of them is enough.
        owner = next((other.owner for other in uploads.values()), record.owner)
        entry = uploads[record.upload_id] = Entry(owner, record.upload_id)
        self._size += 1
        return entry

    def _make_room(self) -> None:
        """Drop the session that would expire next; a running one only if there is no other."""
        if self._buckets:
            return self._drop(next(iter(self._buckets[min(self._buckets)])))
        running = next(iter(self._running.values()))
        return self._drop(next(iter(running)))

    def _place(self, entry: Entry, records: Sequence[TransferRecord]) -> None:
        """Put *entry* where it will be found when its time is over."""
        self._displace(entry)
        decided = deciding(newest(records))
        due = self._due_at(decided)
        if due is None:
            entry.place = decided.worker or ""
            self._running.setdefault(entry.place, {})[entry] = None
            return
        entry.is_ended = is_final(decided.state)
        self._put(entry, self._bucket(due))

    def _bucket(self, due: float) -> int:
        """Return the second in which *due* is over; a full minute, where that is far away."""
        if due - self.clock.time() < HORIZON_SECONDS:
            return int(due) + 1
        return (int(due) // COARSE_SECONDS + 1) * COARSE_SECONDS

    def _put(self, entry: Entry, bucket: int) -> None:
        # A set that grows is copied: where a second is full, the next one will do.
        while len(self._buckets.get(bucket, ())) >= FULL:
            bucket += 1
        entry.place = self._buckets.get(bucket)
        if entry.place is None:
            entry.place = self._buckets[bucket] = Bucket(bucket)
        entry.place.add(entry)

    def _displace(self, entry: Entry) -> None:
        """Take *entry* out of where it was put; nothing of it stays behind."""
        place, entry.place, entry.is_ended = entry.place, None, False
        if isinstance(place, str):
            running = self._running[place]
            del running[entry]
            if not running:
                del self._running[place]
        elif place is not None:
            place.remove(entry)
            if not place:
                del self._buckets[place.number]

    def _due_at(self, record: TransferRecord) -> float | None:
        if is_final(record.state):
            return (record.finished_at or record.updated_at) + self.retention.ended_seconds
        if is_waiting(record.state):
            return record.updated_at + self.retention.waiting_seconds
        return None

    def _drop(self, entry: Entry) -> None:
        self._displace(entry)
        uploads = self._owners[entry.owner]
        del uploads[entry.upload_id]
        if not uploads:
            del self._owners[entry.owner]
        self._size -= 1

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of those uploads."""
        records: list[TransferRecord] = []
        async for key in yielding(keys):
            entry = self._owners.get(key.owner, {}).get(key.upload_id)
            if entry is not None:
                records += self._stamped(entry)
        return records

    def _stamped(self, entry: Entry) -> Iterator[TransferRecord]:
        """Return an entry's records, with the times that only the store knows."""
        for record in entry.records:
            if is_final(record.state):
                yield record
            elif is_waiting(record.state):
                yield evolve(record, expires_at=self._due_at(record))
            else:
                yield evolve(record, lease_until=self._leases.get(record.worker or ""))

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
        uploads = self._owners.get(owner, {})
        page: list[tuple[TransferRecord, ...]] = []
        for upload_id in self._newest_first(owner, cursor):
            entry = uploads[upload_id]
            if ended_since is not None and self._ended_before(entry, ended_since):
                continue
            records = tuple(self._stamped(entry))
            if group is not None and all(record.group != group for record in records):
                continue
            page.append(records)
            if len(page) == limit:
                return RecordPage(tuple(page), upload_id)
        return RecordPage(tuple(page))

    def _newest_first(self, owner: str, cursor: str | None) -> Iterator[str]:
        """Yield the uploads of *owner* that come behind *cursor*."""
        uploads = self._owners.get(owner, {})
        ids: Iterator[str] = reversed(uploads)
        if cursor in uploads:
            ids = islice(dropwhile(lambda upload_id: upload_id != cursor, ids), 1, None)
        return ids

    def _ended_before(self, entry: Entry, moment: float) -> bool:
        """Tell whether it ended before *moment*; the bucket knows, unless it is close to that."""
        if not entry.is_ended or not isinstance(entry.place, Bucket):
            return False
        latest = entry.place.number - self.retention.ended_seconds
        if not latest - 2 * COARSE_SECONDS <= moment <= latest:
            return latest < moment
        decided = deciding(newest(entry.records))
        return (decided.finished_at or decided.updated_at) < moment

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Prolong the lease of *worker*."""
        self._leases[worker] = self.clock.time() + seconds

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ran out, or that waited too long; drop the ended."""
        now = self.clock.time()
        found = list(islice(self._lost(now), limit))
        while self._buckets and len(found) < limit:
            bucket = min(self._buckets)
            if bucket > now:
                break
            found += self._sweep(bucket, min(PORTION, limit - len(found)))
            await checkpoint()
        return found

    def _lost(self, now: float) -> Iterator[TransferRecord]:
        for worker in [worker for worker, until in self._leases.items() if until <= now]:
            if worker not in self._running:
                del self._leases[worker]
            for entry in self._running.get(worker, ()):
                yield deciding(newest(self._stamped(entry)))

    def _sweep(self, bucket: int, portion: int) -> Sequence[TransferRecord]:
        """Take up to *portion* entries out of *bucket*: drop the ended, return the expired."""
        expired = []
        entries = self._buckets[bucket]
        for _ in range(min(portion, len(entries))):
            # To look at the first of a set that shrinks takes longer each time; ``pop`` does not.
            entry = entries.pop()
            entries.add(entry)
            if entry.is_ended:
                self._drop(entry)
            else:
                expired.append(deciding(newest(self._stamped(entry))))
                # Whoever asked may fail to end it: then it comes again.
                self._displace(entry)
                self._put(entry, int(self.clock.time()) + AGAIN_SECONDS)
        return expired


# FROM publishers.memory: Events inside this process: a publisher, a feed and a post in one.


@define(eq=False, repr=False)
class MemoryPublisher:
    """An ``EventPublisher``, ``EventSubscriber`` and ``Post`` for consumers in the same process."""

    _board: SubscriptionTable = field(factory=SubscriptionTable, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Hand *events* to whoever listens."""
        for event in events:
            self._board.deliver(event, Address.of_owner(event.owner), ALL_OWNERS)

    @asynccontextmanager
    async def listen(self, owner: str | None = None) -> AsyncIterator[EventQueue]:
        """Follow the events of *owner*, or of everybody, from now on."""
        with self._board.listening(owner) as listener:
            yield listener

    async def send(self, worker: str, letter: bytes) -> None:
        """Send *letter* to the box of *worker*.

        Raises:
            InvalidValue: It is larger than a letter may be.
        """
        self._board.bring_letter(checked_letter(letter), Address.of_worker(worker))

    @asynccontextmanager
    async def letters(self, worker: str) -> AsyncIterator[Inbox]:
        """Empty the box of *worker*, from now on."""
        with self._board.emptying(worker) as box:
            yield box
