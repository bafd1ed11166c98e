"""Which upload a request belongs to: its order, its session and where its bytes begin.

No function changes anything.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Final

from upload_progress._model.byte_ranges import contiguous_end
from upload_progress._model.fold import is_same_session
from upload_progress._model.models import (
    ByteRange,
    TransferRecord,
    UploadProgress,
    UploadState,
)
from upload_progress._model.state import CANCELLED, is_final
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import CONTINUES, Transfer
from upload_progress.protocols import TransferHead, TransferKind

__all__ = [
    "LATE_SECONDS",
    "awaits_response",
    "began_before",
    "begins_nothing",
    "belongs_to_ended",
    "belongs_to_stored_end",
    "has_begun_before",
    "has_ended_before",
    "has_found_nothing",
    "is_fresh_creation",
    "is_in",
    "is_new_beginning",
    "is_newer",
    "is_newer_creation",
    "is_of_former_session",
    "is_older_than",
    "is_over",
    "precedes",
    "precedes_cancel",
    "precedes_end",
    "session_of",
]

LATE_SECONDS: Final = 0.05
"""How much later than its beginning the owner of an upload is known, if it is called late."""


def has_begun_before(upload: LiveUpload) -> bool:
    """Return whether its request has begun, and not just now."""
    return upload.context.config.clock.time() - upload.created_at > LATE_SECONDS


def is_older_than(upload: LiveUpload, other: LiveUpload) -> bool:
    """Return whether *other* has begun after this upload in one request."""
    return upload.series is None and upload.number < other.newest_number


def is_newer(record: TransferRecord, upload: LiveUpload) -> bool:
    """Return whether *record*, of another transfer and no older attempt, is newer than *upload*.

    Attempts are counted by workers that may not know of each other yet: of two uploads in one
    request, the one that has replaced the other is newer, else the one that has begun later.
    """
    if record.protocol is not None or upload.series is not None or upload.inherited is not None:
        return True
    if upload.transfer_id in record.former_sessions:
        return True
    own = (upload.started_at or 0.0, upload.transfer_id)
    is_later = own < (record.started_at or 0.0, record.transfer_id)
    return is_later and record.transfer_id not in upload.replaced


def is_fresh_creation(transfer: Transfer) -> bool:
    """Return whether a request creates the upload that it names, and not a part of it."""
    is_part = transfer.head is None or transfer.head.part_total_bytes is not None
    return transfer.kind is TransferKind.CREATE and transfer.names_upload and not is_part


def is_new_beginning(head: TransferHead, known: Iterable[ByteRange]) -> bool:
    """Return whether a request sends from the start what the application has, and has more.

    A repetition of the first bytes alone may be that of a request whose response was lost.
    """
    if head.offset != 0 or not head.length:
        return False
    return contiguous_end([each for each in known if each[3]]) > head.length


def is_newer_creation(upload: LiveUpload, records: Sequence[TransferRecord]) -> bool:
    """Return whether its request creates another upload than that of *records*.

    A creation whose owner is known late may be that of the same upload.
    """
    if not is_fresh_creation(upload.opened_by):
        return False
    if is_same_session(upload.session, session_of(records)):
        return False
    sessions = [record.created_at for record in records if record.protocol is not None]
    return bool(sessions) and not (upload.is_late and upload.created_at < min(sessions))


def session_of(records: Iterable[TransferRecord]) -> str | None:
    """Return the session of records that belong together: if one is certain, that one."""
    known = [each.session for each in records if each.session is not None]
    return min(known, key=lambda each: each.startswith("."), default=None)


def belongs_to_ended(upload: LiveUpload, state: UploadState, session: str | None = None) -> bool:
    """Return whether its request belongs to an upload that has ended.

    A resource of its own is never used for another upload. At another resource, a request that
    does not begin at the start belongs to an upload before it, and may resume a failed one.

    Args:
        upload: The upload of the request.
        state: The state in which that upload has ended.
        session: The session of that upload; None if not known.
    """
    series = upload.series
    if series is None or (head := series.begun_by.head) is None:
        return False
    if head.kind is TransferKind.QUERY:
        return True
    is_creation = series.begun_by.names_upload and head.kind is TransferKind.CREATE
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
        return precedes(upload, ended.created_at)
    ended_at = max((each.finished_at or 0.0 for each in ended.prior_records), default=None)
    is_late = precedes(upload, ended_at)
    return is_late or belongs_to_ended(upload, UploadState.CANCELLED, ended.session)


def is_of_former_session(upload: LiveUpload, current: LiveUpload) -> bool:
    """Return whether its request is of an upload that *current* has replaced."""
    if current.series is None:
        return False
    is_other = is_same_session(upload.session, current.session) is False
    if is_other and current.series.exists and begins_nothing(upload, current.created_at):
        return True
    return is_in(upload.session, current.series.former_sessions)


def awaits_response(upload: LiveUpload, session: str | None) -> bool:
    """Return whether only the response to its request can tell that *upload* is another one.

    A request that creates nothing goes to another address than that of *session*: there need not be
    anything.
    """
    is_answered = upload.opened_by.outcome is not None or not upload.transfers
    return not is_answered and _is_piece_elsewhere(upload, session)


def has_found_nothing(upload: LiveUpload, session: str | None) -> bool:
    """Return whether its request was refused at another address than that of *session*."""
    return upload.opened_by.is_refused and _is_piece_elsewhere(upload, session)


def _is_piece_elsewhere(upload: LiveUpload, session: str | None) -> bool:
    is_creation = upload.opened_by.kind is TransferKind.CREATE
    return not is_creation and is_same_session(upload.session, session) is False


def begins_nothing(upload: LiveUpload, created_at: float) -> bool:
    """Return whether a request to another address only asks, or has begun before that upload."""
    return upload.opened_by.kind is TransferKind.QUERY or precedes(upload, created_at)


def is_in(session: str | None, former_sessions: Container[str]) -> bool:
    """Return whether a session is known, and one of these."""
    return session is not None and session.lstrip(".") in former_sessions


def precedes(upload: LiveUpload, finished_at: float | None) -> bool:
    """Return whether its request, whose owner is known late, had begun before that end."""
    begun_at = upload.begun_at
    return begun_at is not None and finished_at is not None and begun_at < finished_at


def precedes_end(upload: LiveUpload, ended: LiveUpload) -> bool:
    """Return whether a request had begun before the newest one of an upload that ended here.

    The owner may have cancelled that upload since.
    """
    if ended.error == CANCELLED:
        return precedes_cancel(upload, ended.ended_after, ended.finished_at)
    is_created = is_fresh_creation(upload.opened_by) and upload.opened_by.result in CONTINUES
    if is_created and ended.series is not None and not ended.series.exists:
        # The one that has ended was never there: a request to another address was refused.
        return False
    return upload.series is not None and upload.number < ended.newest_number


def precedes_cancel(upload: LiveUpload, number: int, cancelled_at: float | None) -> bool:
    """Return whether a request had begun when the owner cancelled the upload of its id.

    Args:
        upload: The upload of the request. In one request, it may have ended before.
        number: The number of the newest request that had begun by then.
        cancelled_at: When the owner did that, in seconds since the epoch.
    """
    has_ended = upload.series is None and has_ended_before(upload, cancelled_at)
    return upload.number <= number and not has_ended


def has_ended_before(upload: LiveUpload, moment: float | None) -> bool:
    """Return whether it had ended here by *moment*, in seconds since the epoch."""
    ended_at = upload.finished_at
    return ended_at is not None and moment is not None and ended_at < moment


def is_over(records: Iterable[TransferRecord], shown: UploadProgress) -> bool:
    """Return whether no request can continue an upload: it has ended, or was handed over."""
    return is_final(shown.state) or any(each.hand_over is not None for each in records)


def began_before(upload: LiveUpload, moment: datetime | None) -> bool:
    """Return whether an upload, whose owner was known late, has begun before *moment*.

    Otherwise all that is known of other uploads has happened before, whatever the clocks say.
    """
    if not upload.is_late or moment is None or upload.started_at is None:
        return False
    return upload.started_at < moment.timestamp()
