"""Who ends what nobody else will.

Every worker sees the same overdue uploads at about the same time, and a topic lets none claim one
before the others. So they take turns, in an order that all of them find alike, and that differs
from upload to upload: that of the hashes of worker and upload (rendezvous hashing, Thaler and
Ravishankar 1998). Whoever is not the first waits, and then mostly finds nothing left to do.
"""

from collections.abc import Collection, Sequence
from typing import Final
from zlib import crc32

from attrs import define, field

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.kafka.messages import record_key

__all__ = [
    "TURN_SECONDS",
    "ReaperAssignment",
]

TURN_SECONDS: Final = 2.0
"""How long the next waits for the one before: longer than a sweep and a write take."""


@define(eq=False, repr=False)
class ReaperAssignment:
    """Remembers since when each upload is overdue."""

    _since: dict[UploadKey, float] = field(factory=dict, init=False)

    def due_to(
        self,
        worker: str | None,
        alive: Collection[str],
        overdue: Sequence[TransferRecord],
        now: float,
    ) -> Sequence[TransferRecord]:
        """Return those of *overdue* that *worker* shall end.

        Args:
            worker: This one; None has no name yet, and comes last.
            alive: The names of all whose leases run.
            overdue: All that are overdue.
            now: In monotonic seconds.
        """
        self._since = {each.key: self._since.get(each.key, now) for each in overdue}
        places = {key: _place(key, worker, alive) for key in self._since}
        return [
            each
            for each in overdue
            if self._since[each.key] + TURN_SECONDS * places[each.key] <= now
        ]


def _place(key: UploadKey, worker: str | None, alive: Collection[str]) -> int:
    """Return how many come before *worker*."""
    if worker is None:
        return len(alive)
    name = record_key(key.owner, key.upload_id, "")
    mine = _hash(name, worker)
    return sum(_hash(name, other) > mine for other in alive)


def _hash(name: bytes, worker: str) -> tuple[int, str]:
    return crc32(name, crc32(worker.encode())), worker
