"""The leases of workers, as a store counts them: a lease runs out only while leases can be renewed.

If no worker at all renews its lease, the store was away from all of them, or the machine stood
still. Then no lease counts as run out. When renewals begin again, each worker has one more lease
from that moment, however long its own connection takes to come back.

The stores outside this process follow the same rule, in Lua and in SQL.
"""

from typing import Final

from attrs import define, field

__all__ = ["PAUSE_SHARE", "LeaseTable"]

PAUSE_SHARE: Final = 3
"""After this part of a lease without a renewal of any worker, no lease counts as run out."""


@define
class LeaseTable:
    """The leases of all workers, in seconds of one monotonic clock.

    >>> leases = LeaseTable()
    >>> leases.renew("one", seconds=15.0, now=0.0)
    >>> leases.renew("other", seconds=15.0, now=1.0)
    >>> leases.overdue(now=100.0)
    []
    >>> leases.renew("other", seconds=15.0, now=100.0)
    >>> leases.overdue(now=100.0)
    []
    >>> for second in range(102, 116, 2):
    ...     leases.renew("other", seconds=15.0, now=second)
    >>> leases.overdue(now=115.0)
    ['one']
    """

    _until: dict[str, float] = field(factory=dict, init=False)
    _seconds: float = field(default=0.0, init=False)
    _renewed_at: float | None = field(default=None, init=False)
    _resumed_at: float = field(default=0.0, init=False)

    def __contains__(self, worker: str) -> bool:
        """Return whether *worker* has a lease, or had one."""
        return worker in self._until

    def renew(self, worker: str, *, seconds: float, now: float) -> None:
        """Renew the lease of *worker* for *seconds* from *now*."""
        if self._renewed_at is None or now - self._renewed_at > seconds / PAUSE_SHARE:
            self._resumed_at = now
        self._renewed_at, self._seconds = now, seconds
        self._until[worker] = now + seconds

    def add(self, worker: str, *, seconds: float, now: float) -> None:
        """Give *worker* a first lease, if it has none; it is no renewal."""
        self._until.setdefault(worker, now + seconds)

    def remove(self, worker: str) -> None:
        """Forget the lease of *worker*."""
        del self._until[worker]

    def until(self, worker: str | None, now: float) -> float | None:
        """Return when the lease of *worker* runs out; None if it has none.

        While no worker renews its lease, that is a full lease from *now*.
        """
        until = self._until.get(worker or "")
        if until is None:
            return None
        return max(until, (now if self._is_paused(now) else self._resumed_at) + self._seconds)

    def overdue(self, now: float) -> list[str]:
        """Return the workers whose lease has run out."""
        if self._is_paused(now) or now < self._resumed_at + self._seconds:
            return []
        return [worker for worker, until in self._until.items() if until <= now]

    def _is_paused(self, now: float) -> bool:
        return self._renewed_at is None or now - self._renewed_at > self._seconds / PAUSE_SHARE
