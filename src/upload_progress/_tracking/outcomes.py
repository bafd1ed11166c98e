"""How requests end, and what that means for their upload.

A request ends by the response of the application, an exception, a cancelled task or a client that
disconnects. For an upload in one request that is its end. For an upload in several requests, the
response says which bytes the application has; whether the upload is complete, has failed or goes on
follows from all of them.
"""

from typing import Final

from upload_progress._model.models import UploadError, UploadState
from upload_progress._model.state import (
    ABANDONED,
    ABORTED,
    DISCONNECTED,
    RAISED,
    TASK_STOPPED,
    Signal,
    result_of,
)
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import CONTINUES, Transfer, TransferPhase
from upload_progress._tracking.status import PriorState
from upload_progress.protocols import (
    Headers,
    TransferKind,
    TransferOutcome,
    TransferResult,
    is_success,
    upload_id_for,
)

__all__ = [
    "STORED_WITHIN_SECONDS",
    "app_cancelled",
    "app_raised",
    "client_disconnected",
    "decide",
    "end_transfer",
    "finish",
    "is_undecided",
    "read_response",
]

STORED_WITHIN_SECONDS: Final = 0.5
"""How long after a request the record that another worker has of its upload may not be stored."""
_ERROR_AFTER_SUCCESS: Final = "The server reported an error in the body of its response."
_CONCERN_OTHERS: Final = frozenset({TransferKind.COMPLETE, TransferKind.QUERY})
"""Requests that say something about bytes which others have brought."""


def finish(upload: LiveUpload, status: int | None, transfer: Transfer | None = None) -> None:
    """End a transfer by the response of the application, or without HTTP (*status* None)."""
    transfer = transfer or upload.opened_by
    if upload.series is not None and status is not None:
        if transfer in upload.transfers:
            end_transfer(upload, transfer, transfer.final_outcome(status))
        return
    has_whole_body = upload.state is UploadState.PROCESSING
    signal, error = result_of(
        status, transfer.failure_message, has_whole_body=has_whole_body, reason=transfer.reason
    )
    if signal is Signal.REDIRECT:
        upload.redirect(transfer)
    else:
        upload.end(signal, error)


def app_raised(upload: LiveUpload, transfer: Transfer | None = None) -> None:
    """End a transfer by an exception of the application, which keeps none of its bytes.

    The text of the exception is left to the server's log. In several requests the client may try
    again. An exception after the response changes nothing.
    """
    transfer = transfer or upload.opened_by
    if upload.series is not None:
        if transfer in upload.transfers:
            transfer.status = None
            end_transfer(upload, transfer, TransferOutcome(TransferResult.REFUSED))
    elif transfer.failure_message is None:
        upload.end(Signal.RAISE, RAISED)
    else:
        finish(upload, None, transfer)


def app_cancelled(upload: LiveUpload, transfer: Transfer | None = None) -> None:
    """End a transfer because the server cancelled the task of the application.

    In several requests it counts as a broken connection: the application has not refused it.
    """
    if upload.series is not None:
        end_transfer(upload, transfer or upload.opened_by, None)
    elif upload.hand_over is not None:
        upload.end(Signal.RAISE, TASK_STOPPED)
    else:
        upload.end(Signal.CANCEL, ABORTED)


def client_disconnected(upload: LiveUpload, transfer: Transfer | None = None) -> None:
    """End a transfer by the client's disconnect; after the last byte this changes nothing."""
    transfer = transfer or upload.opened_by
    if upload.series is None:
        upload.end(Signal.DISCONNECT, DISCONNECTED)
    elif transfer.phase in {TransferPhase.OPEN, TransferPhase.RECEIVING}:
        end_transfer(upload, transfer, None)


# An upload in several requests


def read_response(upload: LiveUpload, transfer: Transfer, status: int, headers: Headers) -> bool:
    """Read the head of the response; return whether it is the first to tell of the upload."""
    resource, head = transfer.read_response(status, headers), transfer.head
    _follow_response(upload, transfer)
    if transfer.kind is TransferKind.QUERY:
        return not transfer.is_refused
    if resource is None or head is None:
        return False
    upload.held_series.learn_session(transfer.session)
    _bind_resource(upload, upload_id_for(head, resource), transfer)
    if transfer.names_upload and head.part_total_bytes is not None:
        upload.held_series.ranges.add_part_size(transfer.part, head.part_total_bytes)
        upload.mark_due()
    return True


def _follow_response(upload: LiveUpload, transfer: Transfer) -> None:
    """Track an upload that has waited for a response which accepts its request."""
    follow, upload.on_response = upload.on_response, None
    if follow is not None:
        follow(transfer.outcome is not None and not transfer.is_refused)


def _bind_resource(upload: LiveUpload, resource_id: str, transfer: Transfer) -> None:
    """Let further requests of the owner to the resource belong to this upload."""
    upload.held_series.resource_id = resource_id
    if upload.is_tracked and upload.owner is not None:
        upload.context.remember_resource(upload.owner, resource_id, upload.upload_id)
    elif not transfer.names_upload:
        upload.upload_id = resource_id
        upload.prior_state = PriorState.UNKNOWN


def end_transfer(upload: LiveUpload, transfer: Transfer, outcome: TransferOutcome | None) -> None:
    """Record the outcome of *transfer*; None if it broke off without a response."""
    if transfer not in upload.transfers:
        return
    upload.remove(transfer)
    now, series = upload.context.now(), upload.held_series
    transfer.outcome = outcome
    transfer.ended_at = transfer.ended_at or now.wall
    _follow_response(upload, transfer)
    series.finished_bytes += transfer.meter.received_bytes
    series.idle_since = now.monotonic
    _add_outcome(upload, transfer)
    _change_state(upload, transfer)
    is_query = transfer.kind is TransferKind.QUERY
    if transfer.result in CONTINUES and not (is_query and upload.started_at is None):
        series.exists = True
    decide(upload)
    upload.mark_due()


def _add_outcome(upload: LiveUpload, transfer: Transfer) -> None:
    """Add the bytes that the application has, and count those of no use as repeated."""
    ranges, outcome, gained = upload.held_series.ranges, transfer.outcome, 0
    kept = transfer.kept_range(upload.place(transfer))
    if kept is not None:
        part, start, stop, is_accepted = kept
        microseconds = round(1_000_000 * (transfer.ended_at or 0.0))
        gained = ranges.add(part, start, stop, is_accepted=is_accepted, microseconds=microseconds)
        if transfer.replaces_part and not ranges.has_number(part):
            ranges.accept_until(part, stop)
    upload.held_series.repeated_bytes += max(0, transfer.content_bytes - gained)
    head = transfer.head
    if head is not None and head.is_sequential and transfer.is_accepted and head.offset:
        # Such a server accepts bytes only at the end of those that it has.
        ranges.confirm(transfer.part, head.offset)
    if outcome is not None and outcome.offset is not None and head is not None:
        is_exact = head.is_sequential or not ranges.has_unconfirmed(transfer.part)
        if is_exact and not transfer.is_outdated:
            # It has these bytes and no others.
            ranges.accept_until(transfer.part, outcome.offset)
        ranges.confirm(transfer.part, outcome.offset)
    asks_for_part = transfer.kind is TransferKind.QUERY and upload.is_divided
    if outcome is not None and outcome.total_bytes is not None and not asks_for_part:
        upload.held_series.set_total(outcome.total_bytes)
    upload.meter.received_bytes = upload.count_received()


def _change_state(upload: LiveUpload, transfer: Transfer) -> None:
    """Change the state by the outcome of *transfer*, as far as it says it alone."""
    kind, result, series = transfer.kind, transfer.result, upload.held_series
    if kind is TransferKind.QUERY and result is not TransferResult.COMPLETED:
        _answer_query(upload, transfer)
        return
    before = series.undecided
    is_kept = before is not None and (
        before.is_accepted
        or before.result is TransferResult.ABORTED
        or (before.is_rejected and transfer.is_refused)
    )
    if not is_kept and (transfer.is_refused or upload.has_prior_state):
        series.undecided = transfer if transfer.is_refused else None
    if transfer.failure_message is not None:
        upload.end(*result_of(None, transfer.failure_message, has_whole_body=False))
    elif result is TransferResult.COMPLETED:
        if kind in _CONCERN_OTHERS and not (series.exists or upload.transfers):
            series.undecided = transfer
        else:
            _complete(upload, transfer)
    elif result is TransferResult.ABORTED:
        series.undecided = transfer
    elif transfer.outcome is None and kind is TransferKind.CREATE:
        if not upload.end(Signal.DISCONNECT, DISCONNECTED):
            upload.end(Signal.RAISE, ABORTED)
    elif result not in CONTINUES or upload.state is UploadState.PROCESSING:
        upload.pause()


def decide(upload: LiveUpload) -> None:
    """Complete an upload that is whole, fail or drop one that was refused."""
    series = upload.held_series
    last = series.undecided
    if upload.is_ended or upload.has_ended_elsewhere:
        return
    if (last is None or series.exists) and upload.is_whole:
        if not upload.transfers:
            _complete(upload, None)
    elif last is None:
        return
    elif last.result is TransferResult.ABORTED:
        _abandon(upload)
    elif series.exists or (upload.transfers and last.concerns_parts):
        if last.is_rejected:
            _reject(upload, last)
        elif last.result is TransferResult.COMPLETED and series.exists:
            _complete(upload, None)
    elif upload.has_prior_state and not upload.transfers:
        _decide_unknown(upload, last)


def _decide_unknown(upload: LiveUpload, last: Transfer) -> None:
    """Decide about an upload of which the application had accepted nothing before *last*."""
    is_lost = last.kind is TransferKind.CREATE and not last.names_upload
    is_over = upload.is_reported and (last.is_rejected or is_lost)
    if _may_be_stored_soon(upload):
        upload.prior_state = PriorState.UNKNOWN
        return
    # An attempt after one that has ended does not bring that one back.
    head = upload.opened_by.head
    is_first = last.kind is TransferKind.CREATE or (head and not head.resource_is_unique)
    is_next = upload.attempt > 1 and last.kind is not TransferKind.QUERY and is_first
    is_known = upload.is_reported or upload.newest_number != upload.number
    if last.is_accepted and is_known:
        _complete(upload, None)
    elif last.fails_new_upload or (last.is_refused and (is_over or is_next)):
        _reject(upload, last)
    elif not upload.is_reported:
        # The request has created no upload.
        upload.supersede()


def _may_be_stored_soon(upload: LiveUpload) -> bool:
    """Return whether another worker may have created the upload, and not stored it yet."""
    head = upload.opened_by.head
    if head is None or head.kind is TransferKind.CREATE:
        return False
    if not (head.resource_is_unique or head.offset):
        # It is the first request.
        return False
    passed = upload.context.config.clock.monotonic() - upload.held_series.idle_since
    return not upload.is_reported and passed < STORED_WITHIN_SECONDS


def is_undecided(upload: LiveUpload) -> bool:
    """Return whether it is not known yet if the only request belongs to an upload, or to which."""
    if upload.prior_state is PriorState.OTHER:
        return not upload.is_superseded
    series = upload.series
    if series is None or series.undecided is None or upload.has_prior_state or upload.transfers:
        return False
    return _may_be_stored_soon(upload)


def _abandon(upload: LiveUpload) -> None:
    """End because the client gave the upload up, once it is known that it was not whole."""
    if upload.has_prior_state:
        upload.begin_receiving()
        upload.end(Signal.CANCEL, ABANDONED)


def _reject(upload: LiveUpload, transfer: Transfer) -> None:
    """End by the response to *transfer*, or by the exception that was raised instead."""
    upload.held_series.undecided = None
    upload.begin_receiving()
    signal, error = _rejection_of(transfer)
    if signal is Signal.REDIRECT:
        upload.redirect(transfer)
    else:
        upload.end(signal, error)
        upload.finished_at = upload.idle_at


def _complete(upload: LiveUpload, transfer: Transfer | None) -> None:
    """Complete the upload.

    Args:
        upload: The upload.
        transfer: The request whose response says so; None if that follows from the bytes. The
            application has all bytes, unless it says so before the last one has arrived.
    """
    head, total = None if transfer is None else transfer.head, upload.meter.total_bytes
    if total is not None and upload.held_series.ranges.accepted_bytes > total:
        total = upload.meter.total_bytes = None
    if total is not None and (head is None or head.is_last or head.kind in _CONCERN_OTHERS):
        upload.held_series.confirm_all(total, upload.prior_records)
    upload.begin_receiving()
    upload.end(Signal.ACCEPT, None)
    if transfer is None:
        stored_at = (record.updated_at for record in upload.prior_records)
        upload.finished_at = max([upload.idle_at, *stored_at])


def _answer_query(upload: LiveUpload, transfer: Transfer) -> None:
    """Learn the name, and that the upload exists, from the answer to a request that only asks.

    An upload of which nothing is missing needs no report: its end was reported, or is unknown.
    """
    outcome, series = transfer.outcome, upload.held_series
    if outcome is None or outcome.result is not TransferResult.ACCEPTED:
        series.undecided = series.undecided or transfer
        return
    upload.filename = upload.filename or outcome.filename
    upload.content_type = upload.content_type or outcome.content_type
    is_open = outcome.offset is not None and outcome.offset != upload.meter.total_bytes
    if is_open and upload.state is UploadState.PENDING:
        upload.begin_receiving()
        upload.pause()
    elif not (is_open or series.exists):
        series.undecided = transfer


def _rejection_of(transfer: Transfer) -> tuple[Signal, UploadError | None]:
    """Return the end by a response that rejects, or by an exception instead of a response."""
    status = transfer.status
    if status is None:
        return Signal.RAISE, RAISED
    message = _ERROR_AFTER_SUCCESS if is_success(status) else None
    return result_of(status, message, has_whole_body=False, reason=transfer.reason)
