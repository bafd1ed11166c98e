"""A store or broker may be slow, hung or gone; this is what keeps that to itself.

Each call has a time limit. After a failure the backend rests for a while, longer each time
up to a bound, so that a dead one costs next to nothing and one that comes back is found
within seconds. It is reported once, then at most every half minute.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from attrs import Factory, define, field

from upload_progress._runtime.log_limiter import AVAILABILITY, LogLimiter
from upload_progress.exceptions import StoreUnavailable, UploadProgressError
from upload_progress.interfaces import Clock

__all__ = [
    "CALL_SECONDS",
    "FIRST_REST_SECONDS",
    "LONGEST_REST_SECONDS",
    "CircuitBreaker",
]

T = TypeVar("T")

CALL_SECONDS: Final = 1.0
FIRST_REST_SECONDS: Final = 0.25
LONGEST_REST_SECONDS: Final = 5.0

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@define
class CircuitBreaker:
    """CircuitBreakers the calls to one backend.

    Attributes:
        name: What it is called in the log.
        failures: How many calls failed or took too long.
    """

    name: str
    clock: Clock
    log_limiter: LogLimiter = field(
        default=Factory(lambda self: LogLimiter(self.clock), takes_self=True)
    )
    failures: int = field(default=0, init=False)
    _rest_seconds: float = field(default=0.0, init=False)
    _retry_at: float = field(default=0.0, init=False)

    @property
    def is_resting(self) -> bool:
        """Whether it failed a moment ago, and is not to be asked."""
        return self.clock.monotonic() < self._retry_at

    @property
    def is_failing(self) -> bool:
        """Whether the last call failed; it may be time to ask again."""
        return self._rest_seconds > 0

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to *ask*.

        Raises:
            StoreUnavailable: It rests, failed, or did not answer within a second.
        """
        if self.is_resting:
            raise StoreUnavailable
        try:
            with anyio.fail_after(CALL_SECONDS):
                answer = await ask()
        except Exception as error:  # noqa: BLE001  # whatever a driver raises means: not now
            self.failed(error)
            raise StoreUnavailable from None
        except asyncio.CancelledError as error:
            # Nobody cancelled this task: the driver waited for one of its own that was.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.failed(error)
            raise StoreUnavailable from None
        self.healed()
        return answer

    def reset(self) -> None:
        """Let it be asked at once: there will be no later."""
        self._retry_at = 0.0

    def healed(self) -> None:
        """Take note that it answers."""
        self._rest_seconds = 0.0

    def failed(self, error: BaseException) -> None:
        """Take note of a failure, let it rest, and log it once in a while."""
        self.failures += 1
        self._rest_seconds = min(
            max(self._rest_seconds * 2, FIRST_REST_SECONDS), LONGEST_REST_SECONDS
        )
        self._retry_at = self.clock.monotonic() + self._rest_seconds
        if self.log_limiter.is_due(AVAILABILITY):
            logger.warning(
                "%s is not available (%s); uploads go on, their progress may be late",
                self.name,
                # What a driver says may hold a password; what we say does not.
                error if isinstance(error, UploadProgressError) else type(error).__name__,
            )
