"""Keeping a line to a broker up: dialled, subscribed, confirmed, broken, mended."""

from __future__ import annotations

import logging
from collections.abc import Collection

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from tests._support.simulation import deadline
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import Address
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import EventsMissed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Drivers run on asyncio."""
    return "asyncio"


@define(eq=False)
class Line:
    """A wire that is up until the test breaks it."""

    broken: anyio.Event = field(factory=anyio.Event)
    error: Exception | None = None
    subscribed: set[Address] = field(factory=set)
    is_closed: bool = False

    async def hear(self) -> None:
        """Wait until the line breaks."""
        await self.broken.wait()
        if self.error is not None:
            raise self.error

    async def subscribe(self, addresses: Collection[Address]) -> None:
        """Subscribe."""
        self.subscribed |= set(addresses)

    async def unsubscribe(self, addresses: Collection[Address]) -> None:
        """Unsubscribe."""
        self.subscribed -= set(addresses)

    async def close(self) -> None:
        """Close."""
        self.is_closed = True


@define(eq=False, kw_only=True)
class Lines(BrokerSubscriber):
    """A feed over lines of the test's own."""

    lines: list[Line] = field(factory=list)
    refusals: int = 0
    is_closed: bool = False

    async def _dial(self) -> Line:
        if self.refusals:
            self.refusals -= 1
            raise OSError
        self.lines.append(Line())
        return self.lines[-1]

    async def _close(self) -> None:
        self.is_closed = True


async def test_it_subscribes_to_what_is_listened_to() -> None:
    feed = Lines()
    with deadline():
        async with feed:
            async with feed.listen("ann"), feed.letters("w"):
                assert feed.lines[0].subscribed == {
                    Address.of_owner("ann"),
                    Address.of_worker("w"),
                }
            async with feed.listen("bob"):
                assert feed.lines[0].subscribed == {Address.of_owner("bob")}
                assert feed.statistics().is_connected

    assert feed.is_closed
    assert feed.lines[0].is_closed


@pytest.mark.parametrize(
    "error", [None, OSError(), ExceptionGroup("", [OSError()])], ids=["ends", "breaks", "group"]
)
async def test_a_line_that_ends_is_dialled_again(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "upload_progress")
    feed = Lines(refusals=1)
    with deadline():
        async with feed, feed.listen("ann") as news, feed.letters("w") as box:
            assert await anext(news) == EventsMissed()
            feed.lines[0].error = error
            feed.lines[0].broken.set()
            assert await anext(news) == EventsMissed()
            assert await anext(box) == EventsMissed()
            assert feed.lines[1].subscribed == {Address.of_owner("ann"), Address.of_worker("w")}

    assert feed.statistics().breaks == 2
    [said] = [record.getMessage() for record in caplog.records]
    assert said == "the line of Lines is down (OSError); it is being mended"


async def test_who_listens_to_what_is_not_entered_is_told() -> None:
    feed = Lines(refusals=1_000_000)
    with pytest.raises(NotEntered, match="Lines is not entered"):
        await feed.listen("ann").__aenter__()
    with deadline():
        async with anyio.create_task_group() as tasks, feed:
            tasks.start_soon(listens_in_vain, feed)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(InvalidValue, match="entered already"):
                await feed.__aenter__()


async def listens_in_vain(feed: Lines) -> None:
    with pytest.raises(NotEntered):
        await feed.letters("w").__aenter__()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_says_that_it_needs_asyncio() -> None:
    with pytest.raises(InvalidValue, match="needs asyncio"):
        await Lines().__aenter__()
