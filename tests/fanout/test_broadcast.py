"""Broadcasting: one task sends for all subscriptions that wait, and a slow one delays no other."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from attrs import define, evolve, field

from benchmarks.sample_snapshot import sample_snapshot
from tests._support.simulation import deadline, until
from upload_progress import ProgressTracker
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of

pytestmark = pytest.mark.anyio

MAX_CALLS = 10
"""Functions of a subscription and of an update that are called for each client."""


def update(sequence: int, upload_id: str = "u", owner: str = "ann") -> Update:
    return Update(owner, evolve(sample_snapshot(), upload_id=upload_id, sequence=sequence))


@define(eq=False)
class Client:
    """Appends what is sent to a list; while its gate is closed, it does not read."""

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
async def connected(count: int) -> AsyncIterator[tuple[Hub, list[Client]]]:
    """Run a tracker with *count* clients whose tasks wait."""
    tracker = ProgressTracker()
    with anyio.fail_after(10):
        async with tracker.lifespan(), anyio.create_task_group() as tasks:
            clients = [Client(tracker) for _ in range(count)]
            for client in clients:
                tasks.start_soon(client.run)
            await until(lambda: all(client.subscription.has_direct_sender for client in clients))
            yield internals_of(tracker).hub, clients
            tasks.cancel_scope.cancel()


async def test_round_sends_without_waking_tasks() -> None:
    async with connected(300) as (hub, clients):
        for sequence in (1, 2, 3):
            hub.deliver(update(sequence))
            hub.deliver(update(sequence, "v"))
            await until(lambda: not hub.is_broadcasting)

        assert {tuple(client.sent) for client in clients} == {
            (("u", 1), ("v", 1), ("u", 2), ("v", 2), ("u", 3), ("v", 3))
        }
        assert sum(client.woken for client in clients) == 0


async def calls_of_delivery(count: int) -> int:
    """Return how many functions of subscriptions are called to update *count* clients."""
    calls = Counter[tuple[str, str]]()
    async with connected(count) as (hub, clients):
        hub.deliver(update(1))
        await until(lambda: not hub.is_broadcasting)
        previous = sys.getprofile()
        sys.setprofile(
            lambda frame, event, _: calls.update([(event, Path(frame.f_code.co_filename).name)])
        )
        hub.deliver(update(2))
        await until(lambda: not hub.is_broadcasting)
        sys.setprofile(previous)
        assert all(client.sent == [("u", 1), ("u", 2)] for client in clients)
    return calls["call", "subscription.py"] + calls["call", "update.py"]


async def test_calls_of_functions_per_client_are_within_budget() -> None:
    """Budget: they delay the last client, and cost more than sending."""
    few, many = await calls_of_delivery(20), await calls_of_delivery(120)

    assert 0 < many - few <= 100 * MAX_CALLS


async def test_round_sends_the_newest_snapshot_once() -> None:
    async with connected(1) as (hub, [client]):
        for sequence in (2, 3, 1):
            hub.deliver(update(sequence))
        await until(lambda: not hub.is_broadcasting)
        hub.deliver(update(3))
        await until(lambda: not hub.is_broadcasting)

        assert client.sent == [("u", 3)]


async def test_client_that_does_not_read_delays_no_other() -> None:
    async with connected(50) as (hub, clients):
        blocked, others = clients[0], clients[1:]
        blocked.gate = anyio.Event()
        for sequence in (1, 2, 3):
            hub.deliver(update(sequence))
            await until(lambda: all(each.sent[-1:] == [("u", sequence)] for each in others))  # noqa: B023  # awaited here

        assert blocked.sent == []
        blocked.gate.set()
        await until(lambda: len(blocked.sent) == 2)
        assert blocked.sent == [("u", 1), ("u", 3)]


async def test_client_that_leaves_cancels_the_send_to_it() -> None:
    async with connected(2) as (hub, [blocked, other]):
        blocked.gate = anyio.Event()
        hub.deliver(update(1))
        await until(lambda: other.sent)
        blocked.scope.cancel()
        await until(lambda: blocked.scope.cancelled_caught)
        assert not blocked.subscription.has_direct_sender
        blocked.gate.set()
        hub.deliver(update(2))
        await until(lambda: other.sent[-1] == ("u", 2))

        assert blocked.sent == []


async def test_failed_send_is_raised_in_the_task_that_waits() -> None:
    async with connected(1) as (hub, [client]):
        client.scope.cancel()
        await until(lambda: client.scope.cancelled_caught)
        client.failure = OSError("closed")

        async def wait_and_fail() -> None:
            with pytest.raises(OSError, match="closed"):
                await internals_of(client.tracker).wait(client.subscription, client.send)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_and_fail)
            await until(lambda: client.subscription.has_direct_sender)
            hub.deliver(update(1))


async def test_stop_loses_no_update() -> None:
    async with connected(3) as (hub, clients):
        hub.deliver(update(7))
        hub.close()
        await until(lambda: all(client.sent for client in clients))

        assert {tuple(client.sent) for client in clients} == {(("u", 7),)}


async def test_task_is_woken_without_lifespan() -> None:
    """Without a task group no round can start."""
    client = Client(ProgressTracker())
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.subscription.wait, client.send)
            await until(lambda: client.subscription.has_direct_sender)
            internals_of(client.tracker).hub.deliver(update(1))

    assert [each.progress.sequence for each in client.subscription.take()] == [1]
    assert client.sent == []


async def test_failed_round_is_followed_by_others(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(1) as (hub, [client]):
        broadcaster = hub._broadcaster
        recipients = broadcaster._recipients

        def fail_once(
            _owner: str, _updates: list[Update]
        ) -> Iterator[tuple[Subscription, list[Update]]]:
            broadcaster._recipients = recipients
            raise LookupError

        broadcaster._recipients = fail_once
        hub.deliver(update(1))
        await until(lambda: not broadcaster.is_busy)
        hub.deliver(update(2))
        await until(lambda: client.sent)

    assert client.sent == [("u", 2)]
    assert "a background task failed" in caplog.text
