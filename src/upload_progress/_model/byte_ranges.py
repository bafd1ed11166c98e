"""Byte ranges of an upload, merged so that no byte is counted twice.

A range is ``(part, start, stop, is_accepted)``: the bytes from *start* up to *stop* of a part, and
whether the application has accepted them. The union of ranges does not depend on order, duplicates,
overlaps or the number of writers. Refused bytes are in no range.

Two prefixes of part names mark entries that are not ranges of received bytes: ``~`` the announced
size of a part, ``=`` how much of it the application has confirmed.
"""

from collections.abc import Iterable, Iterator, Sequence

from upload_progress._model.models import ByteRange

__all__ = [
    "accepted_end",
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
    "without_unaccepted_after",
]

_SIZE = "~"
_CONFIRMED = "="
_UNNUMBERED = (".", _SIZE, _CONFIRMED)


def merge(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return the union of *ranges*, sorted: accepted ranges, and the others without what they have.

    >>> merge([("", 0, 5, True), ("", 3, 8, False)])
    (('', 0, 5, True), ('', 5, 8, False))
    """
    known = list(ranges)
    accepted = _join(each for each in known if each[3])
    others = _join(each for each in known if not each[3])
    if accepted and others:
        others = list(_subtract(others, accepted))
    return tuple(sorted([*accepted, *others]))


def _join(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return *ranges* sorted; those that overlap or touch are joined."""
    union: list[ByteRange] = []
    for part, start, stop, is_accepted in sorted(ranges):
        if union and union[-1][0] == part and start <= union[-1][2]:
            _, first, last, was_accepted = union[-1]
            union[-1] = (part, first, max(last, stop), was_accepted or is_accepted)
        else:
            union.append((part, start, stop, is_accepted))
    return union


def _subtract(ranges: Sequence[ByteRange], removed: Sequence[ByteRange]) -> Iterator[ByteRange]:
    """Yield *ranges* without the bytes of *removed*; both are sorted and joined."""
    following = 0
    for part, start, stop, is_accepted in ranges:
        while following < len(removed) and removed[following][:3:2] <= (part, start):
            following += 1
        rest, index = start, following
        while index < len(removed) and removed[index][:2] < (part, stop):
            if rest < removed[index][1]:
                yield (part, rest, removed[index][1], is_accepted)
            rest = removed[index][2]
            index += 1
        if rest < stop or start == stop:
            yield (part, rest, stop, is_accepted)


def without_unaccepted_after(
    ranges: Iterable[ByteRange], part: str, offset: int
) -> tuple[ByteRange, ...]:
    """Return *ranges* without the bytes of *part* from *offset* that were not accepted.

    >>> without_unaccepted_after([("", 0, 5, True), ("", 5, 9, False)], "", 5)
    (('', 0, 5, True),)
    """
    clipped = (
        (name, start, min(stop, offset) if name == part and not is_accepted else stop, is_accepted)
        for name, start, stop, is_accepted in ranges
    )
    return tuple(each for each in clipped if each[1] < each[2] or each[0] != part)


def count_bytes(ranges: Iterable[ByteRange]) -> int:
    """Return the number of bytes in the union of *ranges*."""
    return sum(stop - start for _, start, stop, _ in _join(ranges))


def contiguous_end(ranges: Iterable[ByteRange], part: str = "") -> int:
    """Return up to which byte *part* is contained in *ranges* without a gap."""
    return next((each[2] for each in _join(ranges) if each[:2] == (part, 0)), 0)


def accepted_end(ranges: Iterable[ByteRange]) -> int:
    """Return the first byte of the upload that is not accepted: all before it are.

    Numbered parts count from the first up to the first one that is missing. Parts that the client
    joins at the end, in an order that it tells only then, do not count.

    >>> accepted_end([("", 0, 5, True), ("", 5, 7, False), ("", 8, 9, True)])
    5
    >>> accepted_end([("1", 0, 5, True), ("2", 0, 4, True), ("4", 0, 4, True)])
    9
    """
    accepted = [each for each in with_confirmed(ranges) if each[3]]
    sizes = {int(part): stop for part, _, stop, _ in _join(of_numbered_parts(accepted))}
    end, number = contiguous_end(accepted), 1
    while number in sizes:
        end, number = end + sizes[number], number + 1
    return end


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
    ends = [stop for part, _, stop, _ in _join(ranges) if part.startswith(_SIZE)]
    return sum(ends) if ends else None
