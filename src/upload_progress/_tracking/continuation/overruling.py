"""What a live upload becomes after the store has refused a version of it.

Another worker has ended the upload by mistake, the owner has cancelled it there, or a newer upload
has its id.
"""

from collections.abc import Iterable

from attrs import evolve

from upload_progress._model.fold import fold, newest
from upload_progress._model.models import TransferRecord, UploadState, without_store_times
from upload_progress._model.state import CANCELLED, INFERRED_CODES, is_final
from upload_progress._tracking.continuation import prior_state
from upload_progress._tracking.hand_over import next_attempt
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.status import PriorState, Reporting

__all__ = ["follow_cancel", "follow_refusal", "is_inferred", "overrule", "overruled"]


def follow_refusal(
    upload: LiveUpload, written: TransferRecord, records: Iterable[TransferRecord]
) -> bool:
    """Go on after the store has refused a version of *upload*; return whether it had changed there.

    Another worker has ended it, because this worker seemed dead: then the upload is the next
    attempt, as nothing follows the end of an attempt. Or the owner has cancelled it there: then it
    is stopped, unless the application has accepted it by now. Or a newer upload has its id.

    Args:
        upload: The upload.
        written: The version that the store has refused.
        records: What the store has of the upload.
    """
    stored = list(records)
    newer = [each for each in stored if each.attempt > written.attempt]
    if newer:
        prior_state.follow_rivals(upload, newer)
        return True
    own = next((each for each in stored if each.transfer_id == written.transfer_id), None)
    if own is None or without_store_times(own) == written:
        return False  # It was saved by a call that seemed to have failed.
    if own.error == CANCELLED and not _is_accepted(written):
        follow_cancel(upload, newest(stored))
        return True
    if is_inferred(own) or own.error == CANCELLED:
        _overrule(upload, stored)
    elif is_final(own.state):
        return False
    else:
        # This worker has stored another version, of the same upload before it was forgotten.
        upload.sequence = max(upload.sequence, own.sequence)
        if upload.reporting is Reporting.ENDED:
            upload.reporting = Reporting.CURRENT
    upload.mark_due()
    return True


def _is_accepted(record: TransferRecord) -> bool:
    """Return whether the application has accepted an upload in one request."""
    return record.state is UploadState.COMPLETED and record.protocol is None


def overrule(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Report *upload*, which another worker has ended by mistake, as its next attempt."""
    _overrule(upload, list(records))
    upload.mark_due()


def _overrule(upload: LiveUpload, records: list[TransferRecord]) -> None:
    ended = fold(records, now=upload.context.config.clock.time())
    assert ended is not None  # noqa: S101  # there is a record
    upload.attempt = ended.attempt + 1
    upload.sequence = max(upload.sequence, ended.sequence)
    if upload.inherited is not None:
        upload.inherited = next_attempt(upload.inherited, records, now=upload.created_at)
    upload.prior_records = ()
    upload.reporting = Reporting.CURRENT


def overruled(record: TransferRecord, records: Iterable[TransferRecord]) -> TransferRecord:
    """Return *record*, the end of an upload, as the next attempt after those that are stored."""
    stored = fold(records, now=record.updated_at)
    assert stored is not None  # noqa: S101  # there is a record
    return evolve(
        record,
        attempt=stored.attempt + 1,
        sequence=max(record.sequence, stored.sequence) + 1,
    )


def is_inferred(record: TransferRecord) -> bool:
    """Return whether *record* was ended by another worker than the one that receives it."""
    return record.error is not None and record.error.code in INFERRED_CODES


def follow_cancel(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Stop an upload whose owner has cancelled it at another worker.

    The record of that worker is the end: a second one would be an event after the end. If the
    client receives the response already, it is too late, and the upload is the next attempt.
    """
    upload.cancel()
    if upload.is_ended or upload.is_handed_over:
        upload.prior_state, upload.prior_records = PriorState.ENDED, tuple(records)
    else:
        overrule(upload, records)
