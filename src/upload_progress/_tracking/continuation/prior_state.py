"""How an upload continues, follows or supersedes what the store has of its id.

That may be an announcement, an earlier attempt, an older upload of the same id, or the same upload
in several requests, of which other workers have stored their part.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from attrs import evolve

from upload_progress._model.byte_ranges import count_accepted
from upload_progress._model.fold import accepted_bytes, fold, is_same_session, newest
from upload_progress._model.models import (
    ErrorCode,
    TransferRecord,
    UploadProgress,
    UploadState,
)
from upload_progress._model.state import CANCELLED, RUNNING_STATES, is_final
from upload_progress._model.version import SKIPPED_VERSIONS
from upload_progress._tracking import outcomes
from upload_progress._tracking.continuation import belonging
from upload_progress._tracking.live_record import current_snapshot, record_of, records_with
from upload_progress._tracking.live_upload import DESCRIPTION, LiveUpload
from upload_progress._tracking.requests.transfer import TransferPhase
from upload_progress._tracking.status import TO_BE_COMPARED, TO_BE_LOADED, PriorState, Reporting
from upload_progress.protocols import TransferKind

__all__ = ["follow_rivals", "load_prior_state", "start_after", "update_from_store"]

_REFUSALS: Final = frozenset({ErrorCode.APP_ERROR, ErrorCode.REJECTED})
_COMPLETED_BY_OTHER_SECONDS: Final = 0.25
_MAX_FORMER_SESSIONS: Final = 50
"""How many sessions and parts of replaced uploads are known."""


def load_prior_state(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Continue from what the store has: an announcement, another worker, an earlier attempt."""
    stored = [*records, *upload.preceding]
    if upload.prior_state in TO_BE_LOADED:
        upload.prior_state = PriorState.LOADED
        before = fold(stored, now=upload.context.config.clock.time())
        if before is not None and upload.series is None:
            _continue_plain(upload, stored, before)
        elif before is not None:
            _continue_in_several_requests(upload, stored, before)
    elif upload.prior_state in TO_BE_COMPARED and upload.series is None:
        is_first = upload.prior_state is PriorState.LOADED and not _is_end_stored(upload, stored)
        upload.prior_state = PriorState.COMPARED if is_first else PriorState.CONFIRMED
        _compare_with_others(upload, stored)
    if upload.series is not None:
        outcomes.decide(upload)


def _continue_plain(
    upload: LiveUpload, stored: list[TransferRecord], before: UploadProgress
) -> None:
    if belonging.began_before(upload, before.started_at):
        upload.supersede()
        return
    has_ended = belonging.has_ended_before(upload, _time_of(before.finished_at))
    is_cancelled = before.error == CANCELLED and not has_ended
    if is_cancelled and belonging.began_before(upload, before.finished_at):
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


def _supersede_records(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> None:
    """Become the next attempt, whether the one before has ended or another worker has it."""
    upload.attempt = max(upload.attempt, before.attempt + 1)
    upload.sequence += before.sequence + 1
    _leave_session(upload, records)
    _inherit_description(upload, before)
    running = (each for each in records if each.state in RUNNING_STATES)
    elsewhere = [each for each in running if each.worker not in {None, upload.worker}]
    if elsewhere:
        upload.sequence += SKIPPED_VERSIONS
        upload.context.on_superseding(upload, elsewhere)


def _compare_with_others(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Look once more, after the own record was stored: two workers may have begun at once.

    The newer one is the next attempt, see ``belonging.is_newer``.
    """
    others = [
        each
        for each in records
        if each.transfer_id != upload.transfer_id and each.started_at and each.protocol is None
    ]
    attempt = max((each.attempt for each in others), default=0)
    if attempt >= upload.attempt:
        follow_rivals(upload, [each for each in others if each.attempt == attempt])


def follow_rivals(upload: LiveUpload, rivals: list[TransferRecord]) -> None:
    """Report *upload* no more if one of its *rivals* is newer, else as the next attempt."""
    if any(belonging.is_newer(each, upload) for each in rivals):
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
        if upload.series is not None:
            upload.series.has_inherited_total = before.total_bytes is not None


def _continue_in_several_requests(
    upload: LiveUpload, stored: list[TransferRecord], before: UploadProgress
) -> None:
    """Continue this worker's stored record, and learn those of other workers."""
    current = newest(stored)
    if belonging.is_over(current, before):
        _follow_ended(upload, current, before)
        return
    ends = [each.previous_ended_at for each in current if each.previous_ended_at is not None]
    series = upload.held_series
    series.previous_ended_at = max(ends, default=None)
    series.former_sessions |= {each for record in current for each in record.former_sessions}
    is_earlier = _is_of_earlier_attempt(upload, current, before)
    if is_earlier or (upload.is_late and _has_created_no_part_of(upload, current)):
        upload.supersede()
        return
    session = belonging.session_of(current)
    if belonging.awaits_response(upload, session):
        upload.prior_state = PriorState.OTHER
        return
    if belonging.has_found_nothing(upload, session):
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
    series.exists = True
    if before.total_bytes is not None:
        series.set_total(before.total_bytes)
    _learn_of_others(upload, stored)


def _has_created_no_part_of(upload: LiveUpload, records: Sequence[TransferRecord]) -> bool:
    """Return whether its request is a creation that has not created the upload of *records*.

    It was refused. Or it is older and was the whole upload, or another one is in progress that
    creates the upload.
    """
    if upload.is_failed_creation:
        return True
    transfer = upload.opened_by
    has_ended = belonging.is_fresh_creation(transfer) and transfer.phase is TransferPhase.ENDED
    if not has_ended or belonging.is_newer_creation(upload, records):
        return False
    is_in_progress = any(each.state in RUNNING_STATES for each in records)
    return upload.session is None or (is_in_progress and belonging.session_of(records) is None)


def _is_of_earlier_attempt(
    upload: LiveUpload, records: Iterable[TransferRecord], newest_attempt: UploadProgress
) -> bool:
    """Return whether a request, whose owner is known late, had begun before the newest attempt.

    If the attempt before had ended by then, the request has begun the newest one.
    """
    if belonging.is_of_former_session(upload, upload):
        return True
    session = belonging.session_of(records)
    is_same = is_same_session(upload.session, session)
    if is_same is not None:
        created_at = newest_attempt.created_at.timestamp()
        return not is_same and belonging.begins_nothing(upload, created_at)
    # A creation that is not answered yet has no session, and no client can send pieces to it.
    is_answered = session is not None or upload.session is None
    is_creation = upload.opened_by.kind is TransferKind.CREATE
    if is_creation or (newest_attempt.attempt == 1 and is_answered):
        return False
    previous_ended_at = upload.held_series.previous_ended_at
    if previous_ended_at is not None and previous_ended_at <= upload.created_at:
        return False
    return belonging.precedes(upload, newest_attempt.created_at.timestamp())


def _replaces_session(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> bool:
    """Return whether the request begins another upload, see ``merging.can_merge``."""
    head, total = upload.opened_by.head, upload.meter.total_bytes
    is_same = is_same_session(upload.session, belonging.session_of(records))
    if is_same is not None:
        return not is_same
    if head is None or head.kind is TransferKind.CREATE:
        return belonging.is_newer_creation(upload, records)
    if head.resource_is_unique or not head.carries_bytes:
        return False
    if total is not None and before.total_bytes is not None and total != before.total_bytes:
        return True
    is_earlier = upload.is_late and upload.created_at < before.created_at.timestamp()
    if before.state is not UploadState.PAUSED or is_earlier:
        return False
    known = (each for record in records for each in record.byte_ranges)
    return belonging.is_new_beginning(head, known)


def _continue_record(upload: LiveUpload, record: TransferRecord) -> None:
    upload.sequence += record.sequence
    series = upload.held_series
    series.learn_session(record.session)
    series.loaded_version_at = record.idle_at or record.updated_at
    if upload.idle_at < series.loaded_version_at:
        # The owner was known late: what the responses have said of the bytes is outdated.
        series.ranges.forget_ends()
    series.ranges.load(record.byte_ranges, record.confirmed_bytes)
    series.repeated_bytes += record.retransmitted_bytes
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


def _follow_ended(
    upload: LiveUpload, records: list[TransferRecord], before: UploadProgress
) -> None:
    """Start the next attempt after one that has ended; a late request starts none."""
    finished_at = _time_of(before.finished_at)
    # A creation that had begun before the owner has cancelled is cancelled with the others.
    is_newer = before.error != CANCELLED and belonging.is_newer_creation(upload, records)
    session = belonging.session_of(records)
    if before.error != CANCELLED and is_same_session(upload.session, session) is False:
        finished_at = before.created_at.timestamp()
    is_late = belonging.precedes(upload, finished_at) and not is_newer
    former = {each for one in records for each in one.former_sessions}
    is_former = belonging.is_in(upload.session, former)
    if is_former or belonging.belongs_to_ended(upload, before.state, session) or is_late:
        _end_elsewhere(upload, records, before)
    else:
        _begin_after(upload, records, before)


def _leave_session(upload: LiveUpload, records: Sequence[TransferRecord]) -> None:
    """Let requests of an upload before, which this one replaces, be none of this one."""
    head = upload.opened_by.head
    if head is None:
        plain = [record for record in records if record.protocol is None]
        replaced = (each for record in plain for each in record.former_sessions)
        known = [*(record.transfer_id for record in plain), *replaced]
        upload.replaced = tuple(dict.fromkeys(known))[:_MAX_FORMER_SESSIONS]
        return
    if not head.resource_is_unique or head.part_total_bytes is not None:
        return
    parts = {part for record in records for part, *_ in record.byte_ranges if part[:1] == "."}
    names = sorted(parts | {each.session for each in records if each.session is not None})
    before = (each for record in records for each in record.former_sessions)
    former = [each.lstrip(".") for each in (*names, *before)][:_MAX_FORMER_SESSIONS]
    upload.held_series.former_sessions = frozenset(former) - {(upload.session or "").lstrip(".")}


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
    upload.held_series.previous_ended_at = _time_of(before.finished_at)
    _leave_session(upload, records)
    _inherit_description(upload, before)
    is_address_used_again = head is not None and not head.resource_is_unique
    if is_address_used_again and offset <= _accepted_end(records, before):
        upload.held_series.ranges.confirm("", offset)


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
    upload.held_series.learn_session(belonging.session_of(records))
    stored = [each for record in records for each in record.byte_ranges]
    own = upload.held_series.ranges.entries()
    # A failure is the last version; a completion without a known size needs all bytes.
    has_size = any(record.total_bytes is not None for record in records)
    # What was known only after the end changes nothing.
    needs_bytes = before.state is UploadState.COMPLETED and not (has_size or upload.is_late)
    upload.held_series.has_late_bytes = needs_bytes and (
        count_accepted([*stored, *own]) > count_accepted(stored)
    )
    if before.error == CANCELLED:
        for transfer in upload.transfers:
            transfer.stop()


def start_after(upload: LiveUpload, before: LiveUpload) -> None:
    """Become the next attempt after *before*, which this process has and may not be stored."""
    shown = current_snapshot(before)
    own = record_of(before, upload.context.now())
    records = records_with(before, own)
    has_ended = before.is_ended or before.has_ended_elsewhere
    if upload.series is None or not has_ended:
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


def update_from_store(upload: LiveUpload, records: Iterable[TransferRecord]) -> None:
    """Learn what other workers have stored since, of an upload in several requests."""
    if upload.has_ended_elsewhere:
        return
    stored = list(records)
    _learn_of_others(upload, stored)
    if upload.is_whole and not upload.transfers and _is_completed_by_other(upload, stored):
        upload.mark_due()
    else:
        outcomes.decide(upload)


def _is_completed_by_other(upload: LiveUpload, records: Iterable[TransferRecord]) -> bool:
    """Return whether another worker, which may know as well that nothing is missing, completes it.

    The last parts may end at several workers at once: the one that has stored the newest version
    knows of all, and reports the end; the others only if it has not done so for a moment.
    """
    now = upload.context.config.clock.monotonic()
    series = upload.held_series
    if series.whole_since is None:
        running = [each for each in records if each.worker is not None]
        last = max(running, key=lambda each: (each.updated_at, each.transfer_id), default=None)
        if last is None or last.transfer_id == upload.transfer_id:
            return False
        series.whole_since = now
    return now - series.whole_since < _COMPLETED_BY_OTHER_SECONDS


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
    upload.held_series.exists = True
    upload.held_series.learn_session(belonging.session_of(upload.prior_records))
    totals = [each.total_bytes for each in upload.prior_records if each.total_bytes is not None]
    if totals:
        upload.held_series.set_total(totals[0])
    if belonging.is_over(upload.prior_records, after):
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
