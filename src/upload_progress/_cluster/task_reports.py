"""Reports of tasks by HTTP, in any language: ``PATCH`` with the token of `hand_over()`.

A task that reports by HTTP has no lease that a process renews. Each report says until when the next
one is due, and the record has that deadline instead of a worker. Any worker may get the report: it
reads the record, and writes the next version; of two at once the store refuses one, which is tried
again.
"""

from collections.abc import Sequence
from typing import Final

from attrs import define, evolve
from msgspec import UNSET

from upload_progress._fanout.update import Update
from upload_progress._model.api_types import TaskReport
from upload_progress._model.fold import newest_attempt
from upload_progress._model.models import (
    ErrorCode,
    Stage,
    TransferRecord,
    UploadError,
    UploadKey,
    UploadProgress,
    UploadState,
    without_store_times,
)
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reporting.flusher import Flusher
from upload_progress._runtime.worker import deadline_worker, is_worker_name
from upload_progress._tracking.hand_over import continued, find_handed_over, read_token, resumed
from upload_progress.exceptions import StoreBusy, UploadNotFound

__all__ = ["TaskReports"]

_TRIES: Final = 5
_FAILED: Final = "The task failed."
_ENDS: Final = {"completed": UploadState.COMPLETED, "failed": UploadState.FAILED}


@define(eq=False, repr=False, kw_only=True)
class TaskReports:
    """Writes what tasks report by HTTP.

    Args:
        loader: The store.
        lane: Limits how many calls of the store clients cause at once.
        flusher: Delivers and publishes.
        lease_seconds: When the next report is due, if a report does not say it.
    """

    loader: RecordLoader
    lane: ClientLane
    flusher: Flusher
    lease_seconds: float

    async def add(self, upload_id: str, token: str, report: TaskReport) -> UploadProgress:
        """Store and publish *report* of the upload of *token*; return the snapshot.

        Raises:
            InvalidValue: It is no token.
            UploadNotFound: It is the token of another upload, or of one that is not there.
            UploadCancelled: The owner has cancelled the upload.
            UploadEnded: It has ended.
            StoreUnavailable: The store does not answer.
        """
        key, token_hash = read_token(token)
        if key is None or key.upload_id != upload_id:
            raise UploadNotFound
        for _ in range(_TRIES):
            progress = await self._try_to_add(key, token_hash, report)
            if progress is not None:
                return progress
        raise StoreBusy

    async def _try_to_add(
        self, key: UploadKey, token_hash: str, report: TaskReport
    ) -> UploadProgress | None:
        """Store the next version; return None if another one was stored meanwhile."""
        records = newest_attempt(await self.lane.load(key))
        record = find_handed_over(records, token_hash)
        if record is None:
            raise UploadNotFound if records else self.loader.not_found(key.owner)
        shown = self.loader.fold(records)
        if shown.state is _ENDS.get(report.state):
            return shown  # its response was lost
        changed = self._next_version(record, records, report)
        parts = self.loader.parts
        refused = await self.lane.call(key.owner, lambda: parts.save([changed]))
        if refused.found:
            return None
        is_same_attempt = changed.attempt == record.attempt
        others = [each for each in records if each is not record and is_same_attempt]
        progress = self.loader.fold([*others, changed])
        self.flusher.publish_stored(Update(key.owner, progress))
        return progress

    def _next_version(
        self, record: TransferRecord, records: Sequence[TransferRecord], report: TaskReport
    ) -> TransferRecord:
        now = self.loader.clock.time()
        goes_on = record.worker is not None and not is_worker_name(record.worker)
        base = continued(record, records, now=now, goes_on=goes_on)
        seconds = report.lease_seconds or self.lease_seconds
        changed = resumed(base, worker=deadline_worker(now, seconds), now=now)
        changed = without_store_times(changed)
        if report.stored_bytes is not None:
            changed = evolve(changed, stored_bytes=report.stored_bytes)
        state = _ENDS.get(report.state)
        if state is None:
            return changed if report.stage is UNSET else evolve(changed, stage=_stage_of(report))
        error = None
        if state is UploadState.FAILED:
            error = UploadError(ErrorCode.REJECTED, report.message or _FAILED)
        return evolve(changed, state=state, stage=None, error=error, finished_at=now, worker=None)


def _stage_of(report: TaskReport) -> Stage | None:
    stage = report.stage
    if stage is None or stage is UNSET:
        return None
    done = stage.done if stage.total is None else min(stage.done, stage.total)
    return Stage(stage.name, done, stage.total)
