"""Uploads that no request is carrying right now: announced, waiting, to be cancelled."""

from collections.abc import Sequence
from typing import Unpack

from attrs import define, evolve

from upload_progress.backend import Backend
from upload_progress.description import Described, described
from upload_progress.endings import CANCELLED
from upload_progress.errors import QuotaExceeded, UploadEnded, UploadNotFound
from upload_progress.flusher import Flusher
from upload_progress.fold import deciding, fold, newest
from upload_progress.identity import Identity
from upload_progress.lifecycle import Signal, next_state
from upload_progress.limits import Limits
from upload_progress.model import (
    TransferRecord,
    UploadKey,
    UploadProgress,
    UploadState,
    new_transfer_id,
    new_upload_id,
)
from upload_progress.ports import Clock, SessionStore
from upload_progress.wire import Update

__all__ = ["Sessions"]


@define(eq=False, repr=False)
class Sessions:
    """Announces uploads, and cancels those that wait."""

    store: SessionStore
    guard: Backend
    flusher: Flusher
    clock: Clock
    limits: Limits
    mount_path: str

    async def announce(self, identity: Identity, **said: Unpack[Described]) -> UploadProgress:
        """Store a pending upload under a fresh id, and tell its owner's watchers.

        Raises:
            InvalidValue: What is said of it cannot be kept.
            QuotaExceeded: The owner has announced as many as may wait at once.
            StoreUnavailable: The store does not answer.
        """
        fit = described("body", self.limits.metadata_bytes, said)
        upload_id = new_upload_id()
        owner = identity.owner_of(upload_id)
        await self._check_room(owner)
        now = self.clock.time()
        record = TransferRecord(
            owner=owner,
            upload_id=upload_id,
            transfer_id=new_transfer_id(),
            attempt=1,
            sequence=1,
            state=UploadState.PENDING,
            **fit,
            created_at=now,
            updated_at=now,
        )
        return await self._store(record, [record])

    async def _check_room(self, owner: str) -> None:
        allowed = self.limits.announced_per_owner
        now = self.clock.time()
        page = await self.guard.call(
            lambda: self.store.list(owner, ended_since=now, limit=2 * allowed)
        )
        waiting = [
            records
            for records in page.uploads
            if deciding(newest(records)).state is UploadState.PENDING
        ]
        if len(waiting) >= allowed:
            raise QuotaExceeded("announced_per_owner", allowed)

    async def cancel(self, key: UploadKey) -> UploadProgress:
        """Cancel an upload that no request of this process carries.

        Raises:
            UploadNotFound: There is none.
            UploadEnded: It has ended in another way.
            StoreUnavailable: The store does not answer.
        """
        records = newest(await self.guard.call(lambda: self.store.load(key)))
        now = self.clock.time()
        progress = fold(records, now=now, mount_path=self.mount_path)
        if progress is None:
            raise UploadNotFound
        if progress.state is UploadState.CANCELLED:
            return progress
        if next_state(progress.state, Signal.CANCEL) is None:
            raise UploadEnded(progress.state)
        ended = evolve(
            deciding(records),
            state=UploadState.CANCELLED,
            error=CANCELLED,
            updated_at=now,
            finished_at=now,
            sequence=deciding(records).sequence + 1,
        )
        return await self._store(ended, [*records, ended])

    async def _store(
        self, record: TransferRecord, records: Sequence[TransferRecord]
    ) -> UploadProgress:
        """Keep *record* and tell of the upload that *records* amount to with it."""
        await self.guard.call(lambda: self.store.save([record]))
        progress = fold(records, now=self.clock.time(), mount_path=self.mount_path)
        assert progress is not None  # noqa: S101  # there is at least the record
        self.flusher.post(Update(record.owner, progress))
        return progress
