"""Stores and brokers of a tracker: opened at the start, retried, closed at the stop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
import pytest
from attrs import define, field

from tests._support.simulation import deadline, until
from upload_progress import ProgressTracker
from upload_progress.backends import MemoryPublisher
from upload_progress.backends.redis.publisher import RedisPublisher

pytestmark = pytest.mark.anyio


@define(eq=False, slots=False)
class ScriptedBroker(MemoryPublisher):
    """A publisher whose opening fails or hangs, as *problems* say: an error, or None to hang."""

    problems: list[Exception | None] = field(factory=list)
    log: list[str] = field(factory=list)

    async def __aenter__(self) -> Self:
        """Open, fail or hang."""
        if self.problems:
            problem = self.problems.pop(0)
            self.log.append("problem")
            if problem is None:
                await anyio.sleep_forever()
            else:
                raise problem
        self.log.append("opened")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.log.append("closed")


async def test_backend_with_several_roles_is_opened_once() -> None:
    broker = ScriptedBroker()
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            assert broker.log == ["opened"]

    assert broker.log == ["opened", "closed"]


async def test_opening_is_retried_and_does_not_keep_the_application_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upload_progress._resources.START_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._resources.RETRY_SECONDS", 0.01)
    broker = ScriptedBroker(problems=[OSError("refused"), OSError("refused")])
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            async with tracker.track(owner="ann", upload_id="up") as upload:
                upload.advance(5)
            await until(lambda: "opened" in broker.log)

    assert broker.log == ["problem", "problem", "opened", "closed"]
    assert tracker.statistics().publisher_failures >= 2


@pytest.mark.parametrize("problem", [OSError("refused"), None], ids=["refuses", "hangs"])
async def test_unavailable_broker_does_not_keep_the_application_from_stopping(
    monkeypatch: pytest.MonkeyPatch, problem: Exception | None
) -> None:
    monkeypatch.setattr("upload_progress._resources.START_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._resources.CLOSE_SECONDS", 0.01)
    broker = ScriptedBroker(problems=[problem])
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            await until(lambda: broker.log)

    assert broker.log == ["problem"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_lost_connection_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Publisher and subscriber notice it independently."""
    broker = RedisPublisher.open("redis://127.0.0.1:1/0")
    tracker = ProgressTracker(publisher=broker)
    with deadline():
        async with tracker.lifespan():
            async with tracker.track(owner="ann"):
                await until(lambda: broker.statistics().connection_failures >= 2)
            await until(lambda: tracker.statistics().publisher_failures)

    lost = [message for message in caplog.messages if "connection lost" in message]
    assert len(lost) == 1
    assert lost[0].startswith("RedisPublisher: connection lost (")
