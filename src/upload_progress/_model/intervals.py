"""A set of bytes as sorted, disjoint intervals, kept up to date as bytes are added and removed."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from attrs import define, field

__all__ = ["Intervals"]


@define(eq=False, repr=False)
class Intervals:
    """A set of bytes; intervals that touch are joined.

    An operation searches the place by bisection, and changes the intervals that it touches.

    >>> known = Intervals()
    >>> [known.add(0, 5), known.add(3, 8), known.add(10, 12)]
    [5, 3, 2]
    >>> list(known)
    [(0, 8), (10, 12)]

    Attributes:
        total_bytes: The number of bytes in the set.
    """

    total_bytes: int = field(default=0, init=False)
    _starts: list[int] = field(factory=list, init=False)
    _stops: list[int] = field(factory=list, init=False)

    def __len__(self) -> int:
        """Return the number of intervals."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the intervals, in order."""
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def touches(self, start: int, stop: int) -> bool:
        """Return whether an interval overlaps the bytes from *start* to *stop*, or touches them."""
        first, last = self._touched(start, stop)
        return first < last

    def add(self, start: int, stop: int) -> int:
        """Add the bytes from *start* up to *stop*; return how many of them are new."""
        if stop <= start:
            return 0
        first, last = self._touched(start, stop)
        before = 0
        if first < last:
            before = sum(self._stops[first:last]) - sum(self._starts[first:last])
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]
        gained = stop - start - before
        self.total_bytes += gained
        return gained

    def _touched(self, start: int, stop: int) -> tuple[int, int]:
        """Return the slice of the intervals that overlap *start* to *stop*, or touch it."""
        return bisect_left(self._stops, start), bisect_right(self._starts, stop)

    def remove(self, start: int, stop: int) -> None:
        """Remove the bytes from *start* up to *stop*."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if first >= last or stop <= start:
            return
        rest = [
            (left, right)
            for left, right in (
                (self._starts[first], start),
                (stop, self._stops[last - 1]),
            )
            if left < right
        ]
        removed = sum(self._stops[first:last]) - sum(self._starts[first:last])
        self.total_bytes -= removed - sum(right - left for left, right in rest)
        self._starts[first:last] = [left for left, _ in rest]
        self._stops[first:last] = [right for _, right in rest]

    def count_within(self, start: int, stop: int) -> int:
        """Return how many bytes from *start* up to *stop* are in the set."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if first >= last or stop <= start:
            return 0
        inside = sum(self._stops[first:last]) - sum(self._starts[first:last])
        before = max(0, start - self._starts[first])
        return inside - before - max(0, self._stops[last - 1] - stop)

    def end_from(self, position: int) -> int:
        """Return the first byte at or after *position* that is missing.

        A position at the end of an interval, or just before one, belongs to it.
        """
        first, last = self._touched(position, position)
        return self._stops[last - 1] if first < last else position

    def between(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the intervals within *start* to *stop*, cut at these bounds."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        pairs = zip(self._starts[first:last], self._stops[first:last], strict=True)
        return [(max(left, start), min(right, stop)) for left, right in pairs]
