"""Sizes as people write them: ``2M`` and ``2.0 MB``."""

import re
from typing import Final

from upload_progress.errors import InvalidValue

__all__ = ["parse_size", "spelled"]

_STEP: Final = 1000
_UNITS: Final = ("", "k", "M", "G")
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)([kKmMgG]?)[bB]?", re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes that *text* means: ``500k`` is 500,000, ``2M`` is 2,000,000.

    Raises:
        InvalidValue: It is no size, or none above zero.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidValue("size", f"{text!r} is no size; write 500k, 2M or 1.5G")
    power = "kmg".find(match[2].lower()) + 1 if match[2] else 0
    size = int(float(match[1]) * _STEP**power)
    if size <= 0:
        raise InvalidValue("size", "must be above zero")
    return size


def spelled(size_bytes: float) -> str:
    """Return *size_bytes* for people, with one decimal."""
    power = 0
    while size_bytes >= _STEP and power < len(_UNITS) - 1:
        size_bytes, power = size_bytes / _STEP, power + 1
    return f"{size_bytes:.1f} {_UNITS[power]}B" if power else f"{size_bytes:.0f} B"
