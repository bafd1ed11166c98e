"""Ending what is being received when the server stops: an answer, not a cut connection."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from attrs import define, field

__all__ = [
    "ServerStops",
    "Stop",
]


class ServerStops(Exception):
    """The upload could not be finished before the server stopped."""


@define(eq=False, repr=False)
class Stop:
    """Knows what is running, and interrupts it."""

    _running: set[anyio.CancelScope] = field(factory=set, init=False)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run the block until it ends, or is interrupted.

        Raises:
            ServerStops: It was interrupted.
        """
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                yield
            finally:
                self._running.discard(scope)
        if scope.cancelled_caught:
            raise ServerStops

    def interrupt(self) -> None:
        """Interrupt all that runs."""
        for scope in self._running:
            scope.cancel()
