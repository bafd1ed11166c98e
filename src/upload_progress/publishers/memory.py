"""Events inside this process: a publisher, a feed and a post in one.

Each listener holds one slot per upload: one that is slow gets the newest event of each, and
the memory it costs is bounded by the number of uploads it is behind on, up to a limit.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from attrs import define, field

from upload_progress.wire import CloudEvent

__all__ = ["MAX_WAITING", "MemoryPublisher"]

MAX_WAITING: Final = 10_000


@define(eq=False, repr=False)
class _Listener(AsyncIterator[CloudEvent]):
    owner: str | None
    _waiting: dict[tuple[str, str], CloudEvent] = field(factory=dict, init=False)
    _woken: anyio.Event = field(factory=anyio.Event, init=False)

    def offer(self, event: CloudEvent) -> None:
        if self.owner is not None and event.owner != self.owner:
            return
        self._waiting[event.owner, event.subject] = event
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._woken.set()

    async def __anext__(self) -> CloudEvent:
        while not self._waiting:
            self._woken = anyio.Event()
            await self._woken.wait()
        return self._waiting.pop(next(iter(self._waiting)))


@define(eq=False, repr=False)
class _Box(AsyncIterator[bytes]):
    _letters: deque[bytes] = field(factory=lambda: deque(maxlen=MAX_WAITING), init=False)
    _woken: anyio.Event = field(factory=anyio.Event, init=False)

    def put(self, letter: bytes) -> None:
        self._letters.append(letter)
        self._woken.set()

    async def __anext__(self) -> bytes:
        while not self._letters:
            self._woken = anyio.Event()
            await self._woken.wait()
        return self._letters.popleft()


@define(eq=False, repr=False)
class MemoryPublisher:
    """An ``EventPublisher``, ``EventFeed`` and ``Post`` for trackers in the same process."""

    _listeners: dict[_Listener, None] = field(factory=dict, init=False)
    _boxes: dict[str, _Box] = field(factory=dict, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Hand *events* to whoever listens."""
        for event in events:
            for listener in self._listeners:
                listener.offer(event)

    @asynccontextmanager
    async def listen(self, owner: str | None = None) -> AsyncIterator[AsyncIterator[CloudEvent]]:
        """Follow the events of *owner*, or of everybody, from now on."""
        listener = _Listener(owner)
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]

    async def send(self, worker: str, letter: bytes) -> None:
        """Put *letter* into the box of *worker*; it is lost where there is none."""
        box = self._boxes.get(worker)
        if box is not None:
            box.put(letter)

    @asynccontextmanager
    async def letters(self, worker: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Empty the box of *worker*, from now on."""
        box = self._boxes[worker] = _Box()
        try:
            yield box
        finally:
            del self._boxes[worker]
