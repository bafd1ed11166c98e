"""Log warnings at a limited rate, and without what may be secret."""

import logging
from typing import Final

from attrs import define, field

from upload_progress.exceptions import UploadProgressError
from upload_progress.interfaces import Clock

__all__ = ["LOG_EVERY_SECONDS", "LogLimiter"]

LOG_EVERY_SECONDS: Final = 30.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@define(eq=False, repr=False)
class LogLimiter:
    """Logs each message at most once in 30 s.

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

    def warn(
        self, message: str, error: BaseException | None = None, *, effect: str | None = None
    ) -> None:
        """Log a warning, unless *message* was logged less than 30 s ago.

        Args:
            message: A fixed text; it must not hold what a client chooses.
            error: What was raised.
            effect: What follows from it; by default, that uploads are not affected.
        """
        self.count += 1
        now = self.clock.monotonic()
        last = self._logged_at.get(message)
        if last is not None and now - last < LOG_EVERY_SECONDS:
            return
        self._logged_at[message] = now
        cause = ""
        if error is not None:
            own = isinstance(error, UploadProgressError)
            cause = f" ({error if own else type(error).__name__})"
        logger.warning("%s%s; %s", message, cause, effect or "uploads are not affected")
