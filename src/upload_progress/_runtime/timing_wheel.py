"""A timing wheel: finds due items without looking at the others.

Items are put into buckets by the tick in which they are due; taking due items touches their buckets
only. Items cannot be removed before they are due: the caller checks whether an item still matters,
which is cheaper than an index for removal.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from attrs import define, field

__all__ = ["TimingWheel"]

T = TypeVar("T")


@define(repr=False)
class TimingWheel(Generic[T]):
    """Items and their due times, with a resolution of *tick_seconds*; time is an argument."""

    tick_seconds: float
    _buckets: dict[int, list[T]] = field(factory=dict, init=False)
    _next_tick: int | None = field(default=None, init=False)

    def add(self, item: T, at_seconds: float) -> int:
        """Add *item*, due at *at_seconds*; return its tick."""
        tick = int(at_seconds / self.tick_seconds) + 1
        self._buckets.setdefault(tick, []).append(item)
        if self._next_tick is None or tick < self._next_tick:
            self._next_tick = tick
        return tick

    def take(self, now_seconds: float, limit: int) -> Iterator[T]:
        """Remove and yield up to *limit* due items; call again for more."""
        now_tick = int(now_seconds / self.tick_seconds)
        while limit > 0 and self._next_tick is not None and self._next_tick <= now_tick:
            tick = self._next_tick
            bucket = self._buckets[tick]
            while bucket and limit > 0:
                limit -= 1
                yield bucket.pop()
            if not bucket:
                del self._buckets[tick]
                self._next_tick = min(self._buckets, default=None)

    def __len__(self) -> int:
        """Return the number of items."""
        return sum(map(len, self._buckets.values()))
