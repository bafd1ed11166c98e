"""What stores outside this process have in common.

They look at little of a record: in which version it is, of what kind, and since when. The rest is
packed. The times that only the store knows are stamped on a record when it is read.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import msgspec
from attrs import evolve

from upload_progress._model.codec import unpack_record
from upload_progress._model.fold import deciding
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.state import is_final, is_waiting
from upload_progress.backends.memory import advances
from upload_progress.config import Retention

__all__ = [
    "bare",
    "decided_at",
    "kind_of",
    "lost",
    "settled",
    "stamped",
    "unpacked",
]

_upload: Final = attrgetter("owner", "upload_id")

_KINDS: Final = {
    UploadState.PENDING: "N",
    UploadState.RECEIVING: "R",
    UploadState.PROCESSING: "R",
    UploadState.PAUSED: "P",
    UploadState.COMPLETED: "C",
    UploadState.FAILED: "S",
    UploadState.CANCELLED: "S",
}


def kind_of(record: TransferRecord) -> str:
    """Return what stores tell apart: waiting (N, P), running (R), ended well (C, D) or not (S).

    C says that one request has ended well, D that the upload in many requests has.
    """
    is_whole = record.protocol is not None and record.state is UploadState.COMPLETED
    return "D" if is_whole else _KINDS[record.state]


def decided_at(record: TransferRecord) -> float:
    """Return since when *record* has ended, or else waits or runs."""
    ended_at = record.finished_at if is_final(record.state) else None
    return float(record.updated_at if ended_at is None else ended_at)


def settled(records: Sequence[TransferRecord]) -> list[TransferRecord]:
    """Return what is left of *records* written one after the other, in a settled order.

    Those that write the same in the same order wait for each other, and never cross.
    """
    if len({_upload(record) for record in records}) == len(records):
        return sorted(records, key=_upload)
    uploads: dict[tuple[str, str], dict[str, TransferRecord]] = {}
    for record in records:
        known = uploads.setdefault((record.owner, record.upload_id), {})
        if not known or advances(record, list(known.values())):
            if any(other.attempt < record.attempt for other in known.values()):
                known.clear()
            known[record.transfer_id] = record
    return [known[name] for _, known in sorted(uploads.items()) for name in sorted(known)]


def unpacked(owner: str, upload_id: str, data: bytes) -> TransferRecord | None:
    """Return what was packed; None of what nobody here has packed."""
    try:
        return unpack_record(owner, upload_id, data)
    except (msgspec.MsgspecError, UnicodeError, ValueError):
        return None


def bare(record: TransferRecord) -> TransferRecord:
    """Return *record* without the times that the store stamps on it."""
    if record.lease_until is None and record.expires_at is None:
        return record
    return evolve(record, lease_until=None, expires_at=None)


def stamped(
    record: TransferRecord, retention: Retention, lease_until: float | None
) -> TransferRecord:
    """Return *record* with them: by our clock, whatever the clock of the store says."""
    if is_final(record.state):
        return record
    if is_waiting(record.state):
        return evolve(record, expires_at=record.updated_at + retention.waiting_seconds)
    return evolve(record, lease_until=lease_until)


def lost(upload: Sequence[TransferRecord], now: float) -> Iterator[TransferRecord]:
    """Return what is to be ended of an upload that its store says is overdue.

    That is the record that waited too long, or those whose worker is gone: of several transfers
    of an upload, the others go on.
    """
    decided = deciding(upload)
    if is_final(decided.state):
        return
    if is_waiting(decided.state):
        # The store says that its time is over; our clock may be behind.
        yield evolve(decided, expires_at=min(decided.expires_at or now, now))
        return
    for record in upload:
        if record.lease_until is not None and record.lease_until <= now:
            yield record
