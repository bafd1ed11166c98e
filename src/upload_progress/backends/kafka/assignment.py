"""Which worker ends an overdue upload.

All workers see the same overdue uploads at about the same time, and a topic has no locks. So the
workers are ranked for each upload by rendezvous hashing (Thaler and Ravishankar, "Using Name-Based
Mappings to Increase Hit Rates", 1998): all workers compute the same order, and it differs between
uploads. The first worker ends the upload at once. Each further one waits a fixed time longer, and
usually finds the upload ended by then.
"""

from collections.abc import Collection, Sequence
from typing import Final
from zlib import crc32

from attrs import define, field

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.kafka.messages import record_key

__all__ = ["RANK_DELAY_SECONDS", "ReaperAssignment"]

RANK_DELAY_SECONDS: Final = 2.0
"""How much longer a worker waits than the one ranked before it: longer than a sweep and a write."""


@define(eq=False, repr=False)
class ReaperAssignment:
    """Assigns overdue uploads to workers, and remembers since when each upload is overdue."""

    _overdue_since: dict[UploadKey, float] = field(factory=dict, init=False)

    def assigned_to(
        self,
        worker: str | None,
        *,
        live_workers: Collection[str],
        overdue: Sequence[TransferRecord],
        now: float,
    ) -> Sequence[TransferRecord]:
        """Return the records of *overdue* that *worker* has to end now.

        Args:
            worker: Name of this worker; None if it has none yet, which ranks it last.
            live_workers: Names of all workers with a lease.
            overdue: All overdue records.
            now: Monotonic seconds.
        """
        self._overdue_since = {each.key: self._overdue_since.get(each.key, now) for each in overdue}
        ranks = {key: _rank(key, worker, live_workers) for key in self._overdue_since}
        return [
            each
            for each in overdue
            if self._overdue_since[each.key] + RANK_DELAY_SECONDS * ranks[each.key] <= now
        ]


def _rank(key: UploadKey, worker: str | None, live_workers: Collection[str]) -> int:
    """Return how many workers come before *worker*."""
    if worker is None:
        return len(live_workers)
    name = record_key(key.owner, key.upload_id, "")
    own_weight = _weight(name, worker)
    return sum(_weight(name, other) > own_weight for other in live_workers)


def _weight(name: bytes, worker: str) -> tuple[int, str]:
    return crc32(name, crc32(worker.encode())), worker
