"""The lease of this worker, on its own clock: what other workers may assume about it.

While it lasts, no other worker ends the uploads that are received here. When this process stood
still, or the store was away, it may have run out: then other workers may have ended them.
"""

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
    """

    clock: Clock
    seconds: float
    is_shared: bool
    _renewed_at: float | None = field(default=None, init=False)

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew the lease."""
        interval = self.seconds / RENEWALS_PER_LEASE
        return self._renewed_at is None or self._age(self._renewed_at) >= interval

    @property
    def has_run_out(self) -> bool:
        """Whether it was renewed, and not within its duration: other workers may have noticed."""
        if not self.is_shared or self._renewed_at is None:
            return False
        return self._age(self._renewed_at) >= self.seconds

    def mark_renewed(self, at: float) -> None:
        """Record that the store has renewed it, when asked at that time in monotonic seconds."""
        self._renewed_at = at

    def give_up(self) -> None:
        """Record that it is not renewed any more: nothing is received."""
        self._renewed_at = None

    def _age(self, renewed_at: float) -> float:
        return self.clock.monotonic() - renewed_at
