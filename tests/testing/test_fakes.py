"""The fakes that are shipped for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from tests._support.records import record
from upload_progress.backends import MemoryStore
from upload_progress.interfaces import SessionStore
from upload_progress.testing import FakeClock, FaultyPublisher, FaultyStore

pytestmark = pytest.mark.anyio


async def test_fake_clock_moves_when_advanced() -> None:
    clock = FakeClock(monotonic_seconds=1.0, epoch_seconds=2.0)

    clock.advance(0.5)

    assert (clock.monotonic(), clock.time()) == (1.5, 2.5)


async def test_faulty_publisher_fails_while_fault_is_set() -> None:
    publisher = FaultyPublisher("raise")
    with pytest.raises(OSError, match="injected fault"):
        await publisher.publish([])
    publisher.fault = None

    await publisher.publish([])

    assert (publisher.events, publisher.batches) == ([], [0])


async def test_faulty_store_fails_while_fault_is_set() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, fault="raise")
    one: SessionStore = store
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(one.save, [record()]),
        partial(one.load, record().key),
        partial(one.list, "ann"),
        partial(one.renew, "w", seconds=5),
        partial(one.overdue, limit=9),
    ]
    for call in calls:
        with pytest.raises(OSError, match="injected fault"):
            await call()
    assert (store.calls, len(inner)) == (len(calls), 0)
    store.fault = None

    for call in calls:
        await call()

    assert store.saved == [[record()]]
    assert len(inner) == 1


async def test_hanging_store_waits_until_cancelled() -> None:
    store = FaultyStore(MemoryStore(), fault="hang")

    with anyio.move_on_after(0.01) as scope:
        await store.save([record()])

    assert scope.cancelled_caught
    assert store.saved == []
