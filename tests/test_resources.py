"""What a tracker holds while it runs: stores and brokers that may not be there yet."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import pytest
from attrs import define, field

from tests._support.simulation import deadline
from upload_progress import ProgressTracker
from upload_progress.backends import MemoryPublisher
from upload_progress.backends.redis.publisher import RedisPublisher

pytestmark = pytest.mark.anyio


@define(eq=False, slots=False)
class Broker(MemoryPublisher):
    """A publisher that has to be entered, which may fail or take for ever."""

    troubles: list[Exception | None] = field(factory=list)
    log: list[str] = field(factory=list)

    async def __aenter__(self) -> Self:
        """Connect, fail, or hang."""
        if self.troubles:
            trouble = self.troubles.pop(0)
            self.log.append("trouble")
            if trouble is None:
                await anyio.sleep_forever()
            else:
                raise trouble
        self.log.append("entered")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.log.append("left")


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    is_so = False
    while not is_so:
        await anyio.sleep(0.002)
        is_so = bool(condition())


async def test_what_is_publisher_feed_and_post_at_once_is_entered_once() -> None:
    broker = Broker()
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            assert broker.log == ["entered"]

    assert broker.log == ["entered", "left"]


async def test_a_broker_that_is_not_there_at_the_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S01: the application starts."""
    monkeypatch.setattr("upload_progress._resources.START_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._resources.RETRY_SECONDS", 0.01)
    broker = Broker(troubles=[OSError("dead"), OSError("dead")])
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            async with tracker.track(owner="ann", upload_id="up") as upload:
                upload.advance(5)
            await until(lambda: "entered" in broker.log)

    assert broker.log == ["trouble", "trouble", "entered", "left"]
    assert tracker.statistics().publisher_failures >= 2


@pytest.mark.parametrize("trouble", [OSError("dead"), None], ids=["dead", "hung"])
async def test_a_broker_that_never_comes_does_not_keep_the_application_from_stopping(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception | None
) -> None:
    monkeypatch.setattr("upload_progress._resources.START_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._resources.CLOSE_SECONDS", 0.01)
    broker = Broker(troubles=[trouble])
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            await until(lambda: broker.log)

    assert broker.log == ["trouble"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_broker_whose_line_broke_is_said_to_be_away_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """I11: by the half that sends or by the half that hears, whichever finds out first."""
    broker = RedisPublisher.open("redis://127.0.0.1:1/0")
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            async with tracker.track(owner="ann"):
                await until(lambda: broker.statistics().connection_failures >= 2)
            await until(lambda: tracker.statistics().publisher_failures)

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("RedisPublisher: connection lost (")
