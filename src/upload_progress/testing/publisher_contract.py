"""Contract tests for event publishers and subscribers, and for message transports."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import pytest
from attrs import evolve

from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import (
    ALL_OWNERS,
    ConnectionLost,
    EventPublisher,
    EventsMissed,
    EventStream,
    EventSubscriber,
    MessageTransport,
)

__all__ = [
    "TIMEOUT_SECONDS",
    "MessageTransportContract",
    "PublisherContract",
    "next_item",
    "subscribed",
]

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 10.0
"""How long a contract test waits for an event or a message."""


class PublisherContract:
    """What every publisher with a subscriber does. Subclass it, and override the fixtures.

    ::

        class TestMyPublisher(PublisherContract):
            @pytest.fixture
            async def publisher(self) -> AsyncIterator[MyPublisher]:
                async with MyPublisher() as publisher:
                    yield publisher
    """

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    @pytest.fixture
    def publisher(self) -> EventPublisher:
        """Return the publisher under test."""
        pytest.fail(f"{type(self).__name__}: override the fixture `publisher`", pytrace=False)

    @pytest.fixture
    def subscriber(self, publisher: EventPublisher) -> EventSubscriber:
        """Return a subscriber to its events; by default the publisher itself."""
        if isinstance(publisher, EventSubscriber):
            return publisher
        pytest.fail(f"{type(self).__name__}: override the fixture `subscriber`", pytrace=False)

    @pytest.fixture
    def record(self) -> TransferRecord:
        """Return the record of which events are made."""
        return TransferRecord("ann", "video", "t1", 1, 1, UploadState.RECEIVING, created_at=1.0)

    def _events(self, record: TransferRecord, *sequences: int) -> Sequence[CloudEvent]:
        events = []
        for sequence in sequences:
            progress = fold([evolve(record, sequence=sequence)], now=0.0)
            assert progress is not None
            events.append(event_of(record.owner, progress, "/tests"))
        return events

    async def test_event_arrives_unchanged(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """With every field, on a stream of its owner and on a stream of all owners."""
        [event] = self._events(record, 1)
        async with subscribed(subscriber, "ann") as one, subscribed(subscriber, ALL_OWNERS) as all_:
            await publisher.publish([event])

            assert await next_item(one) == event
            assert await next_item(all_) == event

    async def test_events_of_other_owners_do_not_arrive(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """The first event that arrives is of the subscribed owner."""
        async with subscribed(subscriber, "ann") as stream:
            await publisher.publish(self._events(evolve(record, owner="bob"), 1, 2))
            await publisher.publish(self._events(record, 3))

            assert (await next_item(stream)).owner == "ann"

    async def test_stream_follows_several_owners(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """Owners are added and removed while the stream is open."""
        bob, cid = evolve(record, owner="bob"), evolve(record, owner="cid")
        async with subscribed(subscriber, "ann", "bob") as stream:
            await publisher.publish(self._events(record, 1))
            await publisher.publish(self._events(bob, 1))
            assert {(await next_item(stream)).owner for _ in range(2)} == {"ann", "bob"}
            await stream.subscribe("cid")
            await stream.unsubscribe("bob", "unknown")
            await publisher.publish(self._events(bob, 2))
            await publisher.publish(self._events(cid, 2))

            assert (await next_item(stream)).owner == "cid"

    async def test_events_that_wait_when_their_owner_is_unsubscribed_are_dropped(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """Another stream shows that they have arrived."""
        async with (
            subscribed(subscriber, "ann", "bob") as stream,
            subscribed(subscriber, "bob") as other,
        ):
            await publisher.publish(self._events(evolve(record, owner="bob"), 1))
            await next_item(other)
            await stream.unsubscribe("bob")
            await publisher.publish(self._events(record, 1))

            assert (await next_item(stream)).owner == "ann"

    async def test_slow_consumer_receives_the_newest_event(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """Sequences never decrease, and the newest always arrives."""
        async with subscribed(subscriber, "ann") as stream:
            await publisher.publish(self._events(record, 1, 2))
            await publisher.publish([])
            await publisher.publish(self._events(record, 3, 4))

            received = [0]
            while received[-1] < 4:
                received.append((await next_item(stream)).data.sequence)
        assert received == sorted(received)

    async def test_publishing_without_subscriptions_is_no_error(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """Also after the last stream was closed."""
        async with subscribed(subscriber, "ann"):
            await publisher.publish(self._events(record, 1))

        await publisher.publish(self._events(record, 2))

    async def test_owner_names_are_not_patterns(
        self, publisher: EventPublisher, subscriber: EventSubscriber, record: TransferRecord
    ) -> None:
        """Names that contain wildcards or separators of a broker, or are longer than it allows."""
        for owner in ("a.*", "a.#", "a:*", "a b/ü", "x" * 500):
            async with subscribed(subscriber, owner) as stream, subscribed(subscriber, "a.b"):
                await publisher.publish(self._events(evolve(record, owner="a.b"), 1))
                await publisher.publish(self._events(evolve(record, owner=owner), 2))

                assert (await next_item(stream)).owner == owner


class MessageTransportContract:
    """What every message transport does. Subclass it, and override ``transport``."""

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    @pytest.fixture
    def transport(self) -> MessageTransport:
        """Return the transport under test."""
        pytest.fail(f"{type(self).__name__}: override the fixture `transport`", pytrace=False)

    async def test_messages_arrive_in_order_at_their_worker_only(
        self, transport: MessageTransport
    ) -> None:
        """Each of two inboxes receives its own messages, byte for byte."""
        async with transport.inbox("w1") as first, transport.inbox("w2") as second:
            await transport.send("w1", b"one")
            await transport.send("w2", bytes(range(256)))
            await transport.send("w1", b"two")

            assert [await next_item(first), await next_item(first)] == [b"one", b"two"]
            assert await next_item(second) == bytes(range(256))

    async def test_message_without_an_inbox_is_lost(self, transport: MessageTransport) -> None:
        """It is no error, and a later inbox of that name does not receive it."""
        await transport.send("w1", b"early")

        async with transport.inbox("w1") as inbox:
            await transport.send("w1", b"in time")

            assert await next_item(inbox) == b"in time"

    async def test_message_size_is_limited(self, transport: MessageTransport) -> None:
        """4 KiB are sent; a larger message is refused by ``send``."""
        async with transport.inbox("w1") as inbox:
            with pytest.raises(InvalidValue, match="message: has 4097 bytes"):
                await transport.send("w1", bytes(4097))
            await transport.send("w1", bytes(4096))

            assert await next_item(inbox) == bytes(4096)


@asynccontextmanager
async def subscribed(
    subscriber: EventSubscriber, *owners: str | None
) -> AsyncIterator[EventStream]:
    """Open a stream that is subscribed to *owners*."""
    async with subscriber.events() as stream:
        await stream.subscribe(*owners)
        yield stream


async def next_item(stream: AsyncIterator[T | EventsMissed | ConnectionLost]) -> T:
    """Return the next event or message; a connection may be lost at any time."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while isinstance(item := await anext(stream), EventsMissed | ConnectionLost):
            continue
        return item
