"""Loading records from the store: grouped by upload, and folded into snapshots."""

from collections.abc import Collection, Iterable

from attrs import define

from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadKey, UploadProgress
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.yielding import yielding
from upload_progress.interfaces import Clock, RecordPage, SessionStore

__all__ = ["RecordLoader"]


@define(eq=False, repr=False)
class RecordLoader:
    """Loads records through the circuit breaker of the store.

    All methods that ask the store raise ``StoreUnavailable`` if it does not answer.

    Args:
        store: The store of all workers.
        breaker: Its circuit breaker.
        clock: What decides which leases are over.
        mount_path: What the links of snapshots begin with.
    """

    store: SessionStore
    breaker: CircuitBreaker
    clock: Clock
    mount_path: str

    async def load(self, keys: Collection[UploadKey]) -> dict[UploadKey, list[TransferRecord]]:
        """Return the records of each of these uploads that the store has, in one round trip."""
        known: dict[UploadKey, list[TransferRecord]] = {}
        if not keys:
            return known
        for record in await self.breaker.call(lambda: self.store.load(*keys)):
            known.setdefault(record.key, []).append(record)
        return known

    async def snapshots(self, keys: Collection[UploadKey]) -> dict[UploadKey, UploadProgress]:
        """Return the snapshot of each of these uploads that the store has, in one round trip."""
        known = await self.load(keys)
        return {key: self.fold(records) async for key, records in yielding(known.items())}

    async def page(
        self,
        owner: str,
        *,
        ended_since: float | None,
        cursor: str | None = None,
        group: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return a page of the uploads of *owner*; see ``SessionStore.list``."""
        return await self.breaker.call(
            lambda: self.store.list(
                owner, group=group, ended_since=ended_since, cursor=cursor, limit=limit
            )
        )

    def fold(self, records: Iterable[TransferRecord]) -> UploadProgress:
        """Return the snapshot of an upload with these records, of which there is at least one."""
        progress = fold(records, now=self.clock.time(), mount_path=self.mount_path)
        assert progress is not None  # noqa: S101  # there is a record
        return progress
