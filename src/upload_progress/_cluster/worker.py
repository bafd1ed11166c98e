"""The name of this process among the workers of one system."""

import os
import re
import secrets
from typing import Final

from attrs import define, field

__all__ = [
    "SEPARATOR",
    "Worker",
    "is_worker_name",
    "worker_of",
]

SEPARATOR: Final = "."
"""Between a worker's name and what only that worker knows: names have none."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@define
class Worker:
    """A name that no other process has; a fork gets one of its own."""

    _named: tuple[int, str] = field(default=(0, ""), init=False)

    @property
    def name(self) -> str:
        """The name: 64 random bits, made when it is first asked for in this process."""
        if self._named[0] != os.getpid():
            self._named = (os.getpid(), secrets.token_urlsafe(8))
        return self._named[1]


def is_worker_name(text: str) -> bool:
    """Tell whether *text* may name a worker."""
    return _NAME.fullmatch(text) is not None


def worker_of(word: str) -> str | None:
    """Return whose word this is: what stands before the separator, if that may be a name."""
    name, separator, _ = word.partition(SEPARATOR)
    return name if separator and is_worker_name(name) else None
