"""Resumes the processing of uploads that were handed over, with the token of `hand_over()`.

A task that begins before the endpoint has answered waits for the answer: only an accepted upload is
handed over. Of several tasks with the same token, the last one that has resumed it writes the
record: a task queue starts a task again when it takes the one before for dead. Each further task is
the next attempt of the processing, so that nothing follows an end within an attempt.
"""

from collections.abc import Sequence
from typing import Final

import anyio
from attrs import define

from upload_progress._cluster.reaper import Reaper
from upload_progress._model.fold import newest_attempt
from upload_progress._model.models import TransferRecord, UploadKey, without_store_times
from upload_progress._model.state import is_final
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.backoff import Backoff
from upload_progress._runtime.worker import Worker
from upload_progress._tracking.admission import Admission
from upload_progress._tracking.hand_over import (
    continued,
    end_of,
    find_handed_over,
    read_token,
    resumed,
)
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.exceptions import NotHandedOver, StoreUnavailable

__all__ = ["ANSWER_SECONDS", "STORED_SECONDS", "HandOvers"]

ANSWER_SECONDS: Final = 30.0
"""How long a task waits for the answer of the endpoint that has made its token."""
STORED_SECONDS: Final = 5.0
"""How long a task waits for an upload that the store does not have yet, and for the store."""
_FIRST_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.0


@define(eq=False, repr=False, kw_only=True)
class HandOvers:
    """Takes over the records of uploads for tasks of this process.

    Args:
        loader: Reads the store, and writes the first version of a task.
        admission: Creates the live upload of the task.
        reaper: Renews the lease of this process.
        worker: This process.
    """

    loader: RecordLoader
    admission: Admission
    reaper: Reaper
    worker: Worker

    async def resume(self, token: str) -> LiveUpload:
        """Return the upload of *token*, which this process goes on with.

        Raises:
            InvalidValue: It is no token.
            UploadNotFound: There is no such upload any more.
            NotHandedOver: The endpoint has not answered yet, or a newer upload has the id.
            UploadCancelled: The owner has cancelled the upload.
            UploadEnded: It has ended.
            StoreUnavailable: The store does not answer.
        """
        key, token_hash = read_token(token)
        if key is None:
            return self.admission.open(where="resume")
        began_at = anyio.current_time()
        backoff = Backoff(
            first_seconds=_FIRST_RETRY_SECONDS, maximum_seconds=_LONGEST_RETRY_SECONDS
        )
        while True:
            waited = anyio.current_time() - began_at
            try:
                live = await self._try_to_resume(key, token_hash, waited)
            except StoreUnavailable:
                if waited >= STORED_SECONDS:
                    raise
                live = None
            if live is not None:
                return live
            await anyio.sleep(backoff.next_delay_seconds())

    async def _try_to_resume(
        self, key: UploadKey, token_hash: str, waited: float
    ) -> LiveUpload | None:
        """Take over the record of an upload; return None if it is to be tried again."""
        records = newest_attempt((await self.loader.load([key])).get(key, []))
        record = find_handed_over(records, token_hash)
        if record is None:
            self._check_waiting(key, records, waited)
            return None
        now = self.loader.clock.time()
        base = continued(record, records, now=now)
        # A task may die at once: then the lease that a store gives to a new worker is too long.
        await self.reaper.renew()
        claim = without_store_times(resumed(base, worker=self.worker.name, now=now))
        if (await self.loader.parts.save([claim])).found:
            return None
        if claim.attempt == record.attempt:
            return self.admission.resume(claim, [each for each in records if each is not record])
        live = self.admission.resume(claim, [])
        if record.worker is not None:
            # A task before may still run there: from now on, it reports nothing.
            live.context.on_superseding(live, [record])
        return live

    def _check_waiting(
        self, key: UploadKey, records: Sequence[TransferRecord], waited: float
    ) -> None:
        """Raise an error if no record will be handed over."""
        if not records:
            if waited >= STORED_SECONDS:
                raise self.loader.not_found(key.owner)
            return
        shown = self.loader.fold(records)
        if is_final(shown.state):
            raise end_of(shown)
        if waited >= ANSWER_SECONDS:
            raise NotHandedOver
