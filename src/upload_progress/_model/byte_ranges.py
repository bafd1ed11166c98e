"""Which bytes of an upload are here: intervals, added up so that none counts twice.

A span is ``(part, start, stop, is_whole)``: bytes *start* to *stop* of that part, and whether
the server has taken the part. Bytes sent again fall into the span that is there already, so
that order, duplicates, overlaps and the number of writers change nothing in their union.
"""

from collections.abc import Iterable

from upload_progress._model.models import ByteRange

__all__ = [
    "covered",
    "declared",
    "end_mark",
    "end_of",
    "known",
    "merged",
    "numbered",
    "received",
    "told",
    "whole_parts",
]

_MARK = "~"
_TOLD = "="
_UNNUMBERED = (".", _MARK, _TOLD)


def merged(spans: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return the union of *spans*, in order, with those joined that touch."""
    union: list[ByteRange] = []
    for part, start, stop, is_whole in sorted(spans):
        if union and union[-1][0] == part and start <= union[-1][2]:
            _, first, last, was_whole = union[-1]
            union[-1] = (part, first, max(last, stop), was_whole or is_whole)
        else:
            union.append((part, start, stop, is_whole))
    return tuple(union)


def covered(spans: Iterable[ByteRange]) -> int:
    """Return how many bytes *spans* cover together."""
    return sum(stop - start for _, start, stop, _ in merged(spans))


def end_of(spans: Iterable[ByteRange], part: str = "") -> int:
    """Return how far *part* reaches from its start without a gap."""
    return next((span[2] for span in merged(spans) if span[:2] == (part, 0)), 0)


def whole_parts(spans: Iterable[ByteRange]) -> int:
    """Return how many numbered parts the server has taken."""
    return len({part for part, _, _, is_whole in numbered(spans) if is_whole})


def numbered(spans: Iterable[ByteRange]) -> list[ByteRange]:
    """Return those of *spans* that are of parts which their protocol numbers."""
    return [span for span in spans if span[0] and not span[0].startswith(_UNNUMBERED)]


def end_mark(part: str, length: int) -> ByteRange:
    """Return what tells how long *part* will be: a span without bytes, at its end."""
    return (_MARK + part, length, length, False)


def told(part: str, stop: int) -> ByteRange:
    """Return what tells that the server has *part* up to *stop*, whoever received that."""
    return (_TOLD + part, 0, stop, True)


def known(spans: Iterable[ByteRange]) -> list[ByteRange]:
    """Return what is there by *spans*, received or told."""
    return [(span[0].removeprefix(_TOLD), *span[1:]) for span in spans]


def received(spans: Iterable[ByteRange]) -> list[ByteRange]:
    """Return those of *spans* that were received."""
    return [span for span in spans if not span[0].startswith(_TOLD)]


def declared(spans: Iterable[ByteRange]) -> int | None:
    """Return how long the parts will be together whose ends are marked; None without any."""
    ends = [stop for part, _, stop, _ in merged(spans) if part.startswith(_MARK)]
    return sum(ends) if ends else None
