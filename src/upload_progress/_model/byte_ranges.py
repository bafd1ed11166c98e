"""Byte ranges of an upload, merged so that no byte is counted twice.

A range is ``(part, start, stop, is_accepted)``: the bytes from *start* up to *stop* of a part, and
whether the application has accepted them. The union of ranges does not depend on order, duplicates,
overlaps or the number of writers.

Two prefixes of part names mark entries that are not ranges of received bytes: ``~`` the announced
size of a part, ``=`` how much of it the application has confirmed.
"""

from collections.abc import Iterable

from upload_progress._model.models import ByteRange

__all__ = [
    "confirmed",
    "contiguous_end",
    "count_accepted_parts",
    "count_bytes",
    "merge",
    "of_numbered_parts",
    "part_size",
    "sum_of_part_sizes",
    "with_confirmed",
    "without_confirmed",
]

_SIZE = "~"
_CONFIRMED = "="
_UNNUMBERED = (".", _SIZE, _CONFIRMED)


def merge(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return the union of *ranges*, sorted; ranges that overlap or touch are joined."""
    union: list[ByteRange] = []
    for part, start, stop, is_accepted in sorted(ranges):
        if union and union[-1][0] == part and start <= union[-1][2]:
            _, first, last, was_accepted = union[-1]
            union[-1] = (part, first, max(last, stop), was_accepted or is_accepted)
        else:
            union.append((part, start, stop, is_accepted))
    return tuple(union)


def count_bytes(ranges: Iterable[ByteRange]) -> int:
    """Return the number of bytes in the union of *ranges*."""
    return sum(stop - start for _, start, stop, _ in merge(ranges))


def contiguous_end(ranges: Iterable[ByteRange], part: str = "") -> int:
    """Return up to which byte *part* is contained in *ranges* without a gap."""
    return next((each[2] for each in merge(ranges) if each[:2] == (part, 0)), 0)


def count_accepted_parts(ranges: Iterable[ByteRange]) -> int:
    """Return the number of numbered parts that the application has accepted."""
    return len({part for part, _, _, is_accepted in of_numbered_parts(ranges) if is_accepted})


def of_numbered_parts(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return the ranges of numbered parts."""
    return [each for each in ranges if each[0] and not each[0].startswith(_UNNUMBERED)]


def part_size(part: str, length: int) -> ByteRange:
    """Return an empty range at the end of *part*, which stores its announced size."""
    return (_SIZE + part, length, length, False)


def confirmed(part: str, stop: int) -> ByteRange:
    """Return the range that the application said it has, whichever worker received it."""
    return (_CONFIRMED + part, 0, stop, True)


def with_confirmed(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return *ranges* with confirmed ones as ranges of their parts."""
    return [(each[0].removeprefix(_CONFIRMED), *each[1:]) for each in ranges]


def without_confirmed(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return the ranges that arrived, without confirmed ones."""
    return [each for each in ranges if not each[0].startswith(_CONFIRMED)]


def sum_of_part_sizes(ranges: Iterable[ByteRange]) -> int | None:
    """Return the sum of the announced sizes of parts; None if no part announces one."""
    ends = [stop for part, _, stop, _ in merge(ranges) if part.startswith(_SIZE)]
    return sum(ends) if ends else None
