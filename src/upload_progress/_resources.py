"""Stores and brokers of a tracker: opened at start, closed at stop, one circuit breaker each.

Each is held open by a task of its own, because a context manager must be left in the task that
entered it. One that cannot be opened does not keep the application from starting: opening is
tried again, and until then the backend counts as not available.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
from attrs import define, field, frozen

from upload_progress._reading.store_parts import StoreParts, parts_of
from upload_progress._runtime.circuit_breaker import CircuitBreaker, LoopLag
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.interfaces import Clock, SessionStore

__all__ = [
    "CLOSE_SECONDS",
    "RETRY_SECONDS",
    "START_SECONDS",
    "CircuitBreakers",
    "ManagedResource",
    "ManagedResources",
]

START_SECONDS: Final = 1.0
"""How long the start of the application waits for backends to open."""
RETRY_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0


@frozen(eq=False, repr=False)
class ManagedResource:
    """A backend that is opened and closed, and its circuit breaker."""

    context: AbstractAsyncContextManager[object]
    breaker: CircuitBreaker


@define(eq=False, repr=False)
class CircuitBreakers:
    """One circuit breaker per backend, even if it is store, publisher and subscriber at once.

    Args:
        clock: Provides the monotonic time.
        longest_open_seconds: After an outage, each worker is back within this time.

    Attributes:
        lag: The lag of the event loop, which is no failure of a backend.
    """

    clock: Clock
    longest_open_seconds: float
    lag: LoopLag = field(factory=LoopLag, init=False)
    _breakers: dict[int, tuple[object, CircuitBreaker]] = field(factory=dict, init=False)

    def of(self, backend: object, name: str) -> CircuitBreaker:
        """Return the circuit breaker of *backend*; of several names the first is kept."""
        if id(backend) not in self._breakers:
            log_limiter = LogLimiter(self.clock)
            if isinstance(backend, BrokerSubscriber):
                log_limiter = backend.log_limiter
            self._breakers[id(backend)] = (backend, self._new(name, log_limiter))
        return self._breakers[id(backend)][1]

    def of_parts(self, store: SessionStore, name: str) -> StoreParts:
        """Return *store* with a circuit breaker for each of its parts."""
        breaker, parts = self.of(store, name), parts_of(store)
        if len(parts) == 1:
            return StoreParts(store, breaker)
        return StoreParts(store, breaker, [self._new(name, breaker.log_limiter) for _ in parts])

    def _new(self, name: str, log_limiter: LogLimiter) -> CircuitBreaker:
        return CircuitBreaker(
            name,
            self.clock,
            log_limiter,
            longest_open_seconds=self.longest_open_seconds,
            lag=self.lag,
        )

    @property
    def resources(self) -> list[ManagedResource]:
        """The backends that have to be opened and closed."""
        return [
            ManagedResource(backend, breaker)
            for backend, breaker in self._breakers.values()
            if isinstance(backend, AbstractAsyncContextManager)
        ]


@define(eq=False, repr=False)
class ManagedResources:
    """Holds the backends of a tracker open from start to stop."""

    resources: Sequence[ManagedResource]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold all backends open while the block runs; wait up to 1 s for them at the start."""
        stopping, opened = anyio.Event(), [anyio.Event() for _ in self.resources]
        async with anyio.create_task_group() as tasks:
            for resource, event in zip(self.resources, opened, strict=True):
                tasks.start_soon(self._hold, resource, event, stopping)
            with anyio.move_on_after(START_SECONDS):
                for event in opened:
                    await event.wait()
            try:
                yield
            finally:
                stopping.set()
                tasks.cancel_scope.deadline = anyio.current_time() + CLOSE_SECONDS

    async def _hold(
        self, resource: ManagedResource, opened: anyio.Event, stopping: anyio.Event
    ) -> None:
        while not stopping.is_set():
            try:
                async with resource.context:
                    opened.set()
                    await stopping.wait()
            except Exception as error:  # noqa: BLE001  # any error of a driver: not available
                resource.breaker.record_failure(error)
                with anyio.move_on_after(RETRY_SECONDS):
                    await stopping.wait()
