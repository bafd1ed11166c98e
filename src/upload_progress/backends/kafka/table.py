"""The records of the topic in memory: a ``MemoryStore`` with three additions.

Records can be removed. Uploads are listed in the order of their creation, although the topic brings
them in any order. And the records that expired are collected, as they have to be deleted from the
topic as well.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord
from upload_progress.backends.memory import Entry, MemoryStore

__all__ = ["INITIAL_LEASE_SECONDS", "RecordTable"]

INITIAL_LEASE_SECONDS: Final = 15.0
"""The lease of a worker of which a record was read, and no lease yet."""


@define(eq=False, repr=False)
class RecordTable(MemoryStore):
    """The records that were read from the topic.

    Attributes:
        is_complete: Whether the topic was read up to its end once. What expires before may be a
            part of an upload, and is not collected.
        expired: Owner, upload id and transfer id of the records that have expired, and have not
            been taken out of this list yet.
    """

    is_complete: bool = field(default=False, init=False)
    expired: list[tuple[str, str, str]] = field(factory=list, init=False)
    _created_at: dict[str, dict[str, float]] = field(factory=dict, init=False)
    _order: dict[str, list[tuple[float, str]]] = field(factory=dict, init=False)

    def apply(self, record: TransferRecord) -> None:
        """Save *record*; one that is not newer than the stored one changes nothing."""
        self._save(record)

    def find(self, owner: str, upload_id: str, transfer_id: str) -> TransferRecord | None:
        """Return one record, without store times."""
        return next(
            (each for each in self.records(owner, upload_id) if each.transfer_id == transfer_id),
            None,
        )

    def records(self, owner: str, upload_id: str) -> Sequence[TransferRecord]:
        """Return all records of an upload, without store times."""
        entry = self._owners.get(owner, {}).get(upload_id)
        return entry.records if entry is not None else []

    def remove(self, owner: str, upload_id: str, transfer_id: str) -> None:
        """Remove one record, if it exists."""
        entry = self._owners.get(owner, {}).get(upload_id)
        known = self.records(owner, upload_id)
        kept = [each for each in known if each.transfer_id != transfer_id]
        if entry is None or len(kept) == len(known):
            return
        self._remove(entry)
        for record in kept:
            self._save(record)

    def set_lease(self, worker: str, seconds: float) -> None:
        """Set the lease of *worker* to *seconds* from now."""
        self._leases.renew(worker, seconds=seconds, now=self.clock.monotonic())

    def is_known(self, worker: str) -> bool:
        """Return whether *worker* has a lease, or had one and has left open records."""
        return worker in self._leases

    def is_alive(self, worker: str) -> bool:
        """Return whether *worker* has a lease."""
        now = self.clock.monotonic()
        until = self._leases.until(worker, now)
        return until is not None and until > now

    def _index(self, entry: Entry, records: Sequence[TransferRecord]) -> None:
        super()._index(entry, records)
        if isinstance(entry.location, str):
            now = self.clock.monotonic()
            self._leases.add(entry.location, seconds=INITIAL_LEASE_SECONDS, now=now)
        owner, upload_id = entry.owner, entry.upload_id
        created_at = min(record.created_at for record in records)
        if self._created_at.get(owner, {}).get(upload_id) != created_at:
            self._remove_from_order(entry)
            self._created_at.setdefault(owner, {})[upload_id] = created_at
            insort(self._order.setdefault(owner, []), (created_at, upload_id))

    def _remove_from_order(self, entry: Entry) -> None:
        owner, upload_id = entry.owner, entry.upload_id
        created_at = self._created_at.get(owner, {}).pop(upload_id, None)
        if created_at is None:
            return
        order = self._order[owner]
        del order[bisect_left(order, (created_at, upload_id))]
        if not order:
            del self._order[owner], self._created_at[owner]

    def _drop(self, entry: Entry) -> None:
        expires_at = self._expires_at(deciding(newest(entry.records)))
        if expires_at is not None and expires_at <= self.clock.time():
            self._collect(entry)
        self._remove(entry)

    def _drop_excess(self, entry: Entry) -> None:
        self._collect(entry)
        self._remove(entry)

    def _collect(self, entry: Entry) -> None:
        """Let the records of *entry* be deleted from the topic."""
        if self.is_complete:
            names = (entry.owner, entry.upload_id)
            self.expired += [(*names, each.transfer_id) for each in entry.records]

    def _remove(self, entry: Entry) -> None:
        super()._drop(entry)
        self._remove_from_order(entry)

    def _newest_first(self, owner: str, cursor: str | None) -> Iterator[str]:
        order = self._order.get(owner, [])
        created_at = self._created_at.get(owner, {}).get(cursor or "")
        end = len(order) if created_at is None else bisect_left(order, (created_at, cursor or ""))
        return (upload_id for _, upload_id in islice(reversed(order), len(order) - end, None))
