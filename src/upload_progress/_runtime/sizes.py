"""Sizes in bytes as text: parse ``500k``, format ``2.0 MB``. Units are decimal (SI)."""

import re
from typing import Final

from upload_progress.exceptions import InvalidValue

__all__ = ["format_size", "parse_size"]

_STEP: Final = 1000
_UNITS: Final = ("B", "kB", "MB", "GB")
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)([kKmMgG]?)[bB]?", re.ASCII)


def parse_size(text: str) -> int:
    """Return the number of bytes: ``500k`` is 500,000 and ``2M`` is 2,000,000.

    Args:
        text: A decimal number with an optional unit ``k``, ``M`` or ``G`` and an optional ``B``.

    Raises:
        InvalidValue: The text is not a size, or the size is zero.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidValue("size", f"{text!r} is not a valid size; examples: 500k, 2M, 1.5G")
    power = "kmg".find(match[2].lower()) + 1 if match[2] else 0
    size = int(float(match[1]) * _STEP**power)
    if size <= 0:
        raise InvalidValue("size", "must be greater than zero")
    return size


def format_size(size_bytes: float) -> str:
    """Return a size with its unit and, from 1 kB on, one decimal: ``2.0 MB``."""
    power = 0
    while size_bytes >= _STEP and power < len(_UNITS) - 1:
        size_bytes, power = size_bytes / _STEP, power + 1
    return f"{size_bytes:.{1 if power else 0}f} {_UNITS[power]}"
