"""The name of this process among the workers of one system, and names that stand for a deadline."""

import os
import re
import secrets
from math import ceil
from typing import Final

from attrs import define, field

__all__ = [
    "SEPARATOR",
    "Worker",
    "deadline_worker",
    "is_worker_name",
    "seconds_to_deadline",
    "worker_of",
]

SEPARATOR: Final = "."
"""Stands between the name of a worker and an id of that worker; a name contains none."""

_DEADLINE: Final = "~"
"""What the name of no process begins with."""
_DEADLINE_STEPS: Final = 64
"""A deadline is later than asked for by one of so many parts: so there are few at once."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@define
class Worker:
    """A unique name and a secret key for this process; a fork gets others."""

    _process_id: int = field(default=0, init=False)
    _name: str = field(default="", init=False)
    _key: bytes = field(default=b"", init=False, repr=False)

    @property
    def name(self) -> str:
        """64 random bits, drawn when name or key are first asked for in this process."""
        if self._process_id != os.getpid():
            self._draw()
        return self._name

    @property
    def key(self) -> bytes:
        """The key with which this process signs what it gives to clients."""
        if self._process_id != os.getpid():
            self._draw()
        return self._key

    def _draw(self) -> None:
        self._process_id, self._name = os.getpid(), secrets.token_urlsafe(8)
        self._key = secrets.token_bytes(32)


def is_worker_name(text: str) -> bool:
    """Tell whether *text* may be the name of a worker."""
    return _NAME.fullmatch(text) is not None


def worker_of(token: str) -> str | None:
    """Return the worker that made *token*: the part before the separator, if it may be a name."""
    name, separator, _ = token.partition(SEPARATOR)
    return name if separator and is_worker_name(name) else None


def deadline_worker(now: float, seconds: float) -> str:
    """Return the worker of a record that is alive for *seconds*, whatever its process does.

    No process has that name, so its lease is the first one that a store gives it, and ends at the
    deadline. Records with about the same deadline share a name.

    >>> deadline_worker(1000.0, 605.0)
    '~1610'

    Args:
        now: Seconds since the epoch.
        seconds: For how long the record is alive at least.
    """
    step = max(1, ceil(seconds / _DEADLINE_STEPS))
    return f"{_DEADLINE}{ceil((now + seconds) / step) * step}"


def seconds_to_deadline(worker: str | None, now: float) -> float | None:
    """Return for how long the lease of a deadline lasts; None for the name of a process.

    >>> seconds_to_deadline("~1610", 1000.0)
    610.0

    Args:
        worker: The worker of a record.
        now: Seconds since the epoch.
    """
    if worker is None or not worker.startswith(_DEADLINE):
        return None
    digits = worker.removeprefix(_DEADLINE)
    return max(0.0, int(digits) - now) if digits.isdecimal() else 0.0
