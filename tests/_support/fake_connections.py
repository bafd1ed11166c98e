"""An event subscriber and a message transport of which a test holds the other end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from upload_progress import UploadProgress
from upload_progress._cluster.rpc import ALL_WORKERS
from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress.interfaces import ConnectionLost, EventsMissed

__all__ = ["FakeEventStream", "FakeSubscriber", "FakeTransport"]


@define(eq=False)
class FakeEventStream(AsyncIterator[CloudEvent | EventsMissed | ConnectionLost]):
    """A stream that yields what the test puts into it.

    Attributes:
        owners: The owners that are subscribed.
    """

    send: MemoryObjectSendStream[CloudEvent | EventsMissed | ConnectionLost]
    receive: MemoryObjectReceiveStream[CloudEvent | EventsMissed | ConnectionLost]
    errors: list[Exception]
    owners: set[str | None] = field(factory=set, init=False)

    async def subscribe(self, *owners: str | None) -> None:
        """Subscribe, or raise the next error."""
        if self.errors:
            raise self.errors.pop()
        self.owners |= set(owners)

    async def unsubscribe(self, *owners: str | None) -> None:
        """Unsubscribe."""
        self.owners -= set(owners)

    async def __anext__(self) -> CloudEvent | EventsMissed | ConnectionLost:
        try:
            return await self.receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


@define(eq=False)
class FakeSubscriber:
    """An ``EventSubscriber`` that yields what the test publishes.

    Attributes:
        open_errors: Raised by the next streams, one each, instead of being opened.
        subscribe_errors: Raised by the next subscriptions, one each.
        stream: The open stream; None while there is none.
    """

    open_errors: list[Exception] = field(factory=list)
    subscribe_errors: list[Exception] = field(factory=list)
    stream: FakeEventStream | None = None

    @asynccontextmanager
    async def events(self) -> AsyncIterator[FakeEventStream]:
        """Open a stream."""
        if self.open_errors:
            raise self.open_errors.pop()
        send, receive = anyio.create_memory_object_stream[
            CloudEvent | EventsMissed | ConnectionLost
        ](math.inf)
        with send, receive:
            self.stream = FakeEventStream(send, receive, self.subscribe_errors)
            try:
                yield self.stream
            finally:
                self.stream = None

    def is_subscribed_to(self, owner: str) -> bool:
        """Tell whether there is a stream that is subscribed to *owner*."""
        return self.stream is not None and owner in self.stream.owners

    def put(self, item: EventsMissed | ConnectionLost) -> None:
        """Let the stream yield *item*."""
        assert self.stream is not None
        self.stream.send.send_nowait(item)

    def publish(self, progress: UploadProgress, owner: str = "ann") -> None:
        """Let the stream yield an event with *progress*."""
        assert self.stream is not None
        self.stream.send.send_nowait(event_of(owner, progress, source="/elsewhere"))

    def close(self) -> None:
        """End the stream."""
        assert self.stream is not None
        self.stream.send.close()


@define(eq=False)
class FakeTransport:
    """A ``MessageTransport`` of which the test holds the other end.

    Attributes:
        open_errors: Raised by the next inboxes, one each, instead of being opened.
        sent: The messages that were sent, with their workers.
        inbox_stream: Where the test puts messages; None while no inbox is open.
        opened: How many inboxes were opened.
        send_error: Raised by ``send``.
    """

    open_errors: list[Exception] = field(factory=list)
    sent: list[tuple[str, bytes]] = field(factory=list)
    inbox_stream: MemoryObjectSendStream[bytes | EventsMissed | ConnectionLost] | None = None
    opened: int = 0
    send_error: Exception | None = None

    async def send(self, worker: str, message: bytes) -> None:
        """Record *message*."""
        if self.send_error is not None:
            raise self.send_error
        self.sent.append((worker, message))

    @asynccontextmanager
    async def inbox(
        self, worker: str
    ) -> AsyncIterator[AsyncIterator[bytes | EventsMissed | ConnectionLost]]:
        """Open the inbox; nothing arrives at the one of all workers."""
        if worker == ALL_WORKERS:
            silent_send, silent = anyio.create_memory_object_stream[bytes]()
            with silent_send, silent:
                yield silent
            return
        if self.open_errors:
            raise self.open_errors.pop()
        receive: MemoryObjectReceiveStream[bytes | EventsMissed | ConnectionLost]
        self.inbox_stream, receive = anyio.create_memory_object_stream[
            bytes | EventsMissed | ConnectionLost
        ](math.inf)
        self.opened += 1
        with self.inbox_stream, receive:
            yield receive

    def put(self, item: bytes | EventsMissed | ConnectionLost) -> None:
        """Let *item* arrive."""
        assert self.inbox_stream is not None
        self.inbox_stream.send_nowait(item)
