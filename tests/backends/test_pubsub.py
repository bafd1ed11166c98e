"""The subscribing half of a broker adapter: connecting, subscribing, losing the connection."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Collection

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from tests._support.simulation import deadline
from upload_progress.backends.pubsub import BrokerSubscriber
from upload_progress.backends.subscriptions import Channel
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import ConnectionLost, EventsMissed
from upload_progress.testing.publisher_contract import subscribed

pytestmark = pytest.mark.anyio

ANN, BOB, WORKER = Channel.of_owner("ann"), Channel.of_owner("bob"), Channel.of_worker("w")


@pytest.fixture
def anyio_backend() -> str:
    """Drivers run on asyncio."""
    return "asyncio"


@define(eq=False)
class FakeConnection:
    """A connection that lasts until the test ends it."""

    lost: anyio.Event = field(factory=anyio.Event)
    error: Exception | None = None
    subscribed: set[Channel] = field(factory=set)
    is_closed: bool = False

    async def receive(self) -> None:
        """Wait until the connection is lost."""
        await self.lost.wait()
        if self.error is not None:
            raise self.error

    async def subscribe(self, channels: Collection[Channel]) -> None:
        """Subscribe."""
        self.subscribed |= set(channels)

    async def unsubscribe(self, channels: Collection[Channel]) -> None:
        """Unsubscribe."""
        self.subscribed -= set(channels)

    async def close(self) -> None:
        """Close."""
        self.is_closed = True


@define(eq=False, kw_only=True)
class FakeBroker(BrokerSubscriber):
    """A subscriber over connections that the test holds."""

    connections: list[FakeConnection] = field(factory=list)
    refusals: int = 0
    is_closed: bool = False

    async def _connect(self) -> FakeConnection:
        if self.refusals:
            self.refusals -= 1
            raise OSError
        self.connections.append(FakeConnection())
        return self.connections[-1]

    async def _close(self) -> None:
        self.is_closed = True


async def test_connection_is_subscribed_to_the_channels_of_streams_and_inboxes() -> None:
    broker = FakeBroker()
    with deadline():
        async with broker:
            async with subscribed(broker, "ann"), broker.inbox("w"):
                assert broker.connections[0].subscribed == {ANN, WORKER}
            async with subscribed(broker, "bob") as stream:
                assert broker.connections[0].subscribed == {BOB}
                assert broker.statistics().is_connected
                await stream.subscribe("ann")
                await stream.unsubscribe("bob")
                await stream.subscribe("ann")
                async with broker.inbox("w"):
                    assert broker.connections[0].subscribed == {ANN, WORKER}

    assert broker.is_closed
    assert broker.connections[0].is_closed


@pytest.mark.parametrize(
    "error", [None, OSError(), ExceptionGroup("", [OSError()])], ids=["ends", "breaks", "group"]
)
async def test_lost_connection_is_replaced(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "upload_progress")
    broker = FakeBroker(refusals=1)
    with deadline():
        async with broker, subscribed(broker, "ann") as stream, broker.inbox("w") as inbox:
            assert await anext(stream) == EventsMissed()
            broker.connections[0].error = error
            broker.connections[0].lost.set()
            assert await anext(stream) == ConnectionLost()
            assert await anext(inbox) == ConnectionLost()
            assert await anext(stream) == EventsMissed()
            assert await anext(inbox) == EventsMissed()
            assert broker.connections[1].subscribed == {ANN, WORKER}

    assert broker.statistics().connection_failures == 2
    [logged] = [record.getMessage() for record in caplog.records]
    assert logged.startswith("FakeBroker: connection lost (OSError); reconnecting in 0.")
    assert logged.endswith(" s")


async def test_adapter_that_is_not_entered_raises() -> None:
    broker = FakeBroker(refusals=1_000_000)
    for early in (broker.events(), broker.inbox("w")):
        with pytest.raises(NotEntered, match="FakeBroker is not entered"):
            await early.__aenter__()
    with deadline():
        async with anyio.create_task_group() as tasks, broker:
            tasks.start_soon(subscribes_until_left, broker)
            tasks.start_soon(opens_inbox_until_left, broker)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(InvalidValue, match="entered already"):
                await broker.__aenter__()


async def subscribes_until_left(broker: FakeBroker) -> None:
    async with broker.events() as stream:
        with pytest.raises(NotEntered):
            await stream.subscribe("ann")


async def opens_inbox_until_left(broker: FakeBroker) -> None:
    with pytest.raises(NotEntered):
        await broker.inbox("w").__aenter__()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_another_event_loop_than_asyncio_is_refused() -> None:
    with pytest.raises(InvalidValue, match="needs asyncio"):
        await FakeBroker().__aenter__()


async def test_forked_process_enters_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process of the parent, it stays entered, and its streams are those of the parent."""
    broker, parent = FakeBroker(), os.getpid()
    with deadline():
        async with broker, subscribed(broker, "ann"):
            with monkeypatch.context() as child:
                child.setattr(os, "getpid", lambda: parent + 1)
                with pytest.raises(NotEntered):
                    await broker.events().__aenter__()
                copied = copy.copy(broker)
                async with copied, subscribed(copied, "bob"):
                    assert broker.connections[-1].subscribed == {BOB}
            assert broker.connections[0].subscribed == {ANN}
