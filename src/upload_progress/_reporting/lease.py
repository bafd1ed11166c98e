"""The lease of this worker, on its own clock: what other workers may assume about it.

While it lasts, no other worker ends the uploads that are received here. When this process stood
still, or the store was away, it may have run out: then other workers may have ended them.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

from attrs import define, field

from upload_progress.interfaces import Clock

__all__ = ["LEASE_SECONDS", "RENEWALS_PER_LEASE", "Lease"]

LEASE_SECONDS: Final = 15.0
RENEWALS_PER_LEASE: Final = 7.5
"""How often a lease is renewed while it lasts: more than twice in the time without a renewal after
which stores assume that no lease could be renewed (``backends.lease_table.PAUSE_SHARE``)."""


@define(eq=False, repr=False, kw_only=True)
class Lease:
    """When the lease of this worker was renewed.

    Args:
        clock: The time.
        seconds: How long a lease lasts.
        is_shared: Whether other workers can write into the store; else a lease never runs out.
        parts: The number of parts of the store: there is a lease in each.
    """

    clock: Clock
    seconds: float
    is_shared: bool
    parts: int = 1
    _renewed_at: dict[int, float] = field(factory=dict, init=False)

    @property
    def due(self) -> Sequence[int]:
        """The parts in which it is time to renew the lease."""
        latest = self.clock.monotonic() - self.seconds / RENEWALS_PER_LEASE
        return [each for each in range(self.parts) if self._renewed_at.get(each, -inf) <= latest]

    def has_run_out(self, part: int) -> bool:
        """Whether it was renewed, and not within its duration: other workers may have noticed."""
        if not self.is_shared or part not in self._renewed_at:
            return False
        return self.clock.monotonic() - self._renewed_at[part] >= self.seconds

    def mark_renewed(self, part: int, at: float) -> None:
        """Record that a part has renewed it, when asked at that time in monotonic seconds."""
        self._renewed_at[part] = at

    def give_up(self) -> None:
        """Record that it is not renewed any more: nothing is received."""
        self._renewed_at.clear()
