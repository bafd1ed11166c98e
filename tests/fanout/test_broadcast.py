"""The courier: it sends for those who wait, and nobody waits for another's slowness."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from benchmarks.sample_snapshot import sample_snapshot
from upload_progress import ProgressTracker
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio


def update(sequence: int, upload_id: str = "u", owner: str = "ann") -> Update:
    return Update(owner, evolve(sample_snapshot(), upload_id=upload_id, sequence=sequence))


@define(eq=False)
class Reader:
    """Sends what it gets to a list; a closed gate stands for a client that does not read."""

    tracker: ProgressTracker
    subscription: Subscription = field(init=False)
    gate: anyio.Event = field(factory=anyio.Event)
    sent: list[tuple[str, int]] = field(factory=list)
    woken: int = 0
    failure: Exception | None = None
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.subscription = internals_of(self.tracker).subscribe()
        self.subscription.add_owner("ann")
        self.gate.set()

    async def send(self, updates: list[Update]) -> None:
        if self.failure is not None:
            raise self.failure
        if not self.gate.is_set():
            await self.gate.wait()
        self.sent += [(each.progress.upload_id, each.progress.sequence) for each in updates]

    async def run(self) -> None:
        with self.scope:
            while not self.subscription.is_closed:
                updates = await internals_of(self.tracker).wait(self.subscription, self.send)
                self.woken += 1
                await self.send(updates)


@asynccontextmanager
async def reading(count: int) -> AsyncIterator[tuple[ProgressTracker, list[Reader]]]:
    tracker = ProgressTracker()
    with anyio.fail_after(10):
        async with tracker.lifespan(), anyio.create_task_group() as tasks:
            readers = [Reader(tracker) for _ in range(count)]
            for reader in readers:
                tasks.start_soon(reader.run)
            await until(lambda: all(reader.subscription.can_send_directly for reader in readers))
            yield tracker, readers
            tasks.cancel_scope.cancel()


async def until(is_so: object) -> None:
    assert callable(is_so)
    while not is_so():
        await checkpoint()


async def test_it_sends_without_waking_anybody() -> None:
    async with reading(300) as (tracker, readers):
        for sequence in (1, 2, 3):
            internals_of(tracker).hub.deliver(update(sequence))
            internals_of(tracker).hub.deliver(update(sequence, "v"))
            await until(lambda: not internals_of(tracker).hub.is_broadcasting)

        assert {tuple(reader.sent) for reader in readers} == {
            (("u", 1), ("v", 1), ("u", 2), ("v", 2), ("u", 3), ("v", 3))
        }
        assert sum(reader.woken for reader in readers) == 0


async def test_of_one_upload_it_brings_the_newest_and_nothing_twice() -> None:
    async with reading(1) as (tracker, [reader]):
        for sequence in (2, 3, 1):
            internals_of(tracker).hub.deliver(update(sequence))
        await until(lambda: not internals_of(tracker).hub.is_broadcasting)
        internals_of(tracker).hub.deliver(update(3))
        await until(lambda: not internals_of(tracker).hub.is_broadcasting)

        assert reader.sent == [("u", 3)]


async def test_nobody_waits_for_one_who_does_not_read() -> None:
    async with reading(50) as (tracker, readers):
        stuck, others = readers[0], readers[1:]
        stuck.gate = anyio.Event()
        for sequence in (1, 2, 3):
            internals_of(tracker).hub.deliver(update(sequence))
            await until(lambda: all(r.sent[-1:] == [("u", sequence)] for r in others))  # noqa: B023  # awaited here

        assert stuck.sent == []
        stuck.gate.set()
        await until(lambda: len(stuck.sent) == 2)
        assert stuck.sent == [("u", 1), ("u", 3)]


async def test_one_who_leaves_takes_the_courier_off_its_door() -> None:
    async with reading(2) as (tracker, [stuck, other]):
        stuck.gate = anyio.Event()
        internals_of(tracker).hub.deliver(update(1))
        await until(lambda: other.sent)
        stuck.scope.cancel()
        await until(lambda: stuck.scope.cancelled_caught)
        assert not stuck.subscription.can_send_directly
        stuck.gate.set()
        internals_of(tracker).hub.deliver(update(2))
        await until(lambda: other.sent[-1] == ("u", 2))

        assert stuck.sent == []


async def test_a_failure_is_raised_where_the_watcher_waits() -> None:
    async with reading(1) as (tracker, [reader]):
        reader.scope.cancel()
        await until(lambda: reader.scope.cancelled_caught)
        reader.failure = OSError("gone")

        async def wait_and_fail() -> None:
            with pytest.raises(OSError, match="gone"):
                await internals_of(tracker).wait(reader.subscription, reader.send)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_and_fail)
            await until(lambda: reader.subscription.can_send_directly)
            internals_of(tracker).hub.deliver(update(1))


async def test_what_it_had_not_brought_when_the_server_stops_is_not_lost() -> None:
    async with reading(3) as (tracker, readers):
        internals_of(tracker).hub.deliver(update(7))
        tracker.drain()
        await until(lambda: all(reader.sent for reader in readers))

        assert {tuple(reader.sent) for reader in readers} == {(("u", 7),)}


async def test_without_a_background_everybody_is_woken() -> None:
    tracker = ProgressTracker()
    reader = Reader(tracker)

    internals_of(tracker).hub.deliver(update(1))

    assert [each.progress.sequence for each in reader.subscription.take()] == [1]


async def test_a_tour_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """I12: what could stop the courier would keep everybody waiting for ever."""
    async with reading(1) as (tracker, [reader]):
        broadcaster = internals_of(tracker).hub._broadcaster
        recipients = broadcaster._recipients

        def failing(
            _owner: str, _updates: list[Update]
        ) -> Iterator[tuple[Subscription, list[Update]]]:
            broadcaster._recipients = recipients
            raise LookupError

        broadcaster._recipients = failing
        internals_of(tracker).hub.deliver(update(1))
        await until(lambda: not broadcaster.is_busy)
        internals_of(tracker).hub.deliver(update(2))
        await until(lambda: reader.sent)

    assert reader.sent == [("u", 2)]
    assert "a background task failed" in caplog.text
