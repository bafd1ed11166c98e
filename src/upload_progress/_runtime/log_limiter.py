"""Saying what went wrong, without saying it a thousand times a second."""

import logging
from typing import Final

from attrs import define, field

from upload_progress.interfaces import Clock

__all__ = [
    "LogLimiter",
    "EVERY_SECONDS",
]

EVERY_SECONDS: Final = 30.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@define(eq=False, repr=False)
class LogLimiter:
    """Logs a warning of each kind at most every half minute; counts them all."""

    clock: Clock
    count: int = field(default=0, init=False)
    _said_at: dict[str, float] = field(factory=dict, init=False)

    def say(self, what: str, error: BaseException | None = None) -> None:
        """Log *what* went wrong, a fixed sentence, and the type of *error*, not its text."""
        self.count += 1
        now = self.clock.monotonic()
        if what in self._said_at and now - self._said_at[what] < EVERY_SECONDS:
            return
        self._said_at[what] = now
        kind = f" ({type(error).__name__})" if error is not None else ""
        logger.warning("%s%s; uploads are not affected", what, kind)
