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
from upload_progress._tracking import outcomes
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


def test_late_update_of_a_forgotten_upload_does_not_follow_its_end(hub: Hub) -> None:
    """The newest 4 of 50 uploads are remembered; the events of some come twice, or late."""
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_owner("ann")
    for number in range(50):
        name, at = f"u{number}", number * 10.0
        hub.deliver(update(2, upload_id=name, state=S.COMPLETED, updated_at=at + 1))
        subscription.take()
    for number in range(50):
        hub.deliver(update(1, upload_id=f"u{number}", updated_at=number * 10.0))
    assert taken(subscription) == []

    hub.deliver(update(3, upload_id="new", updated_at=1000.0))
    hub.deliver(update(3, upload_id="u0", state=S.FAILED, updated_at=2.0))
    assert taken(subscription) == [("new", 3), ("u0", 3)]


@pytest.mark.parametrize("renew", ["remove_group", "remove_all"])
def test_late_update_does_not_follow_an_end_in_a_renewed_subscription(hub: Hub, renew: str) -> None:
    subscription = hub.subscribe(now=0)
    subscription.add_group("ann", "g")
    end = update(2, group="g", state=S.COMPLETED)
    hub.deliver(end)
    subscription.take()
    getattr(subscription, renew)(*(("ann", "g") if renew == "remove_group" else ()))
    subscription.add_group("ann", "g")
    hub.deliver(update(1, group="g"))
    assert taken(subscription) == []

    subscription.offer_current(end)
    assert taken(subscription) == [("up", 2)]
    subscription.offer_current(update(1, group="g"))
    assert taken(subscription) == []


def test_uploads_subscribed_to_by_id_are_not_forgotten(hub: Hub) -> None:
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_owner("ann")
    subscription.add_upload("ann", "up")
    subscription.add_upload("ann", "paused")
    hub.deliver(update(2, state=S.COMPLETED, updated_at=1.0))
    for number in range(20):
        hub.deliver(update(1, upload_id=f"u{number}", updated_at=100.0))
        subscription.take()
    hub.deliver(update(1, updated_at=0.0))
    hub.deliver(update(1, upload_id="paused", updated_at=2.0))

    assert taken(subscription) == [("paused", 1)]
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
        outcomes.finish(live, 200)
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
        outcomes.client_disconnected(sim.begin())
        await sim.run()
        other.take()
        assert len(unread._slots) <= 40

    assert unread.is_closed
    assert not unread._slots
    assert not other.is_closed
    other.close()
    assert len(sim.internals.hub) == 0
