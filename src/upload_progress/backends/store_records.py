"""What all stores share: which record replaces which, and the times that only a store knows.

A store outside this process reads only a few fields of a record: its version, its state as one
character, and when that state began or ended. The rest is packed. The end of a lease and the time
of expiry are not part of a packed record: they are added when it is read.
"""

from collections.abc import Iterator, Sequence
from math import inf, isnan
from operator import attrgetter
from typing import Final

import msgspec
from attrs import evolve

from upload_progress._model.codec import unpack_record
from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.state import is_final, is_waiting
from upload_progress._model.version import version_of
from upload_progress._runtime.worker import seconds_to_deadline
from upload_progress.config import Retention

__all__ = [
    "INITIAL_LEASE_SECONDS",
    "changed_at",
    "decode_record",
    "first_lease_seconds",
    "format_cursor",
    "format_open_cursor",
    "is_open",
    "latest_records",
    "overdue_records",
    "parse_cursor",
    "parse_open_cursor",
    "state_code",
    "supersedes",
    "with_store_times",
]

INITIAL_LEASE_SECONDS: Final = 60.0
"""The lease of a worker that has saved a record and not renewed its lease yet."""

_key: Final = attrgetter("owner", "upload_id")

_STATE_CODES: Final = {
    UploadState.PENDING: "N",
    UploadState.RECEIVING: "R",
    UploadState.PROCESSING: "R",
    UploadState.PAUSED: "P",
    UploadState.COMPLETED: "C",
    UploadState.FAILED: "S",
    UploadState.CANCELLED: "S",
}


def supersedes(record: TransferRecord, known: Sequence[TransferRecord]) -> bool:
    """Return whether a store accepts *record* beside the *known* records of the same upload.

    A record of an older attempt is rejected. Of one transfer and attempt the higher sequence
    is kept, and nothing replaces a final record.
    """
    version = version_of(record)
    return all(
        version.supersedes(version_of(other))
        if other.transfer_id == record.transfer_id
        else version.attempt >= other.attempt
        for other in known
    )


def latest_records(records: Sequence[TransferRecord]) -> list[TransferRecord]:
    """Return what remains of *records* saved one after the other, sorted by their keys.

    Writers that lock rows in the same order wait for each other, and do not deadlock.
    """
    if len({_key(record) for record in records}) == len(records):
        return sorted(records, key=_key)
    uploads: dict[tuple[str, str], dict[str, TransferRecord]] = {}
    for record in records:
        known = uploads.setdefault(_key(record), {})
        if supersedes(record, list(known.values())):
            if any(other.attempt < record.attempt for other in known.values()):
                known.clear()
            known[record.transfer_id] = record
    return [known[name] for _, known in sorted(uploads.items()) for name in sorted(known)]


def state_code(record: TransferRecord) -> str:
    """Return the state of *record* as one character, as far as stores distinguish states.

    Returns:
        ``N`` pending, ``P`` paused, ``R`` receiving or processing, ``S`` failed or cancelled.
        ``C`` if a transfer is completed, ``D`` if that completes an upload in several requests.
    """
    is_whole = record.protocol is not None and record.state is UploadState.COMPLETED
    return "D" if is_whole else _STATE_CODES[record.state]


def changed_at(record: TransferRecord) -> float:
    """Return when *record* ended, or was last updated if it is open; seconds since the epoch."""
    ended_at = record.finished_at if is_final(record.state) else None
    return float(record.updated_at if ended_at is None else ended_at)


def first_lease_seconds(worker: str, now: float) -> float:
    """Return the lease of a worker that has saved a record and not renewed its lease yet.

    Args:
        worker: The name of a worker, or a deadline.
        now: Seconds since the epoch.
    """
    seconds = seconds_to_deadline(worker, now)
    return INITIAL_LEASE_SECONDS if seconds is None else seconds


def format_cursor(created_at: float, upload_id: str) -> str:
    """Return the cursor of the page that follows an upload: its position in the order of a list.

    >>> format_cursor(1.5, "video")
    '1.5:video'
    """
    return f"{created_at!r}:{upload_id}"


def parse_cursor(cursor: str | None) -> tuple[float, str]:
    """Return the time of creation and the id in *cursor*; a position before all if it has none."""
    moment, _, upload_id = (cursor or "").partition(":")
    try:
        created_at = float(moment)
    except ValueError:
        return inf, ""
    return (inf, "") if isnan(created_at) else (created_at, upload_id)


def format_open_cursor(owner: str, upload_id: str) -> str:
    """Return the cursor of the page that follows an upload in the order of owners and ids.

    >>> format_open_cursor("ann", "video")
    'video:ann'
    """
    return f"{upload_id}:{owner}"


def parse_open_cursor(cursor: str | None) -> tuple[str, str]:
    """Return owner and id in *cursor*; a position before all if it has none."""
    upload_id, _, owner = (cursor or "").partition(":")
    return (owner, upload_id) if owner else ("", "")


def is_open(upload: Sequence[TransferRecord]) -> bool:
    """Return whether an upload with these records, the newest of its attempt, has not ended."""
    return bool(upload) and not is_final(deciding(newest(upload)).state)


def decode_record(owner: str, upload_id: str, data: bytes) -> TransferRecord | None:
    """Return the record packed in *data*, or None if it cannot be decoded."""
    try:
        return unpack_record(owner, upload_id, data)
    except (msgspec.MsgspecError, UnicodeError, ValueError):
        return None


def with_store_times(
    record: TransferRecord, retention: Retention, lease_until: float | None
) -> TransferRecord:
    """Return *record* with the time when it expires, or when the lease of its worker ends.

    Args:
        record: As it was saved.
        retention: How long records are kept.
        lease_until: End of the worker's lease in seconds since the epoch, on the clock of this
            machine; None if the worker has no lease.
    """
    if is_final(record.state):
        return record
    if is_waiting(record.state):
        return evolve(record, expires_at=record.updated_at + retention.waiting_seconds)
    return evolve(record, lease_until=lease_until)


def overdue_records(upload: Sequence[TransferRecord], now: float) -> Iterator[TransferRecord]:
    """Yield the records to be ended of an upload that its store has found to be overdue.

    That is the record that waited too long, or the records whose worker is dead; other transfers
    of the same upload continue.

    Args:
        upload: The newest records of the upload, with store times.
        now: Seconds since the epoch, on the clock of this machine.
    """
    decided = deciding(newest(upload))
    if is_final(decided.state):
        return
    if is_waiting(decided.state):
        # By the clock of the store it has expired; the clock of this machine may be behind.
        yield evolve(decided, expires_at=min(decided.expires_at or now, now))
        return
    for record in upload:
        if record.lease_until is not None and record.lease_until <= now:
            yield record
