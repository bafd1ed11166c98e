"""Stores and brokers that have to be entered, and are left when the tracker stops.

Each is held by a task of its own, since what is entered in one task must be left in it. One that
cannot be entered now does not keep the application from starting: it is tried again, and until
then counts as not available.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import anyio
from attrs import define, field, frozen

from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.interfaces import Clock

__all__ = [
    "AGAIN_SECONDS",
    "CLOSE_SECONDS",
    "START_SECONDS",
    "CircuitBreakers",
    "ManagedResource",
    "ManagedResources",
]

START_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0


@frozen(eq=False, repr=False)
class ManagedResource:
    """Something to be entered, and what keeps its failures to itself."""

    entered: AbstractAsyncContextManager[object]
    breaker: CircuitBreaker


@define(eq=False, repr=False)
class CircuitBreakers:
    """A guard for each backend: one that is store, publisher and feed at once has one."""

    clock: Clock
    _guards: dict[int, tuple[object, CircuitBreaker]] = field(factory=dict, init=False)

    def of(self, backend: object, name: str) -> CircuitBreaker:
        """Return the guard of *backend*; the first name that it is given stays."""
        if id(backend) not in self._guards:
            breaker = CircuitBreaker(name, self.clock)
            if isinstance(backend, BrokerSubscriber):
                # One line in the log, whether it or the breaker finds the broker unavailable.
                breaker = CircuitBreaker(name, self.clock, backend.log_limiter)
            self._guards[id(backend)] = backend, breaker
        return self._guards[id(backend)][1]

    @property
    def resources(self) -> list[ManagedResource]:
        """Return those that have to be entered."""
        return [
            ManagedResource(backend, breaker)
            for backend, breaker in self._guards.values()
            if isinstance(backend, AbstractAsyncContextManager)
        ]


@define(eq=False, repr=False)
class ManagedResources:
    """Holds what a tracker needs, from start to stop."""

    resources: Sequence[ManagedResource]

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold everything while the block runs; wait a moment for it, and no longer."""
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
                async with resource.entered:
                    opened.set()
                    await stopping.wait()
            except Exception as error:  # noqa: BLE001  # whatever a driver raises means: not now
                resource.breaker.failed(error)
                with anyio.move_on_after(AGAIN_SECONDS):
                    await stopping.wait()
