"""Lines between workers that a test holds at one end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from upload_progress import UploadProgress
from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress.interfaces import EventsMissed

__all__ = ["BrokerSubscriber", "Mail"]


@define(eq=False)
class BrokerSubscriber:
    """An ``EventSubscriber`` that hears what the test says.

    Attributes:
        troubles: Raised by the next listeners, one each, instead of listening.
        listening: Who listens, for whom.
    """

    troubles: list[Exception] = field(factory=list)
    listening: dict[str | None, MemoryObjectSendStream[CloudEvent | EventsMissed]] = field(
        factory=dict
    )

    @asynccontextmanager
    async def listen(
        self, owner: str | None = None
    ) -> AsyncIterator[AsyncIterator[CloudEvent | EventsMissed]]:
        """Follow what is said to *owner*."""
        if self.troubles:
            raise self.troubles.pop()
        send, receive = anyio.create_memory_object_stream[CloudEvent | EventsMissed](math.inf)
        self.listening[owner] = send
        try:
            with send, receive:
                yield receive
        finally:
            del self.listening[owner]

    def say(self, progress: UploadProgress, owner: str = "ann", to: str = "ann") -> None:
        """Let the listener for *to* hear of *progress*."""
        self.listening[to].send_nowait(event_of(owner, progress, source="/elsewhere"))


@define(eq=False)
class Mail:
    """A ``Post`` of which the test holds the other end.

    Attributes:
        troubles: Raised by the next boxes, one each, instead of being opened.
        sent: What was sent, to whom.
        box: What comes in; None while no box is open.
    """

    troubles: list[Exception] = field(factory=list)
    sent: list[tuple[str, bytes]] = field(factory=list)
    box: MemoryObjectSendStream[bytes | EventsMissed] | None = None
    opened: int = 0
    send_trouble: Exception | None = None

    async def send(self, worker: str, letter: bytes) -> None:
        """Keep *letter*."""
        if self.send_trouble is not None:
            raise self.send_trouble
        self.sent.append((worker, letter))

    @asynccontextmanager
    async def letters(self, _worker: str) -> AsyncIterator[AsyncIterator[bytes | EventsMissed]]:
        """Open the box."""
        if self.troubles:
            raise self.troubles.pop()
        receive: MemoryObjectReceiveStream[bytes | EventsMissed]
        self.box, receive = anyio.create_memory_object_stream[bytes | EventsMissed](math.inf)
        self.opened += 1
        with self.box, receive:
            yield receive

    def put(self, letter: bytes | EventsMissed) -> None:
        """Let *letter* come."""
        assert self.box is not None
        self.box.send_nowait(letter)
