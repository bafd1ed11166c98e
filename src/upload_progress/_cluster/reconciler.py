"""Compares the uploads of this worker with the store, in both directions.

From here to the store: another worker may have ended an upload that is received here. Either its
owner cancelled it while the broker was away, and then it is cancelled here as well. Or this worker
seemed dead, because it stood still, or could not reach the store. That was an inference, and the
living worker overrules it: the upload goes on as its next attempt, since nothing follows the end of
an attempt. A store may also have lost what it had acknowledged: then ends are written again, and so
are uploads that are received here.

From the store to here: a record may say that this worker receives an upload that it does not
receive. Then its end was lost, and is written again. If it is not remembered, no worker will
write one, and the upload is ended as lost.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._fanout.update import Update
from upload_progress._model.fold import deciding, ended, newest, received_by
from upload_progress._model.models import ErrorCode, TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._reporting.end_outbox import is_entry
from upload_progress._reporting.flusher import Flusher
from upload_progress._reporting.recent_ends import KEEP_SECONDS
from upload_progress._runtime.worker import Worker
from upload_progress._tracking.continuation import belonging, overruling, prior_state
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.exceptions import StoreUnavailable

__all__ = [
    "BATCH_SIZE",
    "INTERVAL_SECONDS",
    "NEW_END_SECONDS",
    "REWRITE_SECONDS",
    "UNREACHABLE_SECONDS",
    "Reconciler",
]

INTERVAL_SECONDS: Final = 15.0
UNREACHABLE_SECONDS: Final = 1.0
"""How often uploads that are received here are compared while no message can say that they end."""
BATCH_SIZE: Final = 500
NEW_END_SECONDS: Final = 30.0
"""Ends that were stored within this time are compared with the store each time."""
REWRITE_SECONDS: Final = 300.0
"""An end that the store does not have at all is written again for this time; later, the store may
have deleted it."""


@define(eq=False, repr=False, kw_only=True)
class Reconciler:
    """Ends uploads that were cancelled elsewhere, and corrects what the store has of this worker.

    Args:
        flusher: Stores and publishes; knows the uploads that are received here.
        worker: This process.
        is_single_worker: Whether no other process can write into the store.
    """

    flusher: Flusher
    worker: Worker
    is_single_worker: bool
    _absent: set[UploadKey] = field(factory=set, init=False)

    async def run(self, is_reachable: Callable[[], bool]) -> None:
        """Compare every 15 s until cancelled: a message or a write may have been lost.

        Args:
            is_reachable: Tells whether messages of other workers arrive. While they do not, a
                cancelled upload is found in the store within a second.
        """
        compared_at = anyio.current_time()
        while not self.is_single_worker:
            await anyio.sleep(UNREACHABLE_SECONDS)
            if anyio.current_time() - compared_at >= INTERVAL_SECONDS:
                await self._compare(NEW_END_SECONDS)
                compared_at = anyio.current_time()
            elif not is_reachable():
                await self._check_received()

    async def check_all(self) -> None:
        """Compare everything, because the store or this worker was away.

        Does nothing while the store is away.
        """
        await self._compare(KEEP_SECONDS)

    async def _compare(self, seconds: float) -> None:
        await self._check_received()
        try:
            await self._check_ends(seconds)
            await self._check_stored()
        except StoreUnavailable:
            return

    async def _check_received(self) -> None:
        live = self.flusher.registry.everything()
        await self.check([upload for upload in live if not upload.is_ended])

    async def check(self, uploads: Sequence[LiveUpload]) -> None:
        """Check *uploads*, which are received here. Does nothing while the store is away."""
        for start in range(0, len(uploads), BATCH_SIZE):
            batch = {upload.key: upload for upload in uploads[start : start + BATCH_SIZE]}
            keys = [key for key in batch if key is not None]
            try:
                loaded = await self.flusher.loader.load_available(keys)
            except StoreUnavailable:
                return
            for key in keys:
                if key.owner not in loaded.errors:
                    self._apply(newest(loaded.records.get(key, ())), batch[key])
            await checkpoint()

    def _apply(self, records: Sequence[TransferRecord], upload: LiveUpload) -> None:
        """Compare *upload* with its *records* in the store."""
        if upload.is_ended or not upload.has_prior_state:
            return
        if self.flusher.registry.find(*upload.topic) is not upload:
            # It was stored while the records were loaded, and waits for its next request.
            return
        for record in records:
            if record.attempt > upload.attempt:
                self._follow_newer(record, upload)
                return
            if record.attempt == upload.attempt and is_final(record.state):
                if record.error is not None and record.error.code is ErrorCode.CANCELLED_BY_OWNER:
                    overruling.follow_cancel(upload, records)
                    self.flusher.deliver_end(upload, records)
                    return
                if record.transfer_id == upload.transfer_id and overruling.is_inferred(record):
                    self.flusher.overrule(upload, records)
                    return
        if upload.series is not None and records and is_final(deciding(records).state):
            # Before it stores another version, which would change the ended upload.
            prior_state.update_from_store(upload, records)
            self.flusher.deliver_end(upload, records)
            upload.mark_due()
        elif upload.is_reported and not records:
            upload.mark_due()

    def _follow_newer(self, record: TransferRecord, upload: LiveUpload) -> None:
        """Supersede *upload* by a newer one; else it becomes the next attempt when it is stored."""
        if belonging.is_newer(record, upload):
            self.flusher.registry.supersede(upload)
        else:
            upload.mark_due()

    async def _check_ends(self, seconds: float) -> None:
        """Write those ends again that were stored within *seconds*, and are not in the store."""
        keys = list(self.flusher.ends.since(seconds))
        for start in range(0, len(keys), BATCH_SIZE):
            batch = keys[start : start + BATCH_SIZE]
            loaded = await self.flusher.loader.load_available(batch)
            records, recent = loaded.records, set(self.flusher.ends.since(REWRITE_SECONDS))
            await self._correct(
                {
                    key: records.get(key, [])
                    for key in batch
                    if key in records or (key in recent and key.owner not in loaded.errors)
                }
            )
            await checkpoint()

    async def _check_stored(self) -> None:
        """End what this worker receives according to the store, and does not receive.

        An upload is ended if it was absent twice: a newer one of the same id may be about to be
        stored by another worker.
        """
        loader, worker = self.flusher.loader, self.worker.name
        found = await loader.parts.call_parts(
            range(len(loader.parts)), lambda store: store.running(worker, limit=BATCH_SIZE)
        )
        running = [record for records in found.values() for record in records]
        transfers = [record for record in running if not is_entry(record)]
        absent = {record.key for record in transfers if self._is_absent(record.key)}
        known, self._absent = self._absent, absent
        loaded = await loader.load_available(sorted(absent))
        await self._correct(
            {
                key: stored
                for key, stored in loaded.records.items()
                if (key in known or self.flusher.ends.find(key)) and self._is_absent(key)
            }
        )

    def _is_absent(self, key: UploadKey) -> bool:
        return self.flusher.registry.find(key.owner, key.upload_id) is None

    async def _correct(self, stored: Mapping[UploadKey, Sequence[TransferRecord]]) -> None:
        """Store and publish the ends that these uploads lack."""
        ends = {
            end.key: end for key, records in stored.items() if (end := self._end_of(key, records))
        }
        if not ends:
            return
        loader = self.flusher.loader
        answers = await loader.parts.save(ends.values())
        for end in ends.values():
            if end.owner not in answers.errors and end not in answers.found:
                self.flusher.ends.add(end)
                progress = loader.fold([*stored[end.key], end])
                self.flusher.publish_stored(Update(end.owner, progress))

    def _end_of(self, key: UploadKey, records: Sequence[TransferRecord]) -> TransferRecord | None:
        """Return the end of an upload that the store lacks; None if it has it."""
        end, current = self.flusher.ends.find(key), newest(records)
        if end is None:
            return self._end_of_unknown(current)
        if any(record.attempt > end.attempt for record in current):
            return None
        own = next((each for each in current if each.transfer_id == end.transfer_id), None)
        if own is not None and own.attempt == end.attempt and is_final(own.state):
            return overruling.overruled(end, current) if overruling.is_inferred(own) else None
        return end

    def _end_of_unknown(self, records: Sequence[TransferRecord]) -> TransferRecord | None:
        if is_final(deciding(records).state):
            return None
        now = self.flusher.clock.time()
        own = received_by(self.worker.name, records)
        return next((ended(record, now) for record in own), None)
