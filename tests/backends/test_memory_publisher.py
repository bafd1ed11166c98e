"""The memory publisher: the contracts, and its bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, evolve

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord
from upload_progress.backends import MemoryPublisher
from upload_progress.backends.subscriptions import MAX_WAITING_EVENTS
from upload_progress.interfaces import (
    ALL_OWNERS,
    ConnectionLost,
    EventPublisher,
    EventsMissed,
    EventStream,
    EventSubscriber,
    MessageTransport,
)
from upload_progress.testing import MessageTransportContract, PublisherContract
from upload_progress.testing.publisher_contract import next_item


class TestMemoryTransport(MessageTransportContract):
    @pytest.fixture
    def transport(self) -> MessageTransport:
        return MemoryPublisher()


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self) -> EventPublisher:
        return MemoryPublisher()

    async def test_stream_that_is_not_read_is_bounded(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.events() as stream:
            await stream.subscribe("ann")
            for number in range(MAX_WAITING_EVENTS + 5):
                one = evolve(record, upload_id=f"u{number}")
                await publisher.publish(self._events(one, 1))

            assert len(stream) == MAX_WAITING_EVENTS
            assert await anext(stream) == EventsMissed()
            received = await anext(stream)
            assert isinstance(received, CloudEvent)
            assert received.subject == "u5"
        assert not publisher._table.channels

    async def test_stream_that_waits_is_woken(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.events() as stream, anyio.create_task_group() as tasks:
            await stream.subscribe(ALL_OWNERS)
            tasks.start_soon(publisher.publish, self._events(record, 1))
            assert await next_item(stream) == self._events(record, 1)[0]


@define(eq=False)
class UnreliableStream(AsyncIterator[CloudEvent | EventsMissed | ConnectionLost]):
    """A stream that loses its connection, and reconnects, before each event."""

    inner: EventStream
    notices: tuple[EventsMissed | ConnectionLost, ...] = ()

    async def subscribe(self, *owners: str | None) -> None:
        await self.inner.subscribe(*owners)

    async def unsubscribe(self, *owners: str | None) -> None:
        await self.inner.unsubscribe(*owners)

    async def __anext__(self) -> CloudEvent | EventsMissed | ConnectionLost:
        if not self.notices:
            self.notices = (ConnectionLost(), EventsMissed())
            return await anext(self.inner)
        notice, *rest = self.notices
        self.notices = tuple(rest)
        return notice


@define
class UnreliableSubscriber:
    inner: EventSubscriber

    @asynccontextmanager
    async def events(self) -> AsyncIterator[UnreliableStream]:
        async with self.inner.events() as stream:
            yield UnreliableStream(stream)


class TestUnreliableSubscriber(PublisherContract):
    @pytest.fixture
    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher()

    @pytest.fixture
    def subscriber(self, publisher: MemoryPublisher) -> EventSubscriber:
        return UnreliableSubscriber(publisher)
