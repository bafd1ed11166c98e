"""Log warnings at a limited rate, and without what may be secret."""

import logging
from pathlib import Path
from typing import Final

from attrs import define, field

from upload_progress.exceptions import UploadProgressError
from upload_progress.interfaces import Clock

__all__ = ["AVAILABILITY", "LOG_EVERY_SECONDS", "LogLimiter", "first_cause"]

LOG_EVERY_SECONDS: Final = 30.0

AVAILABILITY: Final = "availability"
"""The topic of all warnings that a store or broker is not available, from whichever part."""

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


def first_cause(error: Exception) -> Exception:
    """Return the first error of an exception group: a task group wraps what its tasks raise."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@define(eq=False, repr=False)
class LogLimiter:
    """Logs each message, or each topic, at most once in 30 s.

    An error is logged by its type: the text of a driver's error may hold a password. The text of
    this library's own errors holds none, and is logged.

    Args:
        clock: Provides the monotonic time.

    Attributes:
        count: How many warnings there were, logged or not.
    """

    clock: Clock
    count: int = field(default=0, init=False)
    _logged_at: dict[str, float] = field(factory=dict, init=False)

    def log_warning(
        self,
        message: str,
        error: BaseException | None = None,
        *,
        effect: str = "uploads are not affected",
        topic: str | None = None,
        names_place: bool = False,
    ) -> None:
        """Log a warning, unless one of the same topic was logged less than 30 s ago.

        Args:
            message: A fixed text; it must not contain what a client chooses.
            error: What was raised.
            effect: What follows from it.
            topic: What is limited; by default each message by itself.
            names_place: Whether the log contains the file and line where *error* was raised, unless
                it is an error of this library.
        """
        self.count += 1
        now = self.clock.monotonic()
        last = self._logged_at.get(topic or message)
        if last is not None and now - last < LOG_EVERY_SECONDS:
            return
        self._logged_at[topic or message] = now
        cause = ""
        if error is not None:
            own = isinstance(error, UploadProgressError)
            place = _place_of(error) if names_place and not own else ""
            cause = f" ({error if own else type(error).__name__}{place})"
        logger.warning("%s%s; %s", message, cause, effect)


def _place_of(error: BaseException) -> str:
    """Return where *error* was raised, without values: below the function that caught it."""
    outermost = error.__traceback__
    place, traceback = " when it was called", outermost and outermost.tb_next
    while traceback is not None:
        filename = Path(traceback.tb_frame.f_code.co_filename).name
        place, traceback = f" in {filename}, line {traceback.tb_lineno}", traceback.tb_next
    return place
