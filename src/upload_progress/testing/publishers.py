"""The contract of publishers."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
import pytest
from attrs import evolve

from upload_progress.fold import fold
from upload_progress.model import TransferRecord, UploadState
from upload_progress.ports import EventFeed, EventPublisher, Missed, Post
from upload_progress.wire import CloudEvent, event_of

__all__ = ["PATIENCE_SECONDS", "PublisherContract"]

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
    def feed(self, publisher: EventPublisher) -> EventFeed:
        """Return the feed that hears it; by default the publisher itself."""
        if isinstance(publisher, EventFeed):
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
        self, publisher: EventPublisher, feed: EventFeed, record: TransferRecord
    ) -> None:
        """Every field of it, at who listens for its owner and at who listens for all."""
        [event] = self._events(record, 1)
        async with feed.listen("ann") as hers, feed.listen() as everybodys:
            await publisher.publish([event])

            with anyio.fail_after(PATIENCE_SECONDS):
                assert await _next(hers) == event
                assert await _next(everybodys) == event

    async def test_an_owner_hears_nothing_of_others(
        self, publisher: EventPublisher, feed: EventFeed, record: TransferRecord
    ) -> None:
        """The first that comes is her own."""
        async with feed.listen("ann") as hers:
            await publisher.publish(self._events(evolve(record, owner="bob"), 1, 2))
            await publisher.publish(self._events(record, 3))

            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await _next(hers)).owner == "ann"

    async def test_who_is_slow_hears_the_last(
        self, publisher: EventPublisher, feed: EventFeed, record: TransferRecord
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
        self, publisher: EventPublisher, feed: EventFeed, record: TransferRecord
    ) -> None:
        """Publishing without listeners is fine."""
        async with feed.listen("ann"):
            await publisher.publish(self._events(record, 1))

        await publisher.publish(self._events(record, 2))

    async def test_a_letter_comes_to_its_worker_only(self, publisher: EventPublisher) -> None:
        """As it was sent, where the publisher is a post, too."""
        if not isinstance(publisher, Post):
            return
        async with publisher.letters("w1") as ours, publisher.letters("w.*") as others:
            await publisher.send("w.*", b"\xff to others")
            await publisher.send("nobody", b"lost")
            await publisher.send("w1", b"\x00 to us")

            with anyio.fail_after(PATIENCE_SECONDS):
                assert await _next_letter(ours) == b"\x00 to us"
                assert await _next_letter(others) == b"\xff to others"


async def _next_letter(box: AsyncIterator[bytes | Missed]) -> bytes:
    while isinstance(letter := await anext(box), Missed):
        continue
    return letter


async def _next(feed: AsyncIterator[CloudEvent | Missed]) -> CloudEvent:
    """Return the next event; a line may break and heal at any time."""
    while isinstance(heard := await anext(feed), Missed):
        continue
    return heard
