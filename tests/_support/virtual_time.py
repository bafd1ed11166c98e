"""Event loops whose clock jumps to the next timer, so that hours pass in milliseconds.

Everything that waits with the event loop is simulated: delays of a store, slow clients, timeouts.
The order in which timers fire is that of a real clock, and the same in every run.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import anyio
import trio
from attrs import frozen
from trio.testing import MockClock

__all__ = ["PatientLoop", "VirtualClock", "VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")

EPOCH_SECONDS = 1_800_000_000.0


class JumpingSelector(selectors.SelectSelector):
    """Waits for no timer: its clock jumps instead.

    Args:
        patience_seconds: Returns for how many real seconds it waits for sockets before it jumps.
    """

    def __init__(self, patience_seconds: Callable[[], float]) -> None:
        super().__init__()
        self.now_seconds = 0.0
        self._patience_seconds = patience_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the sockets that are ready; without any, jump to the next timer."""
        waiting = timeout or 0.0
        ready = super().select(min(waiting, self._patience_seconds()))
        if not ready:
            self.now_seconds += waiting
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio with a clock that jumps."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector(self.patience_seconds)
        super().__init__(self._jumping)

    def patience_seconds(self) -> float:
        """Return for how many real seconds sockets are waited for."""
        return 0.0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now_seconds


class PatientLoop(VirtualTimeLoop):
    """A loop that gives a real server on this machine time to answer, before its clock jumps.

    Attributes:
        running_calls: How many calls wait for an answer. Meanwhile its clock is as slow as a real
            one: on a busy machine, the time limit of a call would else be over at once.
    """

    running_calls: ClassVar[int] = 0

    @classmethod
    @contextmanager
    def waiting(cls) -> Iterator[None]:
        """Count a call while the block runs."""
        cls.running_calls += 1
        try:
            yield
        finally:
            cls.running_calls -= 1

    def patience_seconds(self) -> float:
        """Return more than any timer waits, or the time in which an event arrives."""
        return 3600.0 if self.running_calls else 0.003


@frozen
class VirtualClock:
    """A ``Clock`` that shows the time of the running event loop."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return 1000.0 + anyio.current_time()

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return EPOCH_SECONDS + anyio.current_time()


def run_in_virtual_time(
    function: Callable[[], Awaitable[T]], backend: str, *, uses_sockets: bool = False
) -> T:
    """Run *function* on a new event loop whose clock jumps.

    Args:
        function: A coroutine function.
        backend: ``asyncio`` or ``trio``.
        uses_sockets: Whether it waits for a server; only with asyncio.
    """
    if backend == "trio":
        # Older versions of anyio do not pass a clock on.
        return trio.run(function, clock=MockClock(autojump_threshold=0))
    loop_factory = PatientLoop if uses_sockets else VirtualTimeLoop
    return anyio.run(function, backend="asyncio", backend_options={"loop_factory": loop_factory})
