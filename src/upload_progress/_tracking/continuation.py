"""How a live upload continues, follows or supersedes another upload of the same id.

The other one may be live in this process, or known by the records that other workers have stored.
It may be an announcement, an earlier attempt, an older upload of the same id, or the same upload in
several requests.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Final

from attrs import evolve

from upload_progress._model.byte_ranges import contiguous_end, count_accepted
from upload_progress._model.fold import accepted_bytes, fold, is_same_session, newest
from upload_progress._model.models import (
    ByteRange,
    ErrorCode,
    TransferRecord,
    UploadProgress,
    UploadState,
    without_store_times,
)
from upload_progress._model.state import (
    CANCELLED,
    INFERRED_CODES,
    RUNNING_STATES,
    is_final,
)
from upload_progress._model.version import SKIPPED_VERSIONS
from upload_progress._tracking.hand_over import next_attempt
from upload_progress._tracking.live_record import current_snapshot, record_of, records_with
from upload_progress._tracking.live_upload import DESCRIPTION, LiveUpload
from upload_progress._tracking.status import TO_BE_COMPARED, PriorState, Reporting
from upload_progress._tracking.transfer import Transfer, TransferPhase
from upload_progress.protocols import TransferHead, TransferKind

__all__ = [
    "LATE_SECONDS",
    "absorb",
    "belongs_to_ended",
    "belongs_to_stored_end",
    "can_merge",
    "follow_cancel",
    "follow_refusal",
    "has_begun_before",
    "is_fresh_creation",
    "is_inferred",
    "is_of_former_session",
    "is_older_than",
    "load_prior_state",
    "merge",
    "overrule",
    "overruled",
    "precedes_cancel",
    "precedes_end",
    "start_after",
    "update_from_store",
]

LATE_SECONDS: Final = 0.05
"""How much later than its beginning the owner of an upload is known, if it is called late."""
_REFUSALS: Final = frozenset({ErrorCode.APP_ERROR, ErrorCode.REJECTED})
_COMPLETED_BY_OTHER_SECONDS: Final = 0.25
_MAX_FORMER_SESSIONS: Final = 50
"""How many sessions and parts of replaced uploads are known."""


def can_merge(upload: LiveUpload, other: LiveUpload) -> bool:
    """Return whether *other* can be a further request of *upload*."""
    if upload.is_ended or upload.protocol is None or upload.protocol != other.protocol:
        return False
    # A request that was refused may have shown that there is such a session.
    has_session = upload.is_refused and is_same_session(other.session, upload.session)
    if upload.is_superseded and not has_session:
        return False
    if upload.has_ended_elsewhere or upload.opened_by.is_stopped:
        return belongs_to_stored_end(other, upload)
    if upload.is_completed_by_request and not belongs_to_ended(
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
    if is_fresh_creation(transfer):
        return is_newer or other.resource_id != upload.resource_id
    if head is None or head.resource_is_unique or not head.carries_bytes:
        return False
    known = upload.meter.total_bytes
    if known is not None and total_bytes is not None and known != total_bytes:
        return True
    if upload.state is not UploadState.PAUSED or not is_newer:
        return False
    return _is_new_beginning(head, upload.all_ranges())


def merge(upload: LiveUpload, other: LiveUpload) -> None:
    """Let *upload* take over the request of *other*, which is the same upload."""
    transfer, phase = other.opened_by, other.opened_by.phase
    other.merged_into = upload
    upload.newest_number = max(upload.newest_number, other.number)
    upload.completes_at_total |= other.completes_at_total
    if not belongs_to_ended(other, UploadState.CANCELLED):
        upload.begun_by, upload.begun_at = transfer, other.begun_at
    _merge_description(upload, other)
    upload.learn_session(other.session)
    _leave_created(upload, other)
    if upload.is_superseded:
        # It was refused: of the upload that it is part of now, nothing has been loaded.
        upload.reporting, upload.prior_state = Reporting.CURRENT, PriorState.UNKNOWN
    transfer.start = None
    has_changed_since = (
        other.idle_since < upload.idle_since or other.idle_at < upload.loaded_version_at
    )
    transfer.is_outdated = phase is TransferPhase.ENDED and has_changed_since
    upload.transfers = (*upload.transfers, transfer)
    if other.current_stage is not None:
        upload.current_stage = other.current_stage
    if other.started_at is not None:
        upload.begin_receiving()
    for part, size_bytes in other.held_ranges.part_sizes():
        upload.held_ranges.add_part_size(part, size_bytes)
    if phase is TransferPhase.ENDED:
        _end_as_before(upload, other)
    upload.mark_due()


def _leave_created(upload: LiveUpload, other: LiveUpload) -> None:
    """Let further requests of what *other* has created, and that is over, begin nothing."""
    is_another = is_same_session(other.session, upload.session) is False
    if is_another and is_fresh_creation(other.opened_by):
        upload.former_sessions |= {(other.session or "").lstrip(".")}


def _merge_description(upload: LiveUpload, other: LiveUpload) -> None:
    for name in DESCRIPTION:
        announced = getattr(other, name)
        is_better = name in other.set_by_app or getattr(upload, name) is None
        if announced is not None and is_better:
            setattr(upload, name, announced)
    upload.set_by_app |= other.set_by_app
    if upload.is_failed_creation and not upload.exists:
        # The request that was refused may have announced another size.
        upload.meter.total_bytes = None
    if other.meter.total_bytes is not None:
        upload.set_total(other.meter.total_bytes)


def _end_as_before(upload: LiveUpload, other: LiveUpload) -> None:
    """End the request of *other*, at the time at which it ended before its owner was known."""
    idle_since = max(upload.idle_since, other.idle_since)
    upload.end_transfer(other.opened_by, other.opened_by.outcome)
    upload.idle_since = idle_since
    if upload.is_ended:
        upload.finished_at = upload.idle_at


def load_prior_state(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Continue from what the store has: an announcement, another worker, an earlier attempt."""
    stored = [*records, *upload.preceding]
    if upload.prior_state is PriorState.UNKNOWN:
        upload.prior_state = PriorState.LOADED
        before = fold(stored, now=upload.context.config.clock.time())
        if before is not None and upload.ranges is None:
            _continue_plain(upload, stored, before)
        elif before is not None:
            _continue_in_several_requests(upload, stored, before)
    elif upload.prior_state in TO_BE_COMPARED and upload.ranges is None:
        is_first = upload.prior_state is PriorState.LOADED and not _is_end_stored(upload, stored)
        upload.prior_state = PriorState.COMPARED if is_first else PriorState.CONFIRMED
        _compare_with_others(upload, stored)
    if upload.ranges is not None:
        upload.decide()


def _continue_plain(
    upload: LiveUpload, stored: list[TransferRecord], before: UploadProgress
) -> None:
    if _is_older_than(upload, before.started_at):
        upload.supersede()
        return
    has_ended = _has_ended_before(upload, _time_of(before.finished_at))
    if before.error == CANCELLED and _is_older_than(upload, before.finished_at) and not has_ended:
        # The request had begun when the owner has cancelled.
        upload.supersede()
        upload.opened_by.stop()
        return
    # Only an announcement is part of this attempt: it has no transfer.
    if before.started_at is not None or is_final(before.state):
        _supersede_records(upload, newest(stored), before)
    elif before.attempt < upload.attempt:
        upload.sequence += before.sequence + 1
        _inherit_description(upload, before)
    else:
        upload.attempt = before.attempt
        upload.prior_records = tuple(newest(stored))
        for name in DESCRIPTION:
            announced = getattr(before, name)
            if announced is not None and name not in upload.set_by_app:
                setattr(upload, name, announced)
        if upload.meter.total_bytes is None:
            upload.meter.total_bytes = before.total_bytes


def _is_older_than(upload: LiveUpload, moment: datetime | None) -> bool:
    """Return whether an upload, whose owner was known late, has begun before *moment*.

    Otherwise all that is known of other uploads has happened before, whatever the clocks say.
    """
    if not upload.is_late or moment is None or upload.started_at is None:
        return False
    return upload.started_at < moment.timestamp()


def _supersede_records(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> None:
    """Become the next attempt, whether the one before has ended or another worker has it."""
    upload.attempt = max(upload.attempt, before.attempt + 1)
    upload.sequence += before.sequence + 1
    _leave_session(upload, records)
    _inherit_description(upload, before)
    running = (each.worker for each in records if each.state in RUNNING_STATES)
    workers = frozenset(worker for worker in running if worker not in {None, upload.worker})
    if workers:
        upload.sequence += SKIPPED_VERSIONS
        upload.context.on_superseding(upload, workers)


def _compare_with_others(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Look once more, after the own record was stored: two workers may have begun at once.

    The newer one is the next attempt.
    """
    others = [
        each
        for each in records
        if each.transfer_id != upload.transfer_id and each.started_at and each.protocol is None
    ]
    attempt = max((each.attempt for each in others), default=0)
    if attempt < upload.attempt:
        return
    rivals = [each for each in others if each.attempt == attempt]
    own = (upload.started_at or 0.0, upload.transfer_id)
    if attempt > upload.attempt or any(own < _begun(each) for each in rivals):
        upload.supersede()
        return
    before = fold(rivals, now=upload.context.config.clock.time())
    assert before is not None  # noqa: S101  # there is a record
    _supersede_records(upload, rivals, before)
    # The older one's worker may have begun the next attempt as well.
    upload.prior_state = PriorState.LOADED
    upload.prior_records = ()
    upload.reporting = Reporting.CURRENT
    upload.mark_due()


def _is_end_stored(upload: LiveUpload, records: Iterable[TransferRecord]) -> bool:
    return any(is_final(each.state) for each in records if each.transfer_id == upload.transfer_id)


def _begun(record: TransferRecord) -> tuple[float, str]:
    return (record.started_at or 0.0, record.transfer_id)


def follow_refusal(
    upload: LiveUpload, written: TransferRecord, records: Iterable[TransferRecord]
) -> bool:
    """Go on after the store has refused a version of *upload*; return whether it had changed there.

    Another worker has ended it, because this worker seemed dead: then the upload is the next
    attempt, as nothing follows the end of an attempt. Or a newer upload has its id.

    Args:
        upload: The upload.
        written: The version that the store has refused.
        records: What the store has of the upload.
    """
    stored = list(records)
    if any(each.attempt > written.attempt for each in stored):
        upload.supersede()
        return True
    own = next((each for each in stored if each.transfer_id == written.transfer_id), None)
    if own is None or without_store_times(own) == written:
        return False  # It was saved by a call that seemed to have failed.
    if is_inferred(own):
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


def _inherit_description(upload: LiveUpload, before: UploadProgress) -> None:
    """Keep the description of the attempt before, except for what this one announces."""
    if upload.has_path_name and "filename" not in upload.set_by_app:
        upload.filename = before.filename or upload.filename
    for name in DESCRIPTION:
        if getattr(upload, name) is None:
            setattr(upload, name, getattr(before, name))
    head = upload.opened_by.head
    is_announced_again = head is not None and (
        head.resource_is_unique or not head.completes_at_total
    )
    if upload.meter.total_bytes is None and not is_announced_again:
        # Else the creation, or the response to the last request, tells the size of this one.
        upload.meter.total_bytes = before.total_bytes
        upload.has_inherited_total = before.total_bytes is not None


def _continue_in_several_requests(
    upload: LiveUpload, stored: list[TransferRecord], before: UploadProgress
) -> None:
    """Continue this worker's stored record, and learn those of other workers."""
    current = newest(stored)
    if _is_over(current, before):
        _follow_ended(upload, current, before)
        return
    ends = [each.previous_ended_at for each in current if each.previous_ended_at is not None]
    upload.previous_ended_at = max(ends, default=None)
    upload.former_sessions |= {each for record in current for each in record.former_sessions}
    is_earlier = _is_of_earlier_attempt(upload, current, before)
    if is_earlier or (upload.is_late and _has_created_no_part_of(upload, current)):
        upload.supersede()
        return
    is_other = any(each.started_at and each.protocol != upload.protocol for each in current)
    if is_other or _replaces_session(upload, current, before):
        _supersede_records(upload, current, before)
        return
    upload.attempt = before.attempt
    for record in current:
        if record.transfer_id == upload.transfer_id:
            _continue_record(upload, record)
    upload.exists = True
    if before.total_bytes is not None:
        upload.set_total(before.total_bytes)
    _learn_of_others(upload, stored)


def _has_created_no_part_of(upload: LiveUpload, records: Sequence[TransferRecord]) -> bool:
    """Return whether its request is a creation that has not created the upload of *records*.

    It was refused. Or it is older and was the whole upload, or another one is in progress that
    creates the upload.
    """
    if upload.is_failed_creation:
        return True
    transfer = upload.opened_by
    has_ended = is_fresh_creation(transfer) and transfer.phase is TransferPhase.ENDED
    if not has_ended or _is_newer_creation(upload, records):
        return False
    is_in_progress = any(each.state in RUNNING_STATES for each in records)
    return upload.session is None or (is_in_progress and _session_of(records) is None)


def _is_over(records: Iterable[TransferRecord], shown: UploadProgress) -> bool:
    """Return whether no request can continue an upload: it has ended, or was handed over."""
    return is_final(shown.state) or any(each.hand_over is not None for each in records)


def _session_of(records: Iterable[TransferRecord]) -> str | None:
    """Return the session of records that belong together: if one is certain, that one."""
    known = [each.session for each in records if each.session is not None]
    return min(known, key=lambda each: each.startswith("."), default=None)


def _is_of_earlier_attempt(
    upload: LiveUpload, records: Iterable[TransferRecord], newest_attempt: UploadProgress
) -> bool:
    """Return whether a request, whose owner is known late, had begun before the newest attempt.

    If the attempt before had ended by then, the request has begun the newest one.
    """
    if is_of_former_session(upload, upload):
        return True
    session = _session_of(records)
    is_same = is_same_session(upload.session, session)
    if is_same is not None:
        return not is_same and _begins_nothing(upload, newest_attempt.created_at.timestamp())
    # A creation that is not answered yet has no session, and no client can send pieces to it.
    is_answered = session is not None or upload.session is None
    is_creation = upload.opened_by.kind is TransferKind.CREATE
    if is_creation or (newest_attempt.attempt == 1 and is_answered):
        return False
    if upload.previous_ended_at is not None and upload.previous_ended_at <= upload.created_at:
        return False
    return _precedes(upload, newest_attempt.created_at.timestamp())


def _replaces_session(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> bool:
    """Return whether the request begins another upload, see ``_is_replaced_by``."""
    head, total = upload.opened_by.head, upload.meter.total_bytes
    is_same = is_same_session(upload.session, _session_of(records))
    if is_same is not None:
        return not is_same
    if head is None or head.kind is TransferKind.CREATE:
        return _is_newer_creation(upload, records)
    if head.resource_is_unique or not head.carries_bytes:
        return False
    if total is not None and before.total_bytes is not None and total != before.total_bytes:
        return True
    is_earlier = upload.is_late and upload.created_at < before.created_at.timestamp()
    if before.state is not UploadState.PAUSED or is_earlier:
        return False
    return _is_new_beginning(head, [each for record in records for each in record.byte_ranges])


def _is_newer_creation(upload: LiveUpload, records: Sequence[TransferRecord]) -> bool:
    """Return whether its request creates another upload than that of *records*.

    A creation whose owner is known late may be that of the same upload.
    """
    if not is_fresh_creation(upload.opened_by):
        return False
    if is_same_session(upload.session, _session_of(records)):
        return False
    sessions = [record.created_at for record in records if record.protocol is not None]
    return bool(sessions) and not (upload.is_late and upload.created_at < min(sessions))


def _continue_record(upload: LiveUpload, record: TransferRecord) -> None:
    upload.sequence += record.sequence
    upload.learn_session(record.session)
    upload.loaded_version_at = record.idle_at or record.updated_at
    if upload.idle_at < upload.loaded_version_at:
        # The owner was known late: what the responses have said of the bytes is outdated.
        upload.held_ranges.forget_ends()
    upload.held_ranges.load(record.byte_ranges, record.confirmed_bytes)
    upload.repeated_bytes += record.retransmitted_bytes
    upload.created_at = min(upload.created_at, record.created_at)
    upload.started_at = record.started_at or upload.started_at
    if upload.state is UploadState.PENDING and upload.started_at is not None:
        upload.state = UploadState.PAUSED
    for name in DESCRIPTION:
        stored = getattr(record, name)
        if stored is not None and name not in upload.set_by_app:
            setattr(upload, name, stored)
    upload.set_by_app |= frozenset(record.set_by_app)
    if upload.opened_by.kind is TransferKind.QUERY and upload.is_divided:
        # The answer has told the size of a part.
        upload.meter.total_bytes = None


def belongs_to_ended(upload: LiveUpload, state: UploadState, session: str | None = None) -> bool:
    """Return whether its request belongs to an upload that has ended.

    A resource of its own is never used for another upload. At another resource, a request that
    does not begin at the start belongs to an upload before it, and may resume a failed one.

    Args:
        upload: The upload of the request.
        state: The state in which that upload has ended.
        session: The session of that upload; None if not known.
    """
    head = upload.begun_by.head
    if head is None:
        return False
    if head.kind is TransferKind.QUERY:
        return True
    is_creation = upload.begun_by.names_upload and head.kind is TransferKind.CREATE
    is_same = is_same_session(upload.session, session)
    if is_creation and (is_same is None or head.part_total_bytes is not None):
        return False
    if is_same is not None:
        return is_same
    if head.resource_is_unique:
        # An upload that has ended before it had an address has no further requests. When the owner
        # cancels, the address may be on its way to the client.
        has_address = session is not None or upload.session is None
        return has_address or state is UploadState.CANCELLED
    return state is not UploadState.FAILED and bool(head.offset)


def belongs_to_stored_end(upload: LiveUpload, ended: LiveUpload) -> bool:
    """Return whether its request belongs to *ended*, which has ended elsewhere or is stopped."""
    is_cancelled = any(each.error == CANCELLED for each in ended.prior_records)
    is_other = is_same_session(upload.session, ended.session) is False
    if is_other and not (is_cancelled or ended.opened_by.is_stopped):
        return _precedes(upload, ended.created_at)
    ended_at = max((each.finished_at or 0.0 for each in ended.prior_records), default=None)
    is_late = _precedes(upload, ended_at)
    return is_late or belongs_to_ended(upload, UploadState.CANCELLED, ended.session)


def _follow_ended(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> None:
    """Start the next attempt after one that has ended; a late request starts none."""
    finished_at = _time_of(before.finished_at)
    # A creation that had begun before the owner has cancelled is cancelled with the others.
    is_newer = before.error != CANCELLED and _is_newer_creation(upload, records)
    session = _session_of(records)
    if before.error != CANCELLED and is_same_session(upload.session, session) is False:
        finished_at = before.created_at.timestamp()
    is_late = _precedes(upload, finished_at) and not is_newer
    is_former = _is_in(upload.session, {each for one in records for each in one.former_sessions})
    if is_former or belongs_to_ended(upload, before.state, session) or is_late:
        _end_elsewhere(upload, records, before)
    else:
        _begin_after(upload, records, before)


def _leave_session(upload: LiveUpload, records: Sequence[TransferRecord]) -> None:
    """Let requests of an upload before, which this one replaces, be none of this one."""
    head = upload.opened_by.head
    if head is None or not head.resource_is_unique or head.part_total_bytes is not None:
        return
    parts = {part for record in records for part, *_ in record.byte_ranges if part[:1] == "."}
    names = sorted(parts | {each.session for each in records if each.session is not None})
    before = (each for record in records for each in record.former_sessions)
    former = [each.lstrip(".") for each in (*names, *before)][:_MAX_FORMER_SESSIONS]
    upload.former_sessions = frozenset(former) - {(upload.session or "").lstrip(".")}


def _time_of(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _begin_after(
    upload: LiveUpload, records: Sequence[TransferRecord], before: UploadProgress
) -> None:
    """Start the next attempt; a client that continues an upload sends only the rest."""
    head = upload.opened_by.head
    offset = 0 if head is None else head.offset or 0
    upload.attempt = before.attempt + 1
    upload.sequence += before.sequence + 1
    upload.previous_ended_at = _time_of(before.finished_at)
    _leave_session(upload, records)
    _inherit_description(upload, before)
    is_address_used_again = head is not None and not head.resource_is_unique
    if is_address_used_again and offset <= _accepted_end(records, before):
        upload.held_ranges.confirm("", offset)


def _accepted_end(records: Iterable[TransferRecord], before: UploadProgress) -> int:
    """Return up to which byte the application has the attempt before.

    Of one request that broke off, the application has neither accepted nor refused anything: it
    accepts the rest only if it has the bytes before. What it has rejected, it need not have kept.
    """
    if before.error is not None and before.error.code in _REFUSALS:
        return 0
    current = newest(records)
    plain = sum(each.received_bytes for each in current if each.protocol is None)
    return max(plain, accepted_bytes(current))


def _end_elsewhere(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> None:
    """Change nothing of an upload that has ended; stop the requests of a cancelled one.

    Bytes that the application accepted here before the end, and that are not stored yet, are
    still to be counted.
    """
    upload.prior_state = PriorState.ENDED
    upload.attempt = before.attempt
    upload.prior_records = tuple(records)
    stored = [each for record in records for each in record.byte_ranges]
    own = upload.held_ranges.entries()
    # A failure is the last version; a completion without a known size needs all bytes.
    has_size = any(record.total_bytes is not None for record in records)
    # What was known only after the end changes nothing.
    needs_bytes = before.state is UploadState.COMPLETED and not (has_size or upload.is_late)
    upload.has_late_bytes = needs_bytes and (
        count_accepted([*stored, *own]) > count_accepted(stored)
    )
    if before.error == CANCELLED:
        for transfer in upload.transfers:
            transfer.stop()


def follow_cancel(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Stop an upload whose owner has cancelled it at another worker, unless it is too late.

    The record of that worker is the end: a second one would be an event after the end.
    """
    upload.cancel()
    if upload.is_ended:
        upload.prior_state, upload.prior_records = PriorState.ENDED, tuple(records)


def start_after(upload: LiveUpload, before: LiveUpload) -> None:
    """Become the next attempt after *before*, which this process has and may not be stored."""
    shown = current_snapshot(before)
    own = record_of(before, upload.context.now())
    records = records_with(before, own)
    has_ended = before.is_ended or before.has_ended_elsewhere
    if upload.ranges is None or not has_ended:
        _supersede_records(upload, records, shown)
    else:
        _begin_after(upload, records, shown)
    # Another worker may begin this attempt as well, and that an earlier one has ended is no end.
    upload.prior_state = PriorState.LOADED if before.has_prior_state else PriorState.UNKNOWN
    upload.preceding = before.preceding
    if before.is_ended and before.has_prior_state:
        is_due = before.reporting is Reporting.DUE
        upload.preceding = (evolve(own, sequence=own.sequence + is_due),)
    else:
        before.supersede()


def is_of_former_session(upload: LiveUpload, current: LiveUpload) -> bool:
    """Return whether its request is of an upload that *current* has replaced."""
    is_other = is_same_session(upload.session, current.session) is False
    if is_other and _begins_nothing(upload, current.created_at):
        return True
    return _is_in(upload.session, current.former_sessions)


def _begins_nothing(upload: LiveUpload, created_at: float) -> bool:
    """Return whether a request to another address only asks, or has begun before that upload."""
    return upload.opened_by.kind is TransferKind.QUERY or _precedes(upload, created_at)


def _is_in(session: str | None, former_sessions: Container[str]) -> bool:
    return session is not None and session.lstrip(".") in former_sessions


def absorb(upload: LiveUpload, late: LiveUpload) -> None:
    """Let a request after the end change nothing; stop it if the owner has cancelled.

    Nor does an upload in one request change the newer one.
    """
    if late.ranges is not None:
        late.merged_into = upload
        _leave_created(upload, late)
    transfer = late.opened_by
    if upload.error == CANCELLED and transfer.phase is not TransferPhase.ENDED:
        transfer.stop()


def has_begun_before(upload: LiveUpload) -> bool:
    """Return whether its request has begun, and not just now."""
    return upload.context.config.clock.time() - upload.created_at > LATE_SECONDS


def _precedes(upload: LiveUpload, finished_at: float | None) -> bool:
    """Return whether its request, whose owner is known late, had begun before that end."""
    begun_at = upload.begun_at
    return begun_at is not None and finished_at is not None and begun_at < finished_at


def is_older_than(upload: LiveUpload, other: LiveUpload) -> bool:
    """Return whether *other* has begun after this upload in one request."""
    return upload.ranges is None and upload.number < other.newest_number


def precedes_end(upload: LiveUpload, ended: LiveUpload) -> bool:
    """Return whether a request had begun before the newest one of an upload that ended here.

    The owner may have cancelled that upload since.
    """
    if ended.error == CANCELLED:
        return precedes_cancel(upload, ended.ended_after, ended.finished_at)
    return upload.ranges is not None and upload.number < ended.newest_number


def precedes_cancel(upload: LiveUpload, number: int, cancelled_at: float | None) -> bool:
    """Return whether a request had begun when the owner cancelled the upload of its id.

    Args:
        upload: The upload of the request. In one request, it may have ended before.
        number: The number of the newest request that had begun by then.
        cancelled_at: When the owner did that, in seconds since the epoch.
    """
    has_ended = upload.ranges is None and _has_ended_before(upload, cancelled_at)
    return upload.number <= number and not has_ended


def _has_ended_before(upload: LiveUpload, moment: float | None) -> bool:
    ended_at = upload.finished_at
    return ended_at is not None and moment is not None and ended_at < moment


def update_from_store(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Learn what other workers have stored since, of an upload in several requests."""
    if upload.has_ended_elsewhere:
        return
    stored = list(records)
    _learn_of_others(upload, stored)
    if upload.is_whole and not upload.transfers and _is_completed_by_other(upload, stored):
        upload.mark_due()
    else:
        upload.decide()


def _is_completed_by_other(upload: LiveUpload, records: Iterable[TransferRecord]) -> bool:
    """Return whether another worker, which may know as well that nothing is missing, completes it.

    The last parts may end at several workers at once: the one that has stored the newest version
    knows of all, and reports the end; the others only if it has not done so for a moment.
    """
    now = upload.context.config.clock.monotonic()
    if upload.whole_since is None:
        running = [each for each in records if each.worker is not None]
        last = max(running, key=lambda each: (each.updated_at, each.transfer_id), default=None)
        if last is None or last.transfer_id == upload.transfer_id:
            return False
        upload.whole_since = now
    return now - upload.whole_since < _COMPLETED_BY_OTHER_SECONDS


def _learn_of_others(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    current = newest(records)
    others = [each for each in current if each.transfer_id != upload.transfer_id]
    rivals = [
        each
        for each in others
        if each.attempt == upload.attempt and is_same_session(each.session, upload.session) is False
    ]
    if any(each.created_at > upload.created_at for each in rivals):
        upload.supersede()
        return
    others = [each for each in others if each not in rivals]
    upload.prior_records = tuple(each for each in others if each.attempt == upload.attempt)
    if any(each.attempt > upload.attempt for each in others):
        upload.supersede()
    if upload.is_ended:
        return
    after = fold(upload.prior_records, now=upload.context.config.clock.time())
    if after is None:
        return
    upload.exists = True
    upload.learn_session(_session_of(upload.prior_records))
    totals = [each.total_bytes for each in upload.prior_records if each.total_bytes is not None]
    if totals:
        upload.set_total(totals[0])
    if _is_over(upload.prior_records, after):
        if _begins_after(upload, after):
            _follow_ended(upload, others, after)
            upload.mark_due()
        else:
            # With the own record, whose versions the sequence of the upload contains.
            _end_elsewhere(upload, list(current), after)
        upload.pause()


def _begins_after(upload: LiveUpload, ended: UploadProgress) -> bool:
    """Return whether this upload has begun after the failure of one at the same resource."""
    if ended.state is not UploadState.FAILED or ended.finished_at is None:
        return False
    return upload.created_at > ended.finished_at.timestamp()


def is_fresh_creation(transfer: Transfer) -> bool:
    """Return whether a request creates the upload that it names, and not a part of it."""
    is_part = transfer.head is None or transfer.head.part_total_bytes is not None
    return transfer.kind is TransferKind.CREATE and transfer.names_upload and not is_part


def _is_new_beginning(head: TransferHead, known: Iterable[ByteRange]) -> bool:
    """Return whether a request sends from the start what the application has, and has more.

    A repetition of the first bytes alone may be that of a request whose response was lost.
    """
    if head.offset != 0 or not head.length:
        return False
    return contiguous_end([each for each in known if each[3]]) > head.length
