"""Reading back the uploads that are received here: another worker may have ended them.

That happens where this worker could not be told: its owner cancelled it while the post was away,
or this worker seemed to be dead, because it, or the store, stood still for longer than a lease.
The store's word stands, and so does an end.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from upload_progress._model.fold import newest
from upload_progress._model.models import ErrorCode, TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import SessionStore

__all__ = [
    "EVERY_SECONDS",
    "PORTION",
    "Reconciler",
]

EVERY_SECONDS: Final = 15.0
PORTION: Final = 500


@define(eq=False, repr=False)
class Reconciler:
    """Ends here what has ended elsewhere.

    Attributes:
        is_alone: Whether nobody else can write into the store.
    """

    store: SessionStore
    breaker: CircuitBreaker
    live: Callable[[], Iterable[LiveUpload]]
    is_alone: bool

    async def run(self) -> None:
        """Look at everything now and then, for ever: a letter may be lost."""
        while not self.is_alone:
            await anyio.sleep(EVERY_SECONDS)
            await self.everything()

    async def everything(self) -> None:
        """Look at every upload that is received here; does nothing while the store is away."""
        await self.these([upload for upload in self.live() if not upload.is_ended])

    async def these(self, uploads: Sequence[LiveUpload]) -> None:
        """Look at *uploads*; does nothing while the store is away."""
        for start in range(0, len(uploads), PORTION):
            portion = {upload.key: upload for upload in uploads[start : start + PORTION]}
            keys = [key for key in portion if key is not None]
            try:
                records = await self._records_of(keys)
            except StoreUnavailable:
                return
            for key in keys:
                _compare(portion[key], newest(records.get(key, ())))
            await checkpoint()

    async def _records_of(self, keys: Sequence[UploadKey]) -> dict[UploadKey, list[TransferRecord]]:
        known: dict[UploadKey, list[TransferRecord]] = {}
        for record in await self.breaker.call(lambda: self.store.load(*keys)):
            known.setdefault(record.key, []).append(record)
        return known


def _compare(upload: LiveUpload, records: Sequence[TransferRecord]) -> None:
    """End *upload*, if the store says that it has ended, or that another attempt has begun."""
    if upload.is_ended or not upload.has_prior_state:
        return None
    for record in records:
        if record.attempt > upload.attempt:
            return upload.lose()
        if record.attempt == upload.attempt and is_final(record.state):
            if record.error is not None and record.error.code is ErrorCode.CANCELLED_BY_OWNER:
                return upload.cancel()
            if record.transfer_id == upload.transfer_id:
                return upload.lose()
    return None
