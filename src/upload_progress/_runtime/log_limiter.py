"""Saying what went wrong, without saying it a thousand times a second."""

import logging
from typing import Final

from attrs import define, field

from upload_progress.interfaces import Clock

__all__ = [
    "AVAILABILITY",
    "EVERY_SECONDS",
    "LogLimiter",
    "first_cause",
]

AVAILABILITY: Final = "availability"
"""The topic of all warnings that a store or broker is not available, whoever finds it out."""

EVERY_SECONDS: Final = 30.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


def first_cause(error: Exception) -> Exception:
    """Return the first error of an exception group: a task group wraps what its tasks raise."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@define(eq=False, repr=False)
class LogLimiter:
    """Logs a warning of each kind at most every half minute; counts them all."""

    clock: Clock
    count: int = field(default=0, init=False)
    _said_at: dict[str, float] = field(factory=dict, init=False)

    def say(self, what: str, error: BaseException | None = None) -> None:
        """Log *what* went wrong, a fixed sentence, and the type of *error*, not its text."""
        self.count += 1
        if self.is_due(what):
            kind = f" ({type(error).__name__})" if error is not None else ""
            logger.warning("%s%s; uploads are not affected", what, kind)

    def is_due(self, topic: str) -> bool:
        """Tell whether a warning about *topic* may be logged now; if so, the next may not."""
        now = self.clock.monotonic()
        if topic in self._said_at and now - self._said_at[topic] < EVERY_SECONDS:
            return False
        self._said_at[topic] = now
        return True
