"""Byte ranges of an upload, as its records list them, so that no byte is counted twice.

A range is ``(part, start, stop, is_accepted)``: the bytes from *start* up to *stop* of a part, and
whether the application has accepted them. The union of ranges does not depend on order, duplicates,
overlaps or the number of writers. Refused bytes are in no range.

A part whose address is not known yet has a name with the prefix ``.?``: a request that creates an
upload, before the response. If there is one other part with an address, it is the same part.

Prefixes of part names mark entries that are not ranges of received bytes: ``~`` the announced size
of a part, ``=`` how much of it the application has confirmed, ``@`` an accepted numbered part with
the time of its acceptance, ``%`` a set of numbered parts: their numbers as the bits of a
hexadecimal number, and the sum of their sizes. So a record of 10,000 parts has a bounded size.

A numbered part is accepted as a whole, and replaces the one of the same number: of several workers
the one that has accepted it last counts. Parts in a set have no times: a part with a time counts
before them.
"""

from collections.abc import Iterable
from typing import Final

from upload_progress._model.models import ByteRange

__all__ = [
    "MAX_PART_NUMBER",
    "accepted_end",
    "confirmed",
    "contiguous_end",
    "count_accepted",
    "count_accepted_parts",
    "count_bytes",
    "has_numbered_parts",
    "of_numbered_parts",
    "part_accepted_at",
    "part_number",
    "part_set",
    "part_size",
    "read_accepted_part",
    "read_part_set",
    "sum_of_part_sizes",
    "unnamed_part",
    "with_confirmed",
    "without_confirmed",
]

MAX_PART_NUMBER: Final = 10_000
"""The largest number of a part, as in Amazon S3."""

_UNNAMED = ".?"
_SIZE = "~"
_CONFIRMED = "="
_PART_SET = "%"
_ACCEPTED_AT = "@"
_PARTS = (_PART_SET, _ACCEPTED_AT)
_UNNUMBERED = (".", _SIZE, _CONFIRMED, *_PARTS)


def part_number(part: str) -> int | None:
    """Return the number of *part*; None if its name is no number from 1 to 10,000."""
    if len(part) > len(str(MAX_PART_NUMBER)) or not (part.isascii() and part.isdecimal()):
        return None
    number = int(part)
    return number if 1 <= number <= MAX_PART_NUMBER and str(number) == part else None


def part_accepted_at(number: int, size_bytes: int, microseconds: int) -> ByteRange:
    """Return the entry of an accepted part.

    >>> part_accepted_at(2, 30, 1700000000000)
    ('@1700000000000.2', 0, 30, True)

    Args:
        number: The number of the part.
        size_bytes: Its size.
        microseconds: When it was accepted, since the Unix epoch.
    """
    return (f"{_ACCEPTED_AT}{microseconds}.{number}", 0, size_bytes, True)


def read_accepted_part(entry: ByteRange) -> tuple[int, int] | None:
    """Return number of a part, and when it was accepted; None for an entry without such a time.

    >>> read_accepted_part(part_accepted_at(2, 30, 1700000000000))
    (2, 1700000000000)
    """
    if not entry[0].startswith(_ACCEPTED_AT):
        return None
    microseconds, _, number = entry[0][1:].partition(".")
    return int(number), int(microseconds)


def part_set(numbers: int, size_bytes: int) -> ByteRange:
    """Return the entry of accepted parts.

    >>> part_set(0b110, 30)
    ('%6', 0, 30, True)

    Args:
        numbers: Bit N is set for part N.
        size_bytes: The sum of their sizes.
    """
    return (f"{_PART_SET}{numbers:x}", 0, size_bytes, True)


def read_part_set(entry: ByteRange) -> int | None:
    """Return the numbers of the parts of an entry, as bits; None for any other entry."""
    part = entry[0]
    return int(part[1:], 16) if part.startswith(_PART_SET) else None


def _part_sets(ranges: Iterable[ByteRange]) -> list[tuple[int, int]]:
    """Return numbers and size of each set of parts, the largest first."""
    sets = [(numbers, each[2]) for each in ranges if (numbers := read_part_set(each)) is not None]
    return sorted(sets, key=lambda each: (-each[0].bit_count(), each))


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


def unnamed_part(part: str) -> str:
    """Return the name of *part*, whose address is not known yet."""
    return _UNNAMED + part


def _with_names(ranges: list[ByteRange]) -> list[ByteRange]:
    """Return *ranges*; those of an unnamed part under the name of the only other part."""
    if not any(each[0].startswith(_UNNAMED) for each in ranges):
        return ranges
    named = {part for part, *_ in ranges if part[:1] == "." and not part.startswith(_UNNAMED)}
    if len(named) != 1:
        return ranges
    [name] = named
    return [(name, *each[1:]) if each[0].startswith(_UNNAMED) else each for each in ranges]


def count_bytes(ranges: Iterable[ByteRange]) -> int:
    """Return the number of bytes in the union of *ranges*.

    A part that two workers have accepted is counted once: with the size of the newest one, or, if
    both list it in a set, with the mean size of a part.
    """
    known = _with_names(list(ranges))
    sizes = _newest_sizes(known)
    count, numbers = sum(sizes.values()), sum(1 << number for number in sizes)
    for more, size_bytes in _part_sets(known):
        count += size_bytes * (more & ~numbers).bit_count() // max(1, more.bit_count())
        numbers |= more
    for part, start, stop, _ in _join(each for each in known if not each[0].startswith(_PARTS)):
        number = part_number(part)
        if number is None or not numbers >> number & 1:
            count += stop - start
    return count


def _newest_sizes(ranges: Iterable[ByteRange]) -> dict[int, int]:
    """Return the size of each part that has a time: that of the newest one."""
    newest = dict[int, tuple[int, int]]()
    for each in ranges:
        read = read_accepted_part(each)
        if read is not None:
            number, microseconds = read
            newest[number] = max(newest.get(number, (0, 0)), (microseconds, each[2]))
    return {number: size_bytes for number, (_, size_bytes) in newest.items()}


def count_accepted(ranges: Iterable[ByteRange]) -> int:
    """Return the number of bytes that the application has accepted."""
    return count_bytes(each for each in ranges if each[3])


def contiguous_end(ranges: Iterable[ByteRange], part: str = "") -> int:
    """Return up to which byte *part* is contained in *ranges* without a gap."""
    joined = _join(each for each in ranges if each[0] == part)
    return joined[0][2] if joined and joined[0][1] == 0 else 0


def accepted_end(ranges: Iterable[ByteRange]) -> int:
    """Return the first byte of the upload that is not accepted: all before it are.

    Numbered parts count if none is missing before the last one. Parts that the client joins at the
    end, in an order that it tells only then, do not count.

    >>> accepted_end([("", 0, 5, True), ("", 5, 7, False), ("", 8, 9, True)])
    5
    >>> accepted_end([part_set(0b1110, 30)]), accepted_end([part_set(0b1010, 20)])
    (30, 0)
    """
    accepted = [each for each in with_confirmed(ranges) if each[3]]
    numbered = [each for each in accepted if _numbers_in(each)]
    numbers = 0
    for each in numbered:
        numbers |= _numbers_in(each)
    has_gap = (numbers + 2) & numbers
    return contiguous_end(accepted) + (0 if has_gap else count_bytes(numbered))


def _numbers_in(entry: ByteRange) -> int:
    """Return the numbers of the parts of any entry, as bits."""
    numbers = read_part_set(entry)
    if numbers is not None:
        return numbers
    read = read_accepted_part(entry)
    number = part_number(entry[0]) if read is None else read[0]
    return 0 if number is None else 1 << number


def count_accepted_parts(ranges: Iterable[ByteRange]) -> int:
    """Return the number of numbered parts that the application has accepted."""
    accepted, numbers = [each for each in ranges if each[3]], 0
    for each in accepted:
        numbers |= _numbers_in(each)
    named = {each[0] for each in of_numbered_parts(accepted) if not _numbers_in(each)}
    return numbers.bit_count() + len(named)


def of_numbered_parts(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """Return the ranges of single parts that have no time of acceptance."""
    return [each for each in ranges if each[0] and not each[0].startswith(_UNNUMBERED)]


def has_numbered_parts(ranges: Iterable[ByteRange]) -> bool:
    """Return whether the upload consists of numbered parts."""
    return any(
        each[0] and (each[0].startswith(_PARTS) or not each[0].startswith(_UNNUMBERED))
        for each in ranges
    )


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
    sizes = {part: stop for part, _, stop, _ in ranges if part.startswith(_SIZE)}
    return sum(sizes.values()) if sizes else None
