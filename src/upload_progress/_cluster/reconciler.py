"""Compares the uploads that are received here with the store: another worker may have ended them.

That happens when the other worker could not reach this one: its owner cancelled the upload while
the broker was away, or this worker seemed dead, because it or the store stood still for longer than
a lease. The store decides, and an end is final.
"""

from collections.abc import Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from upload_progress._model.fold import newest
from upload_progress._model.models import ErrorCode, TransferRecord
from upload_progress._model.state import is_final
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.record_loader import RecordLoader
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import StoreUnavailable

__all__ = ["BATCH_SIZE", "INTERVAL_SECONDS", "Reconciler"]

INTERVAL_SECONDS: Final = 15.0
BATCH_SIZE: Final = 500


@define(eq=False, repr=False, kw_only=True)
class Reconciler:
    """Ends uploads that are received here and have ended in the store.

    Args:
        loader: Reads the store.
        registry: The uploads that are received here.
        is_single_worker: Whether no other process can write into the store.
    """

    loader: RecordLoader
    registry: Registry
    is_single_worker: bool

    async def run(self) -> None:
        """Check all uploads every 15 s until cancelled: a message may have been lost."""
        while not self.is_single_worker:
            await anyio.sleep(INTERVAL_SECONDS)
            await self.check_all()

    async def check_all(self) -> None:
        """Check every upload that is received here. Does nothing while the store is away."""
        await self.check([upload for upload in self.registry.everything() if not upload.is_ended])

    async def check(self, uploads: Sequence[LiveUpload]) -> None:
        """Check *uploads*. Does nothing while the store is away."""
        for start in range(0, len(uploads), BATCH_SIZE):
            batch = {upload.key: upload for upload in uploads[start : start + BATCH_SIZE]}
            keys = [key for key in batch if key is not None]
            try:
                records = await self.loader.load(keys)
            except StoreUnavailable:
                return
            for key in keys:
                self._apply(newest(records.get(key, ())), batch[key])
            await checkpoint()

    def _apply(self, records: Sequence[TransferRecord], upload: LiveUpload) -> None:
        """End *upload* if *records* show that it has ended, or that a newer attempt has begun."""
        if upload.is_ended or not upload.has_prior_state:
            return None
        for record in records:
            if record.attempt > upload.attempt:
                return self.registry.supersede(upload)
            if record.attempt == upload.attempt and is_final(record.state):
                if record.error is not None and record.error.code is ErrorCode.CANCELLED_BY_OWNER:
                    return upload.cancel()
                if record.transfer_id == upload.transfer_id:
                    return upload.lose()
        return None
