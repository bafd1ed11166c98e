"""Interruption of running uploads at shutdown: the client gets a 503 instead of a reset."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from attrs import define, field

__all__ = ["RunningUploads", "ServerShuttingDown"]


class ServerShuttingDown(Exception):
    """The upload was interrupted by the shutdown of the server."""


@define(eq=False, repr=False)
class RunningUploads:
    """The cancel scopes of running uploads."""

    _scopes: set[anyio.CancelScope] = field(factory=set, init=False)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run the block until it ends or is interrupted.

        Raises:
            ServerShuttingDown: The block was interrupted.
        """
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise ServerShuttingDown

    def interrupt(self) -> None:
        """Interrupt all running uploads."""
        for scope in self._scopes:
            scope.cancel()
