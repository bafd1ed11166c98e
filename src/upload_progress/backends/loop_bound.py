"""Values that belong to one event loop of one process: the clients and connections of drivers.

A driver binds its connections to the event loop in which they were made. A tracker may be used on
several, one after the other or at the same time: tests and bridges from WSGI run one per request.
And a process that is forked has the sockets of its parent: if both used them, each would receive
answers to the requests of the other. So each event loop of each process gets a value of its own.

A value is closed when its event loop ends: ``asyncio.run`` and ``asyncio.Runner`` close the
asynchronous generators that were started in their loop, of which this module starts one per value.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from attrs import define, field

from upload_progress.exceptions import InvalidValue

__all__ = ["BorrowedClient", "LoopBound"]

T = TypeVar("T")


@define(eq=False)
class _Entry(Generic[T]):
    """A value, and the generator that closes it."""

    value: T
    finalizer: AsyncGenerator[None]


@define(eq=False, repr=False)
class LoopBound(Generic[T]):
    """Makes one value for each event loop of each process, and closes it when the loop ends.

    Args:
        make: Makes a value; it connects to nothing yet.
        close: Closes a value, in its event loop.
        abandon: Closes the sockets of a value of the parent process without a word to the server.
            By default they stay open until the process ends.
    """

    make: Callable[[], T]
    close: Callable[[T], Awaitable[None]]
    abandon: Callable[[T], Awaitable[None]] | None = None
    _entries: dict[asyncio.AbstractEventLoop, _Entry[T]] = field(factory=dict, init=False)
    _inherited: list[_Entry[T]] = field(factory=list, init=False)
    _process_id: int = field(factory=os.getpid, init=False)

    async def get(self) -> T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._process_id != os.getpid():
            await self._drop_inherited()
        entry = self._entries.get(loop)
        if entry is None:
            self._remove_closed_loops()
            entry = self._entries[loop] = _Entry(self.make(), self._finalizer(loop))
            await anext(entry.finalizer)
        return entry.value

    async def _finalizer(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        """Close the value of *loop* when this generator is closed."""
        process_id = os.getpid()
        try:
            yield
        finally:
            # A process that was forked in a running loop may end that loop, too.
            if process_id == os.getpid():
                await self.close(self._entries.pop(loop).value)

    def _remove_closed_loops(self) -> None:
        """Forget the values of loops that were closed without the end of their generators."""
        for loop in [each for each in self._entries if each.is_closed()]:
            del self._entries[loop]

    async def _drop_inherited(self) -> None:
        """Use nothing of the parent process.

        The entries are kept, as some drivers would end the connections of the parent when their
        objects are deleted.
        """
        self._process_id = os.getpid()
        entries, self._entries = list(self._entries.values()), {}
        self._inherited += entries
        if self.abandon is not None:
            for entry in entries:
                await self.abandon(entry.value)

    async def aclose(self) -> None:
        """Close the value of the running event loop, if there is one; the next call makes one."""
        entry = self._entries.get(asyncio.get_running_loop())
        if entry is not None and self._process_id == os.getpid():
            await entry.finalizer.aclose()


@define(eq=False, repr=False)
class BorrowedClient(Generic[T]):
    """A client of the application, which this process only uses if no parent process has used it.

    Args:
        name: What it is an argument of, for the error.
        client: The client.
        close: Closes what was opened with it. The application closes the client itself.
    """

    name: str
    client: T
    close: Callable[[T], Awaitable[None]] | None = None
    _process_id: int | None = field(default=None, init=False)

    async def get(self) -> T:
        """Return the client.

        Raises:
            InvalidValue: It was used before this process was forked.
        """
        if self._process_id is None:
            self._process_id = os.getpid()
        if self._process_id != os.getpid():
            raise InvalidValue(
                self.name,
                "was used before this process was forked: it would receive answers to requests "
                "of the other process; create it in each worker, after the fork, or pass a URL",
            )
        return self.client

    async def aclose(self) -> None:
        """Close what was opened with the client."""
        if self.close is not None:
            await self.close(self.client)
