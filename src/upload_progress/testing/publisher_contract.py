"""The contracts of publishers, and of the post between workers."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

import anyio
import pytest
from attrs import evolve

from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import (
    EventPublisher,
    EventsMissed,
    EventSubscriber,
    MessageTransport,
)

__all__ = [
    "PATIENCE_SECONDS",
    "MessageTransportContract",
    "PublisherContract",
]

T = TypeVar("T")

PATIENCE_SECONDS: Final = 10.0
"""How long a contract waits for what has to come."""


class PublisherContract:
    """What every publisher with a feed does. Subclass, override ``publisher`` and ``feed``."""

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    @pytest.fixture
    def publisher(self) -> EventPublisher:
        """Return the publisher under test."""
        pytest.fail(f"{type(self).__name__}: override the fixture `publisher`", pytrace=False)

    @pytest.fixture
    def feed(self, publisher: EventPublisher) -> EventSubscriber:
        """Return the feed that hears it; by default the publisher itself."""
        if isinstance(publisher, EventSubscriber):
            return publisher
        pytest.fail(f"{type(self).__name__}: override the fixture `feed`", pytrace=False)

    @pytest.fixture
    def record(self) -> TransferRecord:
        """Return the record that the events tell of."""
        return TransferRecord("ann", "video", "t1", 1, 1, UploadState.RECEIVING, created_at=1.0)

    def _events(self, record: TransferRecord, *sequences: int) -> Sequence[CloudEvent]:
        events = []
        for sequence in sequences:
            progress = fold([evolve(record, sequence=sequence)], now=0.0)
            assert progress is not None
            events.append(event_of(record.owner, progress, "/tests"))
        return events

    async def test_an_event_arrives_as_it_was(
        self, publisher: EventPublisher, feed: EventSubscriber, record: TransferRecord
    ) -> None:
        """Every field of it, at who listens for its owner and at who listens for all."""
        [event] = self._events(record, 1)
        async with feed.listen("ann") as hers, feed.listen() as everybodys:
            await publisher.publish([event])

            with anyio.fail_after(PATIENCE_SECONDS):
                assert await _next(hers) == event
                assert await _next(everybodys) == event

    async def test_an_owner_hears_nothing_of_others(
        self, publisher: EventPublisher, feed: EventSubscriber, record: TransferRecord
    ) -> None:
        """The first that comes is her own."""
        async with feed.listen("ann") as hers:
            await publisher.publish(self._events(evolve(record, owner="bob"), 1, 2))
            await publisher.publish(self._events(record, 3))

            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await _next(hers)).owner == "ann"

    async def test_who_is_slow_hears_the_last(
        self, publisher: EventPublisher, feed: EventSubscriber, record: TransferRecord
    ) -> None:
        """Sequences never fall, and the newest always comes."""
        async with feed.listen("ann") as hers:
            await publisher.publish(self._events(record, 1, 2))
            await publisher.publish([])
            await publisher.publish(self._events(record, 3, 4))

            heard = [0]
            with anyio.fail_after(PATIENCE_SECONDS):
                while heard[-1] < 4:
                    heard.append((await _next(hers)).data.sequence)
        assert heard == sorted(heard)

    async def test_who_left_is_not_missed(
        self, publisher: EventPublisher, feed: EventSubscriber, record: TransferRecord
    ) -> None:
        """Publishing without listeners is fine."""
        async with feed.listen("ann"):
            await publisher.publish(self._events(record, 1))

        await publisher.publish(self._events(record, 2))

    async def test_who_hears_many_owners_hears_each(
        self, publisher: EventPublisher, feed: EventSubscriber, record: TransferRecord
    ) -> None:
        """Owners whose names are a broker's wildcards, separators or longer than it allows."""
        for owner in ("a.*", "a.#", "a:*", "a b/ü", "x" * 500):
            async with feed.listen(owner) as theirs, feed.listen("a.b"):
                await publisher.publish(self._events(evolve(record, owner="a.b"), 1))
                await publisher.publish(self._events(evolve(record, owner=owner), 2))

                with anyio.fail_after(PATIENCE_SECONDS):
                    assert (await _next(theirs)).owner == owner


class MessageTransportContract:
    """What every post between workers does. Subclass, override ``post``."""

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    @pytest.fixture
    def post(self) -> MessageTransport:
        """Return the post under test."""
        pytest.fail(f"{type(self).__name__}: override the fixture `post`", pytrace=False)

    async def test_letters_arrive_in_order_and_at_their_worker_only(
        self, post: MessageTransport
    ) -> None:
        """Of two boxes, each has its own letters, byte for byte."""
        async with post.letters("w1") as first, post.letters("w2") as second:
            await post.send("w1", b"one")
            await post.send("w2", bytes(range(256)))
            await post.send("w1", b"two")

            with anyio.fail_after(PATIENCE_SECONDS):
                assert [await _next(first), await _next(first)] == [b"one", b"two"]
                assert await _next(second) == bytes(range(256))

    async def test_a_letter_to_a_worker_that_is_not_there_is_lost(
        self, post: MessageTransport
    ) -> None:
        """It is no error, and it does not wait for whoever takes that name later."""
        await post.send("w1", b"early")

        async with post.letters("w1") as box:
            await post.send("w1", b"in time")

            with anyio.fail_after(PATIENCE_SECONDS):
                assert await _next(box) == b"in time"

    async def test_a_letter_is_small(self, post: MessageTransport) -> None:
        """4 KiB go; what is larger is refused where it is sent."""
        async with post.letters("w1") as box:
            with pytest.raises(InvalidValue, match="letter: has 4097 bytes"):
                await post.send("w1", bytes(4097))
            await post.send("w1", bytes(4096))

            with anyio.fail_after(PATIENCE_SECONDS):
                assert await _next(box) == bytes(4096)


async def _next(feed: AsyncIterator[T | EventsMissed]) -> T:
    """Return the next that comes; a line may break and heal at any time."""
    while isinstance(heard := await anext(feed), EventsMissed):
        continue
    return heard
