"""The records of the topic in memory: a ``MemoryStore`` with three additions.

Records can be removed. Records that are read at the start were saved a while ago. And the records
that expired are collected, as they have to be deleted from the topic as well.
"""

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from upload_progress._model.models import TransferRecord
from upload_progress.backends.memory import Bucket, Entry, MemoryStore

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

    def apply(self, record: TransferRecord, *, age_seconds: float = 0.0) -> None:
        """Save *record*, which was written *age_seconds* ago.

        One that is not newer than the stored one changes nothing.
        """
        self._save(record, age_seconds=age_seconds)

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

    def has_packed(self, owner: str, upload_id: str, packed: bytes) -> bool:
        """Return whether an upload has one record alone, which is packed as *packed*."""
        entry = self._owners.get(owner, {}).get(upload_id)
        return entry is not None and entry.has_packed(packed)

    def remove(self, owner: str, upload_id: str, transfer_id: str) -> None:
        """Remove one record, if it exists."""
        entry = self._owners.get(owner, {}).get(upload_id)
        known = self.records(owner, upload_id)
        kept = [each for each in known if each.transfer_id != transfer_id]
        if entry is None or len(kept) == len(known):
            return
        super()._drop(entry)
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

    def _give_first_lease(self, worker: str) -> None:
        super()._give_first_lease(worker)
        now = self.clock.monotonic()
        self._leases.add(worker, seconds=INITIAL_LEASE_SECONDS, now=now)

    def _drop(self, entry: Entry) -> None:
        bucket = entry.location
        if isinstance(bucket, Bucket) and bucket.number <= self.clock.monotonic():
            self._collect(entry)
        super()._drop(entry)

    def _drop_excess(self, entry: Entry) -> None:
        self._collect(entry)
        super()._drop(entry)

    def _collect(self, entry: Entry) -> None:
        """Let the records of *entry* be deleted from the topic."""
        if self.is_complete:
            names = (entry.owner, entry.upload_id)
            self.expired += [(*names, each.transfer_id) for each in entry.records]
