"""Load records from the store and fold them to snapshots, for many uploads in one round trip."""

from collections.abc import Iterable

from attrs import frozen

from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadKey, UploadProgress
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress.config import TrackerConfig
from upload_progress.interfaces import SessionStore

__all__ = ["RecordLoader"]


@frozen(eq=False, repr=False)
class RecordLoader:
    """Reads the session store through its circuit breaker."""

    store: SessionStore
    breaker: CircuitBreaker
    config: TrackerConfig

    async def load(self, keys: Iterable[UploadKey]) -> dict[UploadKey, list[TransferRecord]]:
        """Return the records of the uploads *keys*; uploads without records are left out.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        wanted = tuple(keys)
        records: dict[UploadKey, list[TransferRecord]] = {}
        if wanted:
            for record in await self.breaker.call(lambda: self.store.load(*wanted)):
                records.setdefault(record.key, []).append(record)
        return records

    def fold(self, records: Iterable[TransferRecord]) -> UploadProgress | None:
        """Return the snapshot of the *records* of one upload as of now; None without records."""
        config = self.config
        return fold(records, now=config.clock.time(), mount_path=config.mount_path)
