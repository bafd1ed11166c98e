"""The memory publisher: the contract of all publishers, and its bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import evolve

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord
from upload_progress.backends import MemoryPublisher
from upload_progress.backends.memory import MAX_WAITING
from upload_progress.interfaces import (
    EventPublisher,
    EventsMissed,
    EventSubscriber,
    MessageTransport,
)
from upload_progress.testing import PATIENCE_SECONDS, MessageTransportContract, PublisherContract


class TestMemoryPost(MessageTransportContract):
    @pytest.fixture
    def post(self) -> MessageTransport:
        return MemoryPublisher()


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self) -> EventPublisher:
        return MemoryPublisher()

    async def test_a_listener_that_does_not_read_is_bounded(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.listen("ann") as events:
            for number in range(MAX_WAITING + 5):
                one = evolve(record, upload_id=f"u{number}")
                await publisher.publish(self._events(one, 1))

            assert len(events._waiting) == MAX_WAITING
            assert await anext(events) == EventsMissed()
            heard = await anext(events)
            assert isinstance(heard, CloudEvent)
            assert heard.subject == "u5"
        assert not publisher._board.addresses

    async def test_a_listener_that_waits_is_woken(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.listen() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.publish, self._events(record, 1))
            with anyio.fail_after(PATIENCE_SECONDS):
                assert await anext(events) == self._events(record, 1)[0]


class Breaking(AsyncIterator[CloudEvent | EventsMissed]):
    """A line that breaks, and is mended, before each event."""

    def __init__(self, events: AsyncIterator[CloudEvent | EventsMissed]) -> None:
        self.events = events
        self.is_mended = False

    async def __anext__(self) -> CloudEvent | EventsMissed:
        self.is_mended = not self.is_mended
        return EventsMissed() if self.is_mended else await anext(self.events)


class BreakingFeed:
    def __init__(self, inner: EventSubscriber) -> None:
        self.inner = inner

    @asynccontextmanager
    async def listen(self, owner: str | None = None) -> AsyncIterator[Breaking]:
        async with self.inner.listen(owner) as events:
            yield Breaking(events)


class TestALineThatBreaks(PublisherContract):
    @pytest.fixture
    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher()

    @pytest.fixture
    def feed(self, publisher: MemoryPublisher) -> EventSubscriber:
        return BreakingFeed(publisher)
