"""The fold: from the records of an upload to its snapshot.

Each record has one writer, so the newest version of a record is the highest ``Version``. Numbers
of bytes, rates and sequences are sums. Everything else is chosen by a rule that looks at values,
never at the order of arrival: records may arrive twice, late, or in any order.

The clock decides about no state. That a worker is lost, or that an upload has waited too long, is
true when a worker has stored it, and then for everybody: readers conclude nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import evolve, frozen
from msgspec import Struct

from upload_progress._model.byte_ranges import (
    accepted_end,
    count_accepted,
    count_accepted_parts,
    count_bytes,
    has_numbered_parts,
    with_confirmed,
    without_confirmed,
)
from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    Links,
    Parts,
    TransferRecord,
    UploadError,
    UploadProgress,
    UploadState,
    UploadTotal,
)
from upload_progress._model.rate import eta_seconds
from upload_progress._model.state import (
    CANCELLED,
    LOST,
    NOT_RESUMED,
    RUNNING_STATES,
    TASK_LOST,
    Signal,
    is_waiting,
    next_state,
)
from upload_progress._model.validation import MAX_COUNT
from upload_progress._model.version import SKIPPED_VERSIONS, version_of

__all__ = [
    "Figures",
    "UploadShare",
    "accepted_bytes",
    "cancelled",
    "deciding",
    "ended",
    "figures_of",
    "figures_of_plain",
    "fold",
    "is_same_session",
    "links_of",
    "newest",
    "newest_attempt",
    "percent_of",
    "received_by",
    "share_of",
    "sum_of",
]

T = TypeVar("T")

_OPEN_RANK: Final = (UploadState.RECEIVING, UploadState.PROCESSING, UploadState.PAUSED)
_STOPPED: Final = frozenset({UploadState.FAILED, UploadState.CANCELLED})
_EXPIRED: Final = UploadError(ErrorCode.EXPIRED, "No byte arrived for too long.")


def ended(record: TransferRecord, now: float) -> TransferRecord:
    """Return an overdue *record* as it is to be stored: expired, lost, or without worker paused.

    Args:
        record: A record that its store has found to be overdue.
        now: Seconds since the epoch: the latest time at which it can have ended.
    """
    if is_waiting(record.state):
        ended_at, signal, error, skipped = record.expires_at, Signal.EXPIRE, _EXPIRED, 1
    elif record.hand_over is not None:
        is_lost = record.hand_over.is_resumed
        signal, error = (Signal.LOSE, TASK_LOST) if is_lost else (Signal.EXPIRE, NOT_RESUMED)
        ended_at, skipped = record.lease_until, SKIPPED_VERSIONS
    elif record.protocol is not None:
        state = next_state(record.state, Signal.PAUSE) or record.state
        return evolve(
            record,
            state=state,
            stage=None,
            stalled=False,
            sequence=record.sequence + 1,
            updated_at=now,
            worker=None,
        )
    else:
        # The worker may have shown versions that are not stored; while it waited there were none.
        ended_at, signal, error, skipped = record.lease_until, Signal.LOSE, LOST, SKIPPED_VERSIONS
    return _with_end(record, signal, error, ended_at=min(ended_at or now, now), skipped=skipped)


def cancelled(record: TransferRecord, now: float) -> TransferRecord:
    """Return an open *record* as it is to be stored by a worker at which the owner cancels.

    Args:
        record: A record of the upload.
        now: Seconds since the epoch.
    """
    # Its worker may have shown versions that are not stored.
    return _with_end(record, Signal.CANCEL, CANCELLED, ended_at=now, skipped=SKIPPED_VERSIONS)


def _with_end(
    record: TransferRecord, signal: Signal, error: UploadError, *, ended_at: float, skipped: int
) -> TransferRecord:
    """Return *record* as another worker than its own ends it, that many versions later."""
    return evolve(
        record,
        state=next_state(record.state, signal) or record.state,
        error=error,
        stage=None,
        stalled=False,
        bytes_per_second=None,
        finished_at=ended_at,
        updated_at=ended_at,
        sequence=record.sequence + skipped,
        worker=None,
    )


def received_by(worker: str, upload: Sequence[TransferRecord]) -> Iterator[TransferRecord]:
    """Yield the records of transfers that *worker* receives by the newest records of an upload."""
    for record in upload:
        if record.worker == worker and record.state in RUNNING_STATES:
            yield record


def newest(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """Return the records of the newest attempt that belong together, in a defined order."""
    return _of_newest_session(newest_attempt(records))


def newest_attempt(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """Return the newest version of each record of the newest attempt, in a defined order."""
    known_records = list(records)
    if len(known_records) == 1:
        return known_records
    latest: dict[str, TransferRecord] = {}
    for record in known_records:
        known = latest.get(record.transfer_id)
        if known is None or version_of(known) < version_of(record):
            latest[record.transfer_id] = record
    attempt = max((record.attempt for record in latest.values()), default=0)
    current = [record for record in latest.values() if record.attempt == attempt]
    return sorted(current, key=lambda record: (record.created_at, record.transfer_id))


def _of_newest_session(records: list[TransferRecord]) -> list[TransferRecord]:
    """Return the records that belong together: announcements, ends, and those of one session.

    A session is one plain request, or all requests of one protocol to one address. Of two sessions
    under one id the newer one counts: their bytes are never added up.
    """
    started = [record for record in records if record.started_at is not None]
    if len(started) < 2:  # noqa: PLR2004  # two sessions need two records
        return records
    latest = max(started, key=lambda record: (record.started_at or 0.0, record.transfer_id))
    session = _session_of(latest)
    return [
        each
        for each in records
        if each.started_at is None
        or (
            _session_of(each) == session
            and is_same_session(each.session, latest.session) is not False
        )
    ]


def is_same_session(one: str | None, other: str | None) -> bool | None:
    """Return whether the sessions of two records or requests are the same; None if not known.

    >>> (is_same_session(".a", "a"), is_same_session(".a", "b"), is_same_session(".a", ".b"))
    (True, False, None)

    Args:
        one: As in ``TransferRecord.session``.
        other: Likewise.
    """
    if one is None or other is None:
        return None
    if one.lstrip(".") == other.lstrip("."):
        return True
    return None if one.startswith(".") and other.startswith(".") else False


def _older_sessions(records: Sequence[TransferRecord], decided: TransferRecord) -> int:
    """Return how many plain requests have begun before the newest one within its attempt.

    Two workers that got them at once did not know of each other. Nothing follows the end of an
    attempt, so each counts as one. The sequence contains theirs, so that it does not fall.
    """
    if len(records) == 1 or decided.protocol is not None:
        return 0
    plain = sum(each.started_at is not None and each.protocol is None for each in records)
    return max(0, plain - 1)


def _session_of(record: TransferRecord) -> tuple[str | None, str]:
    return (record.protocol, record.transfer_id if record.protocol is None else "")


def fold(
    records: Iterable[TransferRecord], *, now: float, mount_path: str = "/uploads"
) -> UploadProgress | None:
    """Return the snapshot of an upload at *now*, from its records.

    Args:
        records: Any versions of the upload's records, in any order.
        now: Seconds since the epoch, by which the lease of a worker has run out.
        mount_path: Where the progress API is mounted, for the links.

    Returns:
        The snapshot; None without records.
    """
    of_attempt = newest_attempt(records)
    if not of_attempt:
        return None
    decided, combined, figures = _merge(of_attempt, now)
    received, total, rate = figures.received_bytes, figures.total_bytes, figures.bytes_per_second
    return UploadProgress(
        upload_id=decided.upload_id,
        group=combined.group,
        sequence=figures.sequence,
        attempt=figures.attempt,
        state=decided.state,
        stage=decided.stage if decided.state is UploadState.PROCESSING else None,
        bytes_transferred=received,
        stored_bytes=figures.stored_bytes,
        total_bytes=total,
        percent=percent_of(received, total, decided.state),
        bytes_per_second=rate,
        eta_seconds=eta_seconds(None if total is None else total - received, rate),
        retransmitted_bytes=figures.repeated_bytes,
        parts=figures.parts,
        stalled=decided.state is UploadState.RECEIVING and decided.stalled,
        arrival=figures.arrival,
        filename=combined.filename,
        content_type=combined.content_type,
        metadata=combined.metadata,
        created_at=_moment(combined.created_at),
        started_at=_moment_or_none(combined.started_at),
        updated_at=_moment(combined.updated_at),
        last_byte_at=_moment_or_none(combined.last_byte_at),
        finished_at=_moment_or_none(decided.finished_at),
        error=decided.error if decided.state in _STOPPED else None,
        links=links_of(decided.upload_id, mount_path),
    )


def _merge(
    of_attempt: list[TransferRecord], now: float
) -> tuple[TransferRecord, TransferRecord, "Figures"]:
    """Return the record that decides, one with the description and the times, and the figures."""
    if len(of_attempt) == 1 and of_attempt[0].protocol is None:
        record = of_attempt[0]
        return record, record, figures_of_plain(record, now)
    decided = deciding(current := _of_newest_session(of_attempt))
    # The description by a transfer takes precedence over the announcement.
    by_precedence = sorted(current, key=lambda record: record.started_at is None)
    figures = figures_of(of_attempt, by_precedence, decided, now)
    return decided, _combined(by_precedence), figures


class Figures(Struct, frozen=True, kw_only=True):
    """What several records of an upload say together; see ``UploadProgress``."""

    received_bytes: int
    repeated_bytes: int
    total_bytes: int | None
    bytes_per_second: float | None
    stored_bytes: int | None
    parts: Parts | None
    arrival: Arrival | None
    sequence: int
    attempt: int


def figures_of_plain(record: TransferRecord, now: float) -> Figures:
    """Return the same as ``figures_of`` for an upload in one request: most uploads are."""
    received, total = record.received_bytes, record.total_bytes
    if total is not None and received > total:
        total = None
    received, repeated, total = _bounded(received, record.retransmitted_bytes, total)
    rate, stored = record.bytes_per_second, record.stored_bytes
    is_flowing = record.state is UploadState.RECEIVING and not record.stalled
    if not is_flowing or _is_stale(record, now):
        rate = None
    return Figures(
        received_bytes=received,
        repeated_bytes=repeated,
        total_bytes=total,
        bytes_per_second=None if rate is None else round(rate, 1),
        stored_bytes=None if stored is None else min(stored, received),
        parts=None,
        arrival=record.arrival,
        sequence=record.sequence,
        attempt=record.attempt,
    )


def figures_of(
    of_attempt: Sequence[TransferRecord],
    records: Sequence[TransferRecord],
    decided: TransferRecord,
    now: float,
) -> Figures:
    """Return what records say together.

    Args:
        of_attempt: All records of the attempt.
        records: Those that belong together, in the order of their precedence.
        decided: The one whose state is the state of the upload.
        now: As for ``fold``.
    """
    received, repeated, total = _bounded(*_count_bytes(records, decided))
    return Figures(
        received_bytes=received,
        repeated_bytes=repeated,
        total_bytes=total,
        bytes_per_second=_rate_of(records, decided, now),
        stored_bytes=_stored(records, received),
        parts=_parts(records, decided),
        arrival=_arrival(records),
        sequence=sum(record.sequence for record in of_attempt),
        attempt=decided.attempt + _older_sessions(of_attempt, decided),
    )


def _combined(records: Sequence[TransferRecord]) -> TransferRecord:
    """Return a record with the description and the times of all *records*.

    Args:
        records: Those of one upload, in the order of their precedence; most uploads have one.
    """
    if len(records) == 1:
        return records[0]
    return evolve(
        records[0],
        group=_first(each.group for each in _by("group", records)),
        filename=_first(each.filename for each in _by("filename", records)),
        content_type=_first(each.content_type for each in _by("content_type", records)),
        metadata=_first(each.metadata for each in _by("metadata", records)),
        created_at=min(record.created_at for record in records),
        started_at=min(_known(record.started_at for record in records), default=None),
        updated_at=max(record.updated_at for record in records),
        last_byte_at=max(_known(record.last_byte_at for record in records), default=None),
    )


def _by(name: str, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
    """Return *records*, first those of workers at which the application has set an attribute."""
    return sorted(records, key=lambda record: name not in record.set_by_app)


def _count_bytes(
    records: Sequence[TransferRecord], decided: TransferRecord
) -> tuple[int, int, int | None]:
    """Return the received, the retransmitted and the announced number of bytes."""
    received, repeated = _received(records)
    total = _total(records, received)
    if decided.protocol is not None and decided.state is UploadState.COMPLETED:
        # The application has all bytes that it wants.
        total = decided.total_bytes or total or _accepted(records)
        received = min(received, total)
    return received, repeated, total


def _accepted(records: Sequence[TransferRecord]) -> int:
    """Return the number of bytes that the application has accepted, of several requests."""
    several = [record for record in records if record.protocol is not None]
    held = max(record.confirmed_bytes for record in several)
    byte_ranges = [each for record in several for each in record.byte_ranges]
    return count_accepted(with_confirmed([*byte_ranges, ("", 0, held, True)]))


def _received(records: Sequence[TransferRecord]) -> tuple[int, int]:
    """Return the number of received and of retransmitted bytes."""
    plain = sum(record.received_bytes for record in records if record.protocol is None)
    repeated = sum(record.retransmitted_bytes for record in records)
    several = [record for record in records if record.protocol is not None]
    if not several:
        return plain, repeated
    byte_ranges = [byte_range for record in several for byte_range in record.byte_ranges]
    sent = count_bytes(without_confirmed(byte_ranges))
    repeated += sum(count_bytes(without_confirmed(record.byte_ranges)) for record in several) - sent
    held = max(record.confirmed_bytes for record in several)
    here = count_bytes(with_confirmed([*byte_ranges, ("", 0, held, True)]))
    return plain + here, repeated


def _stored(records: Sequence[TransferRecord], received: int) -> int | None:
    """Return the number of bytes that were passed on, of which none was not received."""
    known = _known(record.stored_bytes for record in records)
    return min(sum(known), received) if known else None


def _bounded(received: int, repeated: int, total: int | None) -> tuple[int, int, int | None]:
    """Return numbers of bytes that each JSON reader understands; a larger total is unknown."""
    if total is not None and total > MAX_COUNT:
        total = None
    return min(received, MAX_COUNT), min(repeated, MAX_COUNT), total


def accepted_bytes(records: Iterable[TransferRecord]) -> int:
    """Return the first byte of an upload that the application has not accepted.

    Of an upload in one request nothing is accepted before its response. After the completion it
    is the size.

    Args:
        records: As for ``fold``; at least one.
    """
    current = newest(records)
    decided = deciding(current)
    if decided.state is UploadState.COMPLETED:
        return min(_count_bytes(current, decided)[0], MAX_COUNT)
    several = [record for record in current if record.protocol is not None]
    held = max((record.confirmed_bytes for record in several), default=0)
    ranges = [byte_range for record in several for byte_range in record.byte_ranges]
    return min(accepted_end([*ranges, ("", 0, held, True)]), MAX_COUNT)


def _parts(records: Sequence[TransferRecord], decided: TransferRecord) -> Parts | None:
    byte_ranges = [byte_range for record in records for byte_range in record.byte_ranges]
    if not has_numbered_parts(byte_ranges):
        return None
    received = count_accepted_parts(byte_ranges)
    return Parts(received, received if decided.state is UploadState.COMPLETED else None)


def _total(records: Sequence[TransferRecord], received: int) -> int | None:
    """Return the announced size; None if more bytes than that have arrived."""
    total = _announced(records)
    return None if total is None or received > total else total


def _announced(records: Sequence[TransferRecord]) -> int | None:
    """Return the announced size; not the sum over parts, as more parts may be announced."""
    return _first(record.total_bytes for record in records)


def deciding(records: Sequence[TransferRecord]) -> TransferRecord:
    """Return the record whose state is the state of the upload.

    1. The first failure or cancellation ends the upload, unless it was completed before.
    2. Else an open transfer keeps it open. In an upload in several requests, a completion ends it
       nevertheless, because it concerns the whole upload and not one request. So does what a task
       does with an upload that was handed over.
    3. Else the first completion ends it: nothing of it changes afterwards.
    4. Else it is in the state in which it was announced.

    Args:
        records: The result of ``newest``, not empty.
    """
    if len(records) == 1:
        return records[0]
    stopped = min(
        (record for record in records if record.state in _STOPPED), key=_ended, default=None
    )
    completed = min(
        (record for record in records if record.state is UploadState.COMPLETED),
        key=_ended,
        default=None,
    )
    running = [record for record in records if record.state in _OPEN_RANK]
    running = [record for record in running if record.hand_over is not None] or running
    if completed and completed.protocol is not None:
        running = []
    if stopped and (running or not completed or _ended(stopped)[0] <= _ended(completed)[0]):
        return stopped
    if running:
        return min(running, key=lambda record: _OPEN_RANK.index(record.state))
    return completed or records[0]


def _ended(record: TransferRecord) -> tuple[float, str]:
    return (record.finished_at or 0.0, record.transfer_id)


def percent_of(received: int, total: int | None, state: UploadState) -> float | None:
    """Return the received share: 0 to 100, one decimal, rounded down.

    An empty upload has no percentage before the end of its body, and 100.0 after it.
    """
    if total is None:
        return None
    if total <= 0:
        return 100.0 if state in {UploadState.PROCESSING, UploadState.COMPLETED} else None
    return min(received * 1000 // total, 1000) / 10


@frozen
class UploadShare:
    """What an upload adds to a total; see ``UploadProgress``."""

    state: UploadState
    bytes_transferred: int
    total_bytes: int | None
    bytes_per_second: float | None


def share_of(records: Iterable[TransferRecord], *, now: float) -> UploadShare:
    """Return what an upload adds to a total: the same as its snapshot, and faster.

    Args:
        records: As for ``fold``; at least one.
        now: As for ``fold``.
    """
    current = newest(records)
    decided = deciding(current)
    by_precedence = sorted(current, key=lambda record: record.started_at is None)
    received, _, total = _bounded(*_count_bytes(by_precedence, decided))
    return UploadShare(decided.state, received, total, _rate_of(current, decided, now))


def sum_of(
    uploads: Sequence[UploadProgress | UploadShare], *, approximate: bool = False
) -> UploadTotal:
    """Return the sum over *uploads*; a total with an unknown part is unknown.

    Args:
        uploads: The uploads.
        approximate: Whether there are more of them.
    """
    received, _, total = _bounded(
        sum(upload.bytes_transferred for upload in uploads),
        0,
        _sum_known([upload.total_bytes for upload in uploads]),
    )
    rates = [upload.bytes_per_second for upload in uploads if upload.bytes_per_second]
    rate = round(sum(rates), 1) if rates else None
    is_whole = all(upload.bytes_transferred == upload.total_bytes for upload in uploads)
    return UploadTotal(
        uploads=len(uploads),
        bytes_transferred=received,
        total_bytes=total,
        percent=None
        if not total
        else (100.0 if is_whole else min(received * 1000 // total, 999) / 10),
        bytes_per_second=rate,
        eta_seconds=eta_seconds(None if total is None else total - received, rate),
        approximate=approximate,
    )


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = _known(values)
    return sum(known) if len(known) == len(values) else None


def _rate_of(
    records: Sequence[TransferRecord], decided: TransferRecord, now: float
) -> float | None:
    """Return the rate of an upload that receives bytes."""
    is_flowing = decided.state is UploadState.RECEIVING and not decided.stalled
    return _rate(records, now) if is_flowing else None


def _rate(records: Sequence[TransferRecord], now: float) -> float | None:
    rates = [
        record.bytes_per_second
        for record in records
        if record.state is UploadState.RECEIVING
        and record.bytes_per_second is not None
        and not _is_stale(record, now)
    ]
    return round(sum(rates), 1) if rates else None


def _is_stale(record: TransferRecord, now: float) -> bool:
    """Return whether the rate of *record* says nothing about *now*, as its worker does not answer.

    A worker measures silence on one clock, and stores it. The times of its record say nothing to
    other workers, whose clocks may differ: they have the end of its lease, by the store's clock.
    """
    return record.lease_until is not None and record.lease_until <= now


def _arrival(records: Sequence[TransferRecord]) -> Arrival | None:
    seen = {record.arrival for record in records}
    return Arrival.BUFFERED if Arrival.BUFFERED in seen else _first(seen)


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _moment(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _moment_or_none(epoch_seconds: float | None) -> datetime | None:
    return None if epoch_seconds is None else _moment(epoch_seconds)


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def links_of(upload_id: str, mount_path: str) -> Links:
    """Return the paths under *mount_path* that read, watch and cancel an upload."""
    upload = f"{mount_path}/{upload_id}"
    progress = f"{upload}/progress"
    return Links(progress=progress, events=progress, websocket=progress, cancel=upload)
