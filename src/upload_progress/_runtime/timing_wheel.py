"""A timing wheel: things to look at later, found without looking at all of them.

Items are put into buckets by the tick in which they fall due. Taking what is due touches
the due buckets and nothing else. There is no cancelling: whoever takes an item out asks it
whether it still matters, which is cheaper than keeping a way back to it.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from attrs import define, field

__all__ = [
    "TimingWheel",
]

T = TypeVar("T")


@define(repr=False)
class TimingWheel(Generic[T]):
    """Holds items until their time, *tick_seconds* apart. Time is passed in."""

    tick_seconds: float
    _buckets: dict[int, list[T]] = field(factory=dict, init=False)
    _next_tick: int | None = field(default=None, init=False)

    def add(self, item: T, at_seconds: float) -> int:
        """Keep *item* until *at_seconds*; return the tick it falls into."""
        tick = int(at_seconds / self.tick_seconds) + 1
        self._buckets.setdefault(tick, []).append(item)
        if self._next_tick is None or tick < self._next_tick:
            self._next_tick = tick
        return tick

    def take(self, now_seconds: float, limit: int) -> Iterator[T]:
        """Yield and forget up to *limit* items that are due; call again for more."""
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
        """How many items are kept."""
        return sum(map(len, self._buckets.values()))
