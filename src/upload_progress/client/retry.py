"""How long to go on trying: pauses that double, and that chance makes unequal.

Clients that lost one server at the same moment must not come back at the same moment: each
pause is drawn between a half and the whole of its bound ("equal jitter").
"""

import random
from collections.abc import Callable
from typing import Final

import anyio
from attrs import define, field

from upload_progress.exceptions import ServerBusy, UploadProgressError

__all__ = [
    "LONGEST_PAUSE_SECONDS",
    "Patience",
]

LONGEST_PAUSE_SECONDS: Final = 30.0


@define(eq=False, repr=False)
class Patience:
    """Counts failures in a row, and rests between them.

    Attributes:
        retries: How many failures in a row are borne.
        first_pause_seconds: The bound of the first pause; it doubles with each.
    """

    retries: int
    first_pause_seconds: float
    _random: Callable[[], float] = field(default=random.random, kw_only=True)
    _failures: int = field(default=0, init=False)

    def renew(self) -> None:
        """Begin to count anew: something went well."""
        self._failures = 0

    async def rest(self, reason: UploadProgressError) -> None:
        """Pause before the next try.

        Raises:
            UploadProgressError: That *reason*, when there were as many as are borne.
        """
        if self._failures >= self.retries:
            raise reason
        self._failures += 1
        await anyio.sleep(self._pause_seconds(reason))

    def _pause_seconds(self, reason: UploadProgressError) -> float:
        bound = min(
            self.first_pause_seconds * float(2 ** (self._failures - 1)), LONGEST_PAUSE_SECONDS
        )
        pause = bound * (1 + self._random()) / 2
        asked = reason.retry_after_seconds if isinstance(reason, ServerBusy) else 0.0
        return max(pause, min(asked, LONGEST_PAUSE_SECONDS))
