"""The name of this process among the workers of one system."""

import os
import re
import secrets
from typing import Final

from attrs import define, field

__all__ = ["SEPARATOR", "Worker", "is_worker_name", "worker_of"]

SEPARATOR: Final = "."
"""Stands between the name of a worker and an id of that worker; a name contains none."""

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
        self._draw()
        return self._name

    @property
    def key(self) -> bytes:
        """The key with which this process signs what it gives to clients."""
        self._draw()
        return self._key

    def _draw(self) -> None:
        if self._process_id != os.getpid():
            self._process_id, self._name = os.getpid(), secrets.token_urlsafe(8)
            self._key = secrets.token_bytes(32)


def is_worker_name(text: str) -> bool:
    """Tell whether *text* may be the name of a worker."""
    return _NAME.fullmatch(text) is not None


def worker_of(token: str) -> str | None:
    """Return the worker that made *token*: the part before the separator, if it may be a name."""
    name, separator, _ = token.partition(SEPARATOR)
    return name if separator and is_worker_name(name) else None
