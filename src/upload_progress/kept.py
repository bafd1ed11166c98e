"""What stores outside this process have in common: times that only they know, what is overdue."""

from collections.abc import Iterator, Sequence

from attrs import evolve

from upload_progress.fold import deciding
from upload_progress.lifecycle import is_final, is_waiting
from upload_progress.memory import Retention
from upload_progress.model import TransferRecord

__all__ = ["bare", "lost", "stamped"]


def bare(record: TransferRecord) -> TransferRecord:
    """Return *record* without the times that the store stamps on it."""
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
