"""Records in, one truth out: an upload is a pure fold over the records of its writers.

Every record has one writer, so the newest version of each is simply the highest
``(attempt, sequence)``. Bytes, waste, speed and sequence are sums. What is a choice rather
than a sum is made by a rule that looks at values, never at the order of arrival: records
may come twice, late, or in any order, and the answer is the same.

Time is an argument. An open record whose worker's lease ran out is ``worker_lost``, and one
that waited too long is ``expired``, whether or not anybody has swept it up.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import evolve

from upload_progress._model.byte_ranges import (
    covered,
    declared,
    known,
    numbered,
    received,
    whole_parts,
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
from upload_progress._model.state import LOST, Signal, is_final, is_waiting, next_state

__all__ = [
    "as_of",
    "deciding",
    "fold",
    "links_of",
    "newest",
    "percent_of",
    "sum_of",
]

T = TypeVar("T")

_OPEN_RANK: Final = (UploadState.RECEIVING, UploadState.PROCESSING, UploadState.PAUSED)
_STOPPED: Final = frozenset({UploadState.FAILED, UploadState.CANCELLED})
_EXPIRED: Final = UploadError(ErrorCode.EXPIRED, "No byte came for too long.")


def as_of(record: TransferRecord, now: float) -> TransferRecord:
    """Return *record* as it is at *now*: lost or expired, where its time ran out."""
    if is_final(record.state):
        return record
    if is_waiting(record.state):
        ended_at, signal, error = record.expires_at, Signal.EXPIRE, _EXPIRED
    elif record.protocol is not None:
        return _left_alone(record, now)
    else:
        ended_at, signal, error = record.lease_until, Signal.LOSE, LOST
    state = next_state(record.state, signal)
    if ended_at is None or ended_at > now or state is None:
        return record
    return evolve(record, state=state, error=error, stage=None, finished_at=ended_at)


def _left_alone(record: TransferRecord, now: float) -> TransferRecord:
    """Return *record* of an upload in many requests: without its worker it waits for the next."""
    state = next_state(record.state, Signal.PAUSE)
    if record.lease_until is None or record.lease_until > now or state is None:
        return record
    return evolve(record, state=state, stage=None, stalled=False)


def newest(records: Iterable[TransferRecord]) -> list[TransferRecord]:
    """Return the newest version of each record of the newest attempt, in a settled order."""
    latest: dict[str, TransferRecord] = {}
    for record in records:
        known = latest.get(record.transfer_id)
        if known is None or _version(known) < _version(record):
            latest[record.transfer_id] = record
    attempt = max((record.attempt for record in latest.values()), default=0)
    current = [record for record in latest.values() if record.attempt == attempt]
    return sorted(current, key=lambda record: (record.created_at, record.transfer_id))


def _version(record: TransferRecord) -> tuple[int, bool, int]:
    """Order the versions of one record: what has ended stays ended within its attempt."""
    return (record.attempt, is_final(record.state), record.sequence)


def fold(
    records: Iterable[TransferRecord], *, now: float, mount_path: str = "/uploads"
) -> UploadProgress | None:
    """Return the snapshot that *records* of one upload amount to at *now*.

    Args:
        records: Any versions of the upload's records, in any order.
        now: Seconds since the epoch, on the clock that stamped the leases.
        mount_path: Where the progress API is mounted, for the links.

    Returns:
        The snapshot; None when there is no record.
    """
    current = _current(records, now)
    if not current:
        return None
    decided = as_of(deciding(current), now)
    # What a transfer says of itself goes before what was announced of it.
    speaking = sorted(current, key=lambda record: record.started_at is None)
    received, repeated, total = _counted(speaking, decided)
    stalled = decided.state is UploadState.RECEIVING and decided.stalled
    rate = _rate(current) if decided.state is UploadState.RECEIVING and not stalled else None
    return UploadProgress(
        upload_id=decided.upload_id,
        group=_first(record.group for record in speaking),
        sequence=sum(record.sequence for record in current),
        attempt=decided.attempt,
        state=decided.state,
        stage=decided.stage if decided.state is UploadState.PROCESSING else None,
        bytes_transferred=received,
        total_bytes=total,
        percent=percent_of(received, total, decided.state),
        bytes_per_second=rate,
        eta_seconds=eta_seconds(None if total is None else total - received, rate),
        retransmitted_bytes=repeated,
        parts=_parts(current, decided),
        stalled=stalled,
        arrival=_arrival(current),
        filename=_first(record.filename for record in speaking),
        content_type=_first(record.content_type for record in speaking),
        metadata=_first(record.metadata for record in speaking),
        created_at=_moment(current[0].created_at),
        started_at=_at(min, [record.started_at for record in current]),
        updated_at=_moment(max(record.updated_at for record in current)),
        last_byte_at=_at(max, [record.last_byte_at for record in current]),
        finished_at=_at(max, [decided.finished_at]),
        error=decided.error if decided.state in _STOPPED else None,
        links=links_of(decided.upload_id, mount_path),
    )


def _current(records: Iterable[TransferRecord], now: float) -> list[TransferRecord]:
    """Return the newest records, with those lost whose worker is; what waits decides later."""
    return [
        record if is_waiting(record.state) else as_of(record, now) for record in newest(records)
    ]


def _counted(
    records: Sequence[TransferRecord], decided: TransferRecord
) -> tuple[int, int, int | None]:
    """Return how many bytes are here, how many came again, and how many there are to come."""
    received, repeated = _received(records)
    total = _total(records, received)
    if decided.protocol is not None and decided.state is UploadState.COMPLETED:
        # The server has it all, whatever part of that came to the writers known here.
        received = total = received if total is None else total
    return received, repeated, total


def _received(records: Sequence[TransferRecord]) -> tuple[int, int]:
    """Return how many bytes are here, and how many of those that came did so again."""
    plain = sum(record.received_bytes for record in records if record.protocol is None)
    repeated = sum(record.retransmitted_bytes for record in records)
    several = [record for record in records if record.protocol is not None]
    if not several:
        return plain, repeated
    spans = [span for record in several for span in record.spans]
    sent = covered(received(spans))
    repeated += sum(covered(received(record.spans)) for record in several) - sent
    held = max(record.confirmed_bytes for record in several)
    here = covered(known([*spans, ("", 0, held, True)]))
    total = _announced(records)
    return plain + (here if total is None else min(here, total)), repeated


def _parts(records: Sequence[TransferRecord], decided: TransferRecord) -> Parts | None:
    spans = numbered(span for record in records for span in record.spans)
    if not spans:
        return None
    received = whole_parts(spans)
    return Parts(received, received if decided.state is UploadState.COMPLETED else None)


def _total(records: Sequence[TransferRecord], received: int) -> int | None:
    """Return the announced size; one that more bytes than that have proved wrong is unknown."""
    total = _announced(records)
    return None if total is None or received > total else total


def _announced(records: Sequence[TransferRecord]) -> int | None:
    """Return the announced size: of all parts together, where each of them announces its own."""
    in_parts = declared(span for record in records for span in record.spans)
    return in_parts or _first(record.total_bytes for record in records)


def deciding(records: Sequence[TransferRecord]) -> TransferRecord:
    """Return the record whose state is the upload's, of those that ``newest`` left.

    The first failure or cancellation ends the upload, unless it had been completed before.
    Else any open transfer keeps it open; else the last completion ends it; else it is as
    it was announced. Of an upload in many requests the completion ends it at once: it is the
    server's word on the whole, and not on one request.
    """
    if len(records) == 1:
        return records[0]
    stopped = min(
        (record for record in records if record.state in _STOPPED), key=_ended, default=None
    )
    completed = max(
        (record for record in records if record.state is UploadState.COMPLETED),
        key=_ended,
        default=None,
    )
    running = [record for record in records if record.state in _OPEN_RANK]
    if completed and completed.protocol is not None:
        running = []
    if stopped and (running or not completed or _ended(stopped) < _ended(completed)):
        return stopped
    if running:
        return min(running, key=lambda record: _OPEN_RANK.index(record.state))
    return completed or records[0]


def _ended(record: TransferRecord) -> tuple[float, str]:
    return (record.finished_at or 0.0, record.transfer_id)


def percent_of(received: int, total: int | None, state: UploadState) -> float | None:
    """Return the share that is here: 0 to 100, one decimal, rounded down.

    Nothing is all of nothing only once the body has ended: an empty upload has no percent
    while it waits, and 100.0 when it is here.
    """
    if total is None:
        return None
    if total <= 0:
        return 100.0 if state in {UploadState.PROCESSING, UploadState.COMPLETED} else None
    return min(received * 1000 // total, 1000) / 10


def sum_of(uploads: Sequence[UploadProgress]) -> UploadTotal:
    """Add up *uploads*: a total with an unknown part is unknown, and so is its percent."""
    received = sum(upload.bytes_transferred for upload in uploads)
    total = _sum_known([upload.total_bytes for upload in uploads])
    rates = [upload.bytes_per_second for upload in uploads if upload.bytes_per_second]
    rate = round(sum(rates), 1) if rates else None
    here = all(upload.bytes_transferred == upload.total_bytes for upload in uploads)
    return UploadTotal(
        uploads=len(uploads),
        bytes_transferred=received,
        total_bytes=total,
        percent=None if not total else (100.0 if here else min(received * 1000 // total, 999) / 10),
        bytes_per_second=rate,
        eta_seconds=eta_seconds(None if total is None else total - received, rate),
    )


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _rate(records: Sequence[TransferRecord]) -> float | None:
    rates = [
        record.bytes_per_second
        for record in records
        if record.state is UploadState.RECEIVING and record.bytes_per_second is not None
    ]
    return round(sum(rates), 1) if rates else None


def _arrival(records: Sequence[TransferRecord]) -> Arrival | None:
    seen = {record.arrival for record in records}
    return Arrival.BUFFERED if Arrival.BUFFERED in seen else _first(seen)


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _moment(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _at(choose: Callable[[list[float]], float], moments: Sequence[float | None]) -> datetime | None:
    known = [moment for moment in moments if moment is not None]
    return _moment(choose(known)) if known else None


def links_of(upload_id: str, mount_path: str) -> Links:
    """Return where *upload_id* is read, followed and cancelled under *mount_path*."""
    upload = f"{mount_path}/{upload_id}"
    progress = f"{upload}/progress"
    return Links(progress=progress, events=progress, websocket=progress, cancel=upload)
