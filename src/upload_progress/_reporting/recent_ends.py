"""The ends of uploads that this worker has stored: a store may lose what it has acknowledged.

A server that crashes and restarts, or a replica that is promoted, may lack the last writes. Then
the `Reconciler` writes these ends again.
"""

from collections.abc import Iterator
from typing import Final

from attrs import define, field

from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.interfaces import Clock

__all__ = ["KEEP_SECONDS", "MAX_BYTES", "RecentEnds"]

KEEP_SECONDS: Final = 3600.0
MAX_BYTES: Final = 4_000_000
"""How much memory the packed records may take; of more, the oldest are forgotten."""


@define(eq=False, repr=False)
class RecentEnds:
    """The final records that were stored last, packed; oldest first."""

    clock: Clock
    _packed: dict[UploadKey, tuple[float, bytes]] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return how many ends are remembered."""
        return len(self._packed)

    def add(self, record: TransferRecord) -> None:
        """Remember *record*, which the store has acknowledged."""
        self.forget(record.key)
        packed = pack_record(record)
        self._packed[record.key] = self.clock.monotonic(), packed
        self._size += len(packed)
        while self._size > MAX_BYTES or self._oldest_age > KEEP_SECONDS:
            self.forget(next(iter(self._packed)))

    @property
    def _oldest_age(self) -> float:
        stored_at, _ = next(iter(self._packed.values()))
        return self.clock.monotonic() - stored_at

    def forget(self, key: UploadKey) -> None:
        """Forget the end of *key*: a newer attempt has begun."""
        known = self._packed.pop(key, None)
        if known is not None:
            self._size -= len(known[1])

    def find(self, key: UploadKey) -> TransferRecord | None:
        """Return the end of *key* that was stored, if it is remembered."""
        known = self._packed.get(key)
        return None if known is None else unpack_record(key.owner, key.upload_id, known[1])

    def since(self, seconds: float) -> Iterator[UploadKey]:
        """Yield the uploads whose ends were stored within the last *seconds*, newest first."""
        now = self.clock.monotonic()
        for key, (stored_at, _) in reversed(self._packed.items()):
            if now - stored_at > seconds:
                return
            yield key
