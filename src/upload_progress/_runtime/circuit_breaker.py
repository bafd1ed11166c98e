"""A circuit breaker per store or broker: a slow or broken backend delays nothing but itself.

Each call has a time limit. After a failure the circuit is open for a while, longer each time up to
a bound, so that a dead backend costs next to nothing, and one that returns is found within seconds.
Failures are logged at a limited rate. To wait for a connection, or for this process itself, is no
failure of the backend: it does not open the circuit.
"""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar

import anyio
from attrs import Factory, define, field

from upload_progress._runtime.log_limiter import AVAILABILITY, LogLimiter
from upload_progress.exceptions import StoreBusy, StoreUnavailable
from upload_progress.interfaces import Clock

__all__ = [
    "CALL_SECONDS",
    "FIRST_OPEN_SECONDS",
    "LAG_INTERVAL_SECONDS",
    "LATE_SECONDS",
    "LONGEST_OPEN_SECONDS",
    "CircuitBreaker",
    "LoopLag",
]

T = TypeVar("T")

CALL_SECONDS: Final = 1.0
LATE_SECONDS: Final = 0.5
"""If a call ends later than this after its time limit, or the event loop did not run for so long
during the call, the answer of the backend may have been there in time."""
LAG_INTERVAL_SECONDS: Final = 0.25
"""How often the lag of the event loop is measured."""
FIRST_OPEN_SECONDS: Final = 0.25
LONGEST_OPEN_SECONDS: Final = 5.0


@define(eq=False, repr=False)
class LoopLag:
    """For how long the event loop did not run although a timer was due, in total.

    It is measured while ``run`` runs; else it does not grow.
    """

    _total_seconds: float = field(default=0.0, init=False)
    _due_at: float = field(default=inf, init=False)

    def until(self, now: float) -> float:
        """Return the total until *now*, a time of the event loop, in seconds."""
        return self._total_seconds + max(0.0, now - self._due_at)

    async def run(self) -> None:
        """Measure until cancelled."""
        try:
            while True:
                self._due_at = anyio.current_time() + LAG_INTERVAL_SECONDS
                await anyio.sleep_until(self._due_at)
                self._total_seconds = self.until(anyio.current_time())
        finally:
            self._due_at = inf


@define(eq=False, repr=False)
class CircuitBreaker:
    """Limits the time of the calls to one backend, and stops them for a while after a failure.

    Args:
        name: The name of the backend in the log.
        clock: Provides the monotonic time.
        log_limiter: Logs failures; by default a limiter of its own. A backend that logs lost
            connections itself shares its limiter, so that there is one line in the log.
        longest_open_seconds: For how long calls are refused after a failure, at most.
        lag: The lag of the event loop.

    Attributes:
        failures: How many calls failed or took too long.
        recovered_at: When a call has succeeded after a failure, in monotonic seconds.
    """

    name: str
    clock: Clock
    log_limiter: LogLimiter = field(
        default=Factory(lambda self: LogLimiter(self.clock), takes_self=True)
    )
    longest_open_seconds: float = field(default=LONGEST_OPEN_SECONDS, kw_only=True)
    lag: LoopLag = field(factory=LoopLag, kw_only=True)
    failures: int = field(default=0, init=False)
    recovered_at: float = field(default=-inf, init=False)
    _open_seconds: float = field(default=0.0, init=False)
    _open_until: float = field(default=0.0, init=False)

    @property
    def is_open(self) -> bool:
        """Whether calls are refused at the moment, after a recent failure."""
        return self.clock.monotonic() < self._open_until

    @property
    def is_failing(self) -> bool:
        """Whether the last call failed; the circuit may be closed again."""
        return self._open_seconds > 0

    async def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *function*.

        Raises:
            StoreUnavailable: The circuit is open, or the call failed or took longer than 1 s.
            StoreBusy: There was no free connection, or this process was too busy.
        """
        if self.is_open:
            raise StoreUnavailable
        began = anyio.current_time()
        lag_before = self.lag.until(began)
        try:
            with anyio.fail_after(CALL_SECONDS):
                result = await function()
        except StoreBusy:
            raise
        except Exception as error:  # noqa: BLE001  # any error of a driver means: not available
            now = anyio.current_time()
            late_seconds = max(now - began - CALL_SECONDS, self.lag.until(now) - lag_before)
            if late_seconds >= LATE_SECONDS:
                raise StoreBusy from None
            self.record_failure(error)
            raise StoreUnavailable from None
        except asyncio.CancelledError as error:
            # This task was not cancelled: the driver awaited a task of its own that was.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.record_failure(error)
            raise StoreUnavailable from None
        self.record_success()
        return result

    def reset(self) -> None:
        """Allow the next call at once, because there is no later one: the tracker stops."""
        self._open_until = 0.0

    def record_success(self) -> None:
        """Record that the backend answers."""
        if self.is_failing:
            self._open_seconds, self.recovered_at = 0.0, self.clock.monotonic()

    def record_failure(self, error: BaseException) -> None:
        """Count and log a failure, and open the circuit."""
        self.failures += 1
        self._open_seconds = min(
            max(self._open_seconds * 2, FIRST_OPEN_SECONDS), self.longest_open_seconds
        )
        self._open_until = self.clock.monotonic() + self._open_seconds
        self.log_limiter.log_warning(
            f"{self.name} is not available",
            error,
            effect="uploads continue, but their progress may be late",
            topic=AVAILABILITY,
        )
