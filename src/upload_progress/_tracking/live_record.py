"""The record that a worker writes of a live upload, and the snapshot that follows from it."""

from attrs import evolve

from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadProgress, UploadState
from upload_progress._model.state import FINAL_STATES
from upload_progress._model.validation import MAX_COUNT
from upload_progress._tracking.hand_over import with_inherited
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.series import RequestSeries
from upload_progress._tracking.status import Moment, Reporting

__all__ = ["commit", "current_snapshot", "record_of", "records_with", "snapshot_of"]


def commit(upload: LiveUpload, now: Moment) -> TransferRecord:
    """Return the next version of the record, and arm the meters for the one after it."""
    upload.begin_version(now)
    return record_of(upload, now)


def record_of(upload: LiveUpload, now: Moment) -> TransferRecord:
    """Return the record of this process in its current version."""
    activity = upload.activity
    is_receiving = upload.state is UploadState.RECEIVING
    made = TransferRecord(
        owner=upload.owner or "",
        upload_id=upload.upload_id,
        transfer_id=upload.transfer_id,
        attempt=upload.attempt,
        sequence=upload.sequence,
        state=upload.state,
        received_bytes=min(upload.received_bytes, MAX_COUNT),
        total_bytes=upload.meter.total_bytes,
        bytes_per_second=activity.bytes_per_second if activity and is_receiving else None,
        stalled=activity is not None and activity.is_stalled,
        arrival=upload.arrival,
        stage=upload.current_stage.stage if upload.current_stage else None,
        error=upload.error,
        group=upload.group,
        filename=upload.filename,
        content_type=upload.content_type,
        metadata=upload.metadata,
        created_at=upload.created_at,
        started_at=upload.started_at,
        updated_at=upload.finished_at or now.wall,
        last_byte_at=activity.last_byte_at if activity else None,
        finished_at=upload.finished_at,
        worker=None if upload.state in FINAL_STATES else upload.worker,
        hand_over=upload.hand_over,
        stored_bytes=None if upload.stored is None else upload.stored.size_bytes,
        former_sessions=upload.replaced,
    )
    if upload.inherited is not None:
        return with_inherited(made, upload.inherited, upload.set_by_app)
    return made if upload.series is None else _with_series(upload, made, upload.series)


def _with_series(upload: LiveUpload, made: TransferRecord, series: RequestSeries) -> TransferRecord:
    """Return a record with what only uploads in several requests have."""
    return evolve(
        made,
        protocol=upload.protocol,
        byte_ranges=(*series.ranges.entries(), *upload.unfinished_ranges()),
        confirmed_bytes=series.ranges.confirmed_bytes,
        retransmitted_bytes=series.repeated_bytes,
        stalled=made.stalled and not upload.is_idle,
        set_by_app=tuple(sorted(upload.set_by_app)),
        previous_ended_at=series.previous_ended_at,
        former_sessions=tuple(sorted(series.former_sessions)),
        session=series.session,
        idle_at=upload.idle_at if series.idle_since else None,
    )


def records_with(upload: LiveUpload, record: TransferRecord) -> list[TransferRecord]:
    """Return the records of this attempt: those of others, and *record* of this process."""
    if upload.has_ended_elsewhere or (upload.is_superseded and upload.prior_records):
        return list(upload.prior_records)
    return [*upload.prior_records, record]


def current_snapshot(upload: LiveUpload) -> UploadProgress:
    """Return the current snapshot; an end that is not stored yet as it will be stored."""
    now = upload.context.now()
    upload.observe(now)
    upload.begin_first_version()
    return snapshot_of(upload, record_of(upload, now), now)


def snapshot_of(upload: LiveUpload, record: TransferRecord, now: Moment) -> UploadProgress:
    """Return the snapshot of which *record* is the part of this process."""
    mount_path = upload.context.config.mount_path
    progress = fold(records_with(upload, record), now=now.wall, mount_path=mount_path)
    assert progress is not None  # noqa: S101  # there is a record
    is_due = upload.is_ended and upload.reporting is Reporting.DUE
    if is_due and not upload.has_ended_elsewhere:
        # One sequence must not carry two states: a receiver keeps the highest sequence.
        return evolve(progress, sequence=progress.sequence + 1)
    return progress
