"""Subscriptions: what they receive, and never more than one slot per upload."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import Simulation, deadline
from tests._support.updates import hub_without_tasks, taken, update
from upload_progress import Limits, UploadState
from upload_progress._fanout.hub import Hub
from upload_progress.exceptions import QuotaExceeded

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def hub() -> Hub:
    return hub_without_tasks()


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=40))
def test_sequences_rise_whatever_the_order_of_updates(deliveries: list[tuple[int, bool]]) -> None:
    """The highest sequence is always delivered."""
    hub = hub_without_tasks()
    subscription = hub.subscribe(now=0)
    subscription.add_upload("ann", "up")
    received = []
    for sequence, is_read in deliveries:
        hub.deliver(update(sequence))
        received += taken(subscription) if is_read else []
    received += taken(subscription)

    sequences = [sequence for _, sequence in received]
    assert sequences == sorted(set(sequences))
    assert (
        sequences[-1:] == [max(each for each, _ in deliveries)][: len(deliveries)]
        if deliveries
        else not received
    )


def test_remove_ends_delivery(hub: Hub) -> None:
    subscription = hub.subscribe(now=0)
    for _ in range(2):
        subscription.add_upload("ann", "up")
    subscription.add_upload("ann", "other")
    subscription.add_group("ann", "g")
    assert subscription.topics == 3
    hub.deliver(update(1))

    assert subscription.remove_upload("ann", "up")
    assert not subscription.remove_upload("ann", "up")
    assert taken(subscription) == []
    assert subscription.remove_group("ann", "g")
    assert not subscription.remove_group("ann", "g")
    assert hub.has_subscribers("ann")
    subscription.add_owner("bob")
    assert subscription.remove_all() == ["other"]
    assert not hub.owners()


def test_renewed_subscription_shows_the_same_snapshot_again(hub: Hub) -> None:
    subscription = hub.subscribe(now=0)
    for _ in range(2):
        subscription.add_upload("ann", "up")
        subscription.offer(update(5))
        assert taken(subscription) == [("up", 5)]
        subscription.remove_upload("ann", "up")


def test_capacity_limits_uploads_and_groups(hub: Hub) -> None:
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_upload("ann", "a")
    subscription.add_group("ann", "g")
    subscription.add_upload("ann", "a")

    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        subscription.add_upload("ann", "b")
    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        subscription.add_group("ann", "h")


def test_delivered_versions_are_remembered_up_to_a_limit(hub: Hub) -> None:
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_owner("ann")
    for number in range(50):
        hub.deliver(update(1, upload_id=f"u{number}"))
        subscription.take()

    assert len(subscription._delivered) == 4


async def test_wait_ends_with_an_update_a_heartbeat_or_the_close(hub: Hub) -> None:
    subscription = hub.subscribe(now=0)
    subscription.add_upload("ann", "up")
    with deadline(), anyio.CancelScope() as scope:
        scope.cancel()
        await subscription.wait()
    wakes: list[Callable[[], None]] = [
        lambda: hub.deliver(update(1)),
        subscription.wake_for_heartbeat,
        hub.close,
    ]
    for wake in wakes:
        with deadline():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.wait)
                await checkpoint()
                wake()
        subscription.take()
    assert subscription.is_closed
    assert len(hub) == 0


def test_updates_in_slots_can_be_taken_after_the_close(hub: Hub) -> None:
    subscription = hub.subscribe(now=0)
    subscription.add_upload("ann", "up")
    hub.deliver(update(1))
    hub.close()
    hub.deliver(update(2))

    assert taken(subscription) == [("up", 1)]


async def test_unread_subscription_keeps_the_newest_snapshot_of_each_upload() -> None:
    sim = Simulation()
    unread, read = sim.subscription(), sim.subscription()
    lives = [sim.begin(f"up{number}", total=1000) for number in range(10)]
    for _ in range(50):
        for live in lives:
            sim.add(live, 20)
        await sim.run(1.2)
        assert read.take()
        assert len(unread._slots) <= 10
    for live in lives:
        live.end_body()
        live.finish(200)
    await sim.run(0.5)

    last = [update.progress for update in unread.take()]
    assert len(last) == 10
    assert {progress.state for progress in last} == {S.COMPLETED}


async def test_subscription_with_too_many_unread_snapshots_is_closed() -> None:
    limits = Limits(subscriptions_per_socket=10, tracked_per_owner=10)
    sim = Simulation(limits=limits)
    unread = sim.subscription()
    other = sim.subscription()
    for _ in range(100):
        sim.begin().client_disconnected()
        await sim.run()
        other.take()
        assert len(unread._slots) <= 40

    assert unread.is_closed
    assert not unread._slots
    assert not other.is_closed
    other.close()
    assert len(sim.internals.hub) == 0
