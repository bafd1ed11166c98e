"""The budget of the store: how many records per second this process may write.

Each stored version of an upload reserves a time for the next one: the first time that is free, in
steps of the budget. While fewer versions are stored than the budget allows, these times lie in the
past, and only the policy counts. Beyond it, they move into the future, so that all uploads are
stored in turn. No upload is counted or scanned for this.
"""

from typing import Final

from attrs import define, field

__all__ = ["BURST_SECONDS", "LONGEST_INTERVAL_SECONDS", "WATCHED_SHARE", "StoreBudget"]

BURST_SECONDS: Final = 1.0
"""For how long more records may be written than the budget allows, after a quiet time."""
LONGEST_INTERVAL_SECONDS: Final = 30.0
"""The longest interval between two stored versions, whatever the load, while bytes arrive."""
WATCHED_SHARE: Final = 0.75
"""How much of the budget watched uploads may take from the others."""


@define(eq=False)
class StoreBudget:
    """Distributes the records that may be written among the uploads of this process.

    >>> budget = StoreBudget(records_per_second=10)
    >>> [budget.reserve(0.0, is_watched=False) for _ in range(12)][-3:]
    [0.0, 0.1, 0.2]
    >>> budget.reserve(0.0, is_watched=True)
    0.0

    Args:
        records_per_second: The budget.
    """

    records_per_second: float
    _next_at: float = field(default=0.0, init=False)
    _next_watched_at: float = field(default=0.0, init=False)

    def reserve(self, now: float, *, is_watched: bool) -> float:
        """Count a record that is written now; return when its upload may be written again.

        Args:
            now: Monotonic seconds.
            is_watched: Whether the upload is watched at this process. Such uploads wait only for
                each other, as long as they need no more than their share.

        Returns:
            Seconds from now; 0 if the budget is not used up. Starts, ends and changes of state do
            not wait, but count.
        """
        self._next_at = self._later(self._next_at, now, 1.0)
        if is_watched:
            self._next_watched_at = self._later(self._next_watched_at, now, WATCHED_SHARE)
            return _seconds_until(min(self._next_watched_at, self._next_at), now)
        return _seconds_until(self._next_at, now)

    def interval_seconds(self, now: float) -> float:
        """Return how long uploads that are not watched wait at the moment; 0 within the budget."""
        return _seconds_until(self._next_at, now)

    def _later(self, at: float, now: float, share: float) -> float:
        step = 1.0 / (self.records_per_second * share)
        return min(max(at, now) + step, now + BURST_SECONDS + LONGEST_INTERVAL_SECONDS)


def _seconds_until(at: float, now: float) -> float:
    return max(0.0, round(at - now - BURST_SECONDS, 6))
