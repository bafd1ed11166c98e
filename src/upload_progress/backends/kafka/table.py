"""What the topic says, in memory: a ``MemoryStore`` that can be told to forget.

The topic brings uploads in any order, so that the list is kept in order here. And what was dropped
because its time is over is noted: it has to be erased from the topic as well.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord
from upload_progress.backends.memory import Entry, MemoryStore

__all__ = [
    "GRACE_SECONDS",
    "RecordTable",
]

GRACE_SECONDS: Final = 15.0
"""How long a worker counts as alive from whom there are records, and no lease yet."""


@define(eq=False, repr=False)
class RecordTable(MemoryStore):
    """The records that the topic holds, as far as it was read.

    Attributes:
        is_whole: Whether all was read that was there at the beginning. What is dropped before
            that may be half an upload, and is not noted.
        over: The records that were dropped since this was last emptied.
    """

    is_whole: bool = field(default=False, init=False)
    over: list[tuple[str, str, str]] = field(factory=list, init=False)
    _created: dict[str, dict[str, float]] = field(factory=dict, init=False)
    _order: dict[str, list[tuple[float, str]]] = field(factory=dict, init=False)

    def take(self, record: TransferRecord) -> None:
        """Keep *record*; one that was overtaken changes nothing."""
        self._save(record)

    def find(self, owner: str, upload_id: str, transfer_id: str) -> TransferRecord | None:
        """Return one record, as it was saved."""
        return next(
            (each for each in self.records(owner, upload_id) if each.transfer_id == transfer_id),
            None,
        )

    def records(self, owner: str, upload_id: str) -> Sequence[TransferRecord]:
        """Return all records of an upload, as they were saved."""
        entry = self._owners.get(owner, {}).get(upload_id)
        return entry.records if entry is not None else []

    def forget(self, owner: str, upload_id: str, transfer_id: str) -> None:
        """Drop one record, if it is there."""
        entry = self._owners.get(owner, {}).get(upload_id)
        known = self.records(owner, upload_id)
        left = [each for each in known if each.transfer_id != transfer_id]
        if entry is None or len(left) == len(known):
            return
        self._remove(entry)
        for record in left:
            self._save(record)

    def prolong(self, worker: str, seconds: float) -> None:
        """Let *worker* be alive for that long."""
        self._leases[worker] = self.clock.time() + seconds

    def is_leased(self, worker: str) -> bool:
        """Tell whether *worker* is known: its lease runs, or it has left something behind."""
        return worker in self._leases

    def is_alive(self, worker: str) -> bool:
        """Tell whether the lease of *worker* runs."""
        return self._leases.get(worker, 0.0) > self.clock.time()

    def _index(self, entry: Entry, records: Sequence[TransferRecord]) -> None:
        super()._index(entry, records)
        if isinstance(entry.location, str):
            self._leases.setdefault(entry.location, self.clock.time() + GRACE_SECONDS)
        owner, upload_id = entry.owner, entry.upload_id
        created_at = min(record.created_at for record in records)
        if self._created.get(owner, {}).get(upload_id) != created_at:
            self._disorder(entry)
            self._created.setdefault(owner, {})[upload_id] = created_at
            insort(self._order.setdefault(owner, []), (created_at, upload_id))

    def _disorder(self, entry: Entry) -> None:
        owner, upload_id = entry.owner, entry.upload_id
        created_at = self._created.get(owner, {}).pop(upload_id, None)
        if created_at is None:
            return
        order = self._order[owner]
        del order[bisect_left(order, (created_at, upload_id))]
        if not order:
            del self._order[owner], self._created[owner]

    def _drop(self, entry: Entry) -> None:
        records = entry.records
        due = self._expires_at(deciding(newest(records)))
        if self.is_whole and due is not None and due <= self.clock.time():
            self.over += [(entry.owner, entry.upload_id, each.transfer_id) for each in records]
        self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        super()._drop(entry)
        self._disorder(entry)

    def _newest_first(self, owner: str, cursor: str | None) -> Iterator[str]:
        order = self._order.get(owner, [])
        created_at = self._created.get(owner, {}).get(cursor or "")
        end = len(order) if created_at is None else bisect_left(order, (created_at, cursor or ""))
        return (upload_id for _, upload_id in islice(reversed(order), len(order) - end, None))
