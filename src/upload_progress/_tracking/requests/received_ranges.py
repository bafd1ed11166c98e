"""The bytes of an upload in several requests that this worker has received.

Two sets of bytes are kept per part: *received* bytes came over the wire, *accepted* bytes are those
of which the application said that it has them. They are kept apart, so that refused bytes can be
dropped. Both are updated with each request, in a time that does not grow with the number of
requests, and are bounded: see ``MAX_RANGES``.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._model.byte_ranges import (
    confirmed,
    part_accepted_at,
    part_number,
    part_set,
    part_size,
    read_accepted_part,
    read_part_set,
    with_confirmed,
)
from upload_progress._model.intervals import Intervals
from upload_progress._model.models import ByteRange

__all__ = ["MAX_RANGES", "MAX_SINGLE_PARTS", "ReceivedRanges"]

MAX_SINGLE_PARTS: Final = 50
"""How many numbered parts, the newest, a record lists one by one; of more, their numbers and the
sum of their sizes."""
_END: Final = 1 << 63
MAX_RANGES: Final = 1000
"""How many ranges are kept. Beyond it, bytes that touch no known range are not counted."""


@define(eq=False, repr=False)
class _Part:
    """The bytes of one part."""

    received: Intervals = field(factory=Intervals)
    accepted: Intervals = field(factory=Intervals)
    confirmed_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """The number of bytes that were received here, or that the application confirmed."""
        held = self.confirmed_bytes
        return self.received.total_bytes + held - self.received.count_within(0, held)

    @property
    def accepted_bytes(self) -> int:
        """The number of accepted bytes, wherever they were received."""
        held = self.confirmed_bytes
        return self.accepted.total_bytes + held - self.accepted.count_within(0, held)

    def entries(self, name: str) -> list[ByteRange]:
        """Return the ranges of this part for a record."""
        entries = [(name, start, stop, True) for start, stop in self.accepted]
        for start, stop in self.received:
            at = start
            for left, right in self.accepted.between(start, stop):
                if at < left:
                    entries.append((name, at, left, False))
                at = right
            if at < stop:
                entries.append((name, at, stop, False))
        return entries


@define(eq=False, repr=False)
class ReceivedRanges:
    """Received and accepted bytes, by part.

    >>> ranges = ReceivedRanges()
    >>> ranges.add("", 0, 5, is_accepted=True)
    5
    >>> ranges.add("", 5, 9, is_accepted=False)
    4
    >>> ranges.accept_until("", 5)
    >>> ranges.entries()
    (('', 0, 5, True),)

    Attributes:
        total_bytes: The number of bytes in all parts, received here or confirmed.
        accepted_bytes: How many of them the application has accepted.
    """

    total_bytes: int = field(default=0, init=False)
    accepted_bytes: int = field(default=0, init=False)
    _parts: dict[str, _Part] = field(factory=dict, init=False)
    _part_sizes: dict[str, int] = field(factory=dict, init=False)
    _range_count: int = field(default=0, init=False)
    _ends: dict[str, int] = field(factory=dict, init=False)
    # Numbered parts: accepted or not at all, each time as a whole (Amazon S3, "UploadPart").
    # Size and time of acceptance, the newest last.
    _sizes: dict[int, tuple[int, int]] = field(factory=dict, init=False)
    _numbers: int = field(default=0, init=False)
    _unsized: int = field(default=0, init=False)
    _unsized_bytes: int = field(default=0, init=False)
    _numbered_bytes: int = field(default=0, init=False)
    _entries: tuple[ByteRange, ...] | None = field(default=None, init=False)

    def __bool__(self) -> bool:
        """Return whether anything is known."""
        return bool(self._parts or self._part_sizes or self._numbers)

    @property
    def confirmed_bytes(self) -> int:
        """How many bytes from the start the application said it has, for a single part."""
        part = self._parts.get("")
        return 0 if part is None else part.confirmed_bytes

    @property
    def sum_of_part_sizes(self) -> int | None:
        """The sum of the announced sizes of parts; None if no part announces one."""
        return sum(self._part_sizes.values()) if self._part_sizes else None

    def add(
        self, part: str, start: int, stop: int, *, is_accepted: bool, microseconds: int = 0
    ) -> int:
        """Add the bytes from *start* up to *stop*; return how many of them are new.

        Args:
            part: The part that they belong to.
            start: Position of the first one.
            stop: Position after the last one.
            is_accepted: Whether the application has accepted them.
            microseconds: When it did so, since the Unix epoch: a numbered part is replaced by a
                newer one.
        """
        number = part_number(part)
        if number is not None:
            return self._add_number(number, stop, microseconds) if is_accepted else 0
        known = self._part(part)
        if known is None or not (known.received.touches(start, stop) or self._has_room):
            return 0
        if is_accepted and part in self._ends:
            self._ends[part] = max(self._ends[part], stop)
        before = known.received.total_bytes
        self._forget_totals(known)
        known.received.add(start, stop)
        if is_accepted:
            known.accepted.add(start, stop)
        self._add_totals(known)
        return known.received.total_bytes - before

    def _add_number(self, number: int, size_bytes: int, microseconds: int) -> int:
        """Add an accepted part; one that is sent again replaces the earlier one."""
        before, accepted_at = self._sizes.get(number, (0, 0))
        if microseconds < accepted_at:
            return 0
        if self._unsized >> number & 1:
            # Of the parts in a stored record only the sum of the sizes is known.
            before = self._unsized_bytes // self._unsized.bit_count()
            self._unsized_bytes -= before
            self._unsized ^= 1 << number
        self._sizes.pop(number, None)
        self._sizes[number] = size_bytes, microseconds
        self._numbers |= 1 << number
        self._count_numbered(size_bytes - before)
        return max(0, size_bytes - before)

    def _count_numbered(self, size_bytes: int) -> None:
        self._entries = None
        self._numbered_bytes += size_bytes
        self.total_bytes += size_bytes
        self.accepted_bytes += size_bytes

    def has_number(self, part: str) -> bool:
        """Return whether *part* is a numbered part that has been accepted."""
        number = part_number(part)
        return number is not None and bool(self._numbers >> number & 1)

    def accept_until(self, part: str, offset: int) -> None:
        """Record that the application has these bytes and no others; they may be added later."""
        self._ends[part] = offset
        self._cut(part, offset)

    def forget_ends(self) -> None:
        """Forget the calls of ``accept_until``: bytes that are loaded later are kept."""
        self._ends.clear()

    def _cut(self, part: str, offset: int) -> None:
        """Remove the bytes of *part* from *offset* on."""
        known = self._parts.get(part)
        if known is None:
            return
        self._forget_totals(known)
        known.received.remove(offset, _END)
        known.accepted.remove(offset, _END)
        known.confirmed_bytes = min(known.confirmed_bytes, offset)
        self._add_totals(known)

    def confirm(self, part: str, offset: int) -> None:
        """Record that the application has *part* up to *offset*, whichever worker received it."""
        number = part_number(part)
        if number is not None:
            size_bytes, accepted_at = self._sizes.get(number, (0, 0))
            self._add_number(number, max(offset, size_bytes), accepted_at)
            return
        if not offset:
            return
        known = self._part(part)
        if known is not None and offset > known.confirmed_bytes:
            self._forget_totals(known)
            known.confirmed_bytes = offset
            self._add_totals(known)

    def add_part_size(self, part: str, size_bytes: int) -> None:
        """Record the announced size of a part."""
        if part in self._part_sizes or self._has_room:
            self._part_sizes[part] = size_bytes
            self._entries = None

    def part_sizes(self) -> list[tuple[str, int]]:
        """Return the announced sizes by part."""
        return list(self._part_sizes.items())

    def has_unconfirmed(self, part: str) -> bool:
        """Return whether bytes were accepted by a response that did not name its first byte."""
        known = self._parts.get(part)
        if known is None:
            return False
        within = known.accepted.count_within(0, known.confirmed_bytes)
        return within < known.accepted.total_bytes

    def end_of(self, part: str) -> int:
        """Return up to which byte *part* is known without a gap."""
        known = self._parts.get(part)
        return 0 if known is None else known.received.end_from(known.confirmed_bytes)

    def accepted_end_of(self, part: str) -> int:
        """Return up to which byte the application has accepted *part* without a gap."""
        known = self._parts.get(part)
        return 0 if known is None else known.accepted.end_from(known.confirmed_bytes)

    def count_with(self, arriving: Iterable[ByteRange]) -> int:
        """Return the number of bytes together with those of requests in progress."""
        more = dict[str, Intervals]()
        for part, start, stop, _ in arriving:
            if not self.has_number(part):
                more.setdefault(part, Intervals()).add(start, stop)
        return self.total_bytes + sum(
            stop - start - self._count_within(part, start, stop)
            for part, intervals in more.items()
            for start, stop in intervals
        )

    def _count_within(self, part: str, start: int, stop: int) -> int:
        known = self._parts.get(part)
        if known is None:
            return 0
        held = min(max(known.confirmed_bytes, start), stop)
        return held - start + known.received.count_within(held, stop)

    @property
    def _has_room(self) -> bool:
        return self._range_count + len(self._parts) + len(self._part_sizes) < MAX_RANGES

    def _part(self, part: str) -> _Part | None:
        """Return the bytes of *part*; None if there is no room for one more part."""
        known = self._parts.get(part)
        if known is None and self._has_room:
            known = self._parts[part] = _Part()
        return known

    def _forget_totals(self, part: _Part) -> None:
        self._entries = None
        self.total_bytes -= part.total_bytes
        self.accepted_bytes -= part.accepted_bytes
        self._range_count -= len(part.received)

    def _add_totals(self, part: _Part) -> None:
        self.total_bytes += part.total_bytes
        self.accepted_bytes += part.accepted_bytes
        self._range_count += len(part.received)

    # Records

    def entries(self) -> tuple[ByteRange, ...]:
        """Return all ranges for a record."""
        if self._entries is None:
            entries = [entry for name, part in self._parts.items() for entry in part.entries(name)]
            entries += [
                confirmed(name, part.confirmed_bytes)
                for name, part in self._parts.items()
                if name and part.confirmed_bytes
            ]
            entries += [part_size(name, size) for name, size in self._part_sizes.items()]
            entries += self._numbered_entries()
            self._entries = tuple(sorted(entries))
        return self._entries

    def _numbered_entries(self) -> list[ByteRange]:
        """Return the accepted parts one by one while they are few, else as a set."""
        if not self._numbers:
            return []
        newest = dict(islice(reversed(self._sizes.items()), MAX_SINGLE_PARTS))
        entries = [part_accepted_at(number, *known) for number, known in newest.items()]
        others = self._numbers & ~sum(1 << number for number in newest)
        if others:
            size_bytes = self._numbered_bytes - sum(entry[2] for entry in entries)
            entries.append(part_set(others, size_bytes))
        return entries

    def load(self, entries: Iterable[ByteRange], confirmed_bytes: int) -> None:
        """Add the ranges of a record that this worker has stored before."""
        self.confirm("", confirmed_bytes)
        for entry in entries:
            numbers = read_part_set(entry)
            if numbers is not None:
                self._load_numbers(numbers, entry[2])
            elif entry[0].startswith("~"):
                self.add_part_size(entry[0][1:], entry[2])
            elif entry[0].startswith("="):
                [(part, _, stop, _)] = with_confirmed([entry])
                self.confirm(part, stop)
            elif (read := read_accepted_part(entry)) is not None:
                number, microseconds = read
                if microseconds > self._sizes.get(number, (0, -1))[1]:
                    # Else it was sent again since.
                    self._add_number(number, entry[2], microseconds)
            else:
                part, start, stop, is_accepted = entry
                self.add(part, start, stop, is_accepted=is_accepted)
        for part, offset in self._ends.items():
            self._cut(part, offset)

    def _load_numbers(self, numbers: int, size_bytes: int) -> None:
        """Add a set of parts whose single sizes are not known any more."""
        known = [number for number in self._sizes if numbers >> number & 1]
        mean = size_bytes // max(1, numbers.bit_count())
        self._unsized = numbers & ~sum(1 << number for number in known)
        self._unsized_bytes = size_bytes - mean * len(known) if self._unsized else 0
        self._numbers |= numbers
        self._count_numbered(self._unsized_bytes)
