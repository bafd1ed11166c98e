"""How a further request of a live upload joins it, or changes nothing because it is late."""

from upload_progress._model.fold import is_same_session
from upload_progress._model.models import UploadState
from upload_progress._model.state import CANCELLED
from upload_progress._tracking import outcomes
from upload_progress._tracking.continuation import belonging
from upload_progress._tracking.live_upload import DESCRIPTION, LiveUpload
from upload_progress._tracking.requests.transfer import TransferPhase
from upload_progress._tracking.status import PriorState, Reporting

__all__ = ["absorb", "can_merge", "merge"]


def can_merge(upload: LiveUpload, other: LiveUpload) -> bool:
    """Return whether *other* can be a further request of *upload*."""
    if upload.is_ended or upload.protocol is None or upload.protocol != other.protocol:
        return False
    if upload.prior_state is PriorState.OTHER and not is_same_session(
        other.session, upload.session
    ):
        return False
    # A request that was refused may have shown that there is such a session.
    has_session = upload.held_series.is_refused and is_same_session(other.session, upload.session)
    if upload.is_superseded and not has_session:
        return False
    if upload.has_ended_elsewhere or upload.opened_by.is_stopped:
        return belonging.belongs_to_stored_end(other, upload)
    if upload.is_completed_by_request and not belonging.belongs_to_ended(
        other, UploadState.CANCELLED, upload.session
    ):
        return False
    return not _is_replaced_by(upload, other)


def _is_replaced_by(upload: LiveUpload, other: LiveUpload) -> bool:
    """Return whether *other* is another upload under the same id.

    Its request creates one, goes to another address, announces another size, or sends from the
    start what the application has.
    """
    transfer, is_newer = other.opened_by, other.number > upload.newest_number
    head, total_bytes = transfer.head, other.meter.total_bytes
    is_same = is_same_session(other.session, upload.session)
    if is_same is not None:
        return not is_same
    if belonging.is_fresh_creation(transfer):
        return is_newer or other.resource_id != upload.resource_id
    if head is None or head.resource_is_unique or not head.carries_bytes:
        return False
    known = upload.meter.total_bytes
    if known is not None and total_bytes is not None and known != total_bytes:
        return True
    if upload.state is not UploadState.PAUSED or not is_newer:
        return False
    return belonging.is_new_beginning(head, upload.all_ranges())


def merge(upload: LiveUpload, other: LiveUpload) -> None:
    """Let *upload* take over the request of *other*, which is the same upload."""
    transfer, phase = other.opened_by, other.opened_by.phase
    series, added = upload.held_series, other.held_series
    other.merged_into = upload
    upload.newest_number = max(upload.newest_number, other.number)
    series.completes_at_total |= added.completes_at_total
    if not belonging.belongs_to_ended(other, UploadState.CANCELLED):
        series.begun_by, upload.begun_at = transfer, other.begun_at
    _merge_description(upload, other)
    series.learn_session(added.session)
    _leave_created(upload, other)
    if upload.is_superseded:
        # It was refused: of the upload that it is part of now, nothing has been loaded.
        upload.reporting, upload.prior_state = Reporting.CURRENT, PriorState.UNKNOWN
    transfer.start = None
    has_changed_since = (
        added.idle_since < series.idle_since or other.idle_at < series.loaded_version_at
    )
    transfer.is_outdated = phase is TransferPhase.ENDED and has_changed_since
    upload.transfers = (*upload.transfers, transfer)
    if other.current_stage is not None:
        upload.current_stage = other.current_stage
    if other.started_at is not None:
        upload.begin_receiving()
    for part, size_bytes in added.ranges.part_sizes():
        series.ranges.add_part_size(part, size_bytes)
    if phase is TransferPhase.ENDED:
        _end_as_before(upload, other)
    upload.mark_due()


def _leave_created(upload: LiveUpload, other: LiveUpload) -> None:
    """Let further requests of what *other* has created, and that is over, begin nothing."""
    is_another = is_same_session(other.session, upload.session) is False
    if is_another and belonging.is_fresh_creation(other.opened_by):
        upload.held_series.former_sessions |= {(other.session or "").lstrip(".")}


def _merge_description(upload: LiveUpload, other: LiveUpload) -> None:
    for name in DESCRIPTION:
        announced = getattr(other, name)
        is_better = name in other.set_by_app or getattr(upload, name) is None
        if announced is not None and is_better:
            setattr(upload, name, announced)
    upload.set_by_app |= other.set_by_app
    if upload.is_failed_creation and not upload.held_series.exists:
        # The request that was refused may have announced another size.
        upload.meter.total_bytes = None
    if other.meter.total_bytes is not None:
        upload.held_series.set_total(other.meter.total_bytes)


def _end_as_before(upload: LiveUpload, other: LiveUpload) -> None:
    """End the request of *other*, at the time at which it ended before its owner was known."""
    idle_since = max(upload.held_series.idle_since, other.held_series.idle_since)
    outcomes.end_transfer(upload, other.opened_by, other.opened_by.outcome)
    upload.held_series.idle_since = idle_since
    if upload.is_ended:
        upload.finished_at = upload.idle_at


def absorb(upload: LiveUpload, late: LiveUpload) -> None:
    """Let a request after the end change nothing; stop it if the owner has cancelled.

    Nor does an upload in one request change the newer one.
    """
    if late.series is not None:
        late.merged_into = upload
        _leave_created(upload, late)
    transfer = late.opened_by
    if upload.error == CANCELLED and transfer.phase is not TransferPhase.ENDED:
        transfer.stop()
