"""The hub: which subscriptions receive an update, and their heartbeats."""

from __future__ import annotations

import pytest

from tests._support.updates import hub_without_tasks, taken, update
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import HEARTBEAT_SECONDS


@pytest.fixture
def hub() -> Hub:
    return hub_without_tasks()


def test_update_is_delivered_to_matching_subscriptions_only(hub: Hub) -> None:
    by_id, by_group, by_owner = (hub.subscribe(now=0) for _ in range(3))
    by_id.add_upload("ann", "up")
    by_group.add_group("ann", "g")
    by_owner.add_owner("ann")
    for each in (
        update(1),
        update(1, upload_id="other"),
        update(1, upload_id="grouped", group="g"),
        update(1, owner="bob", group="g"),
    ):
        hub.deliver(each)

    assert taken(by_id) == [("up", 1)]
    assert taken(by_group) == [("grouped", 1)]
    assert taken(by_owner) == [("up", 1), ("other", 1), ("grouped", 1)]
    assert hub.has_subscribers("ann")
    assert not hub.has_subscribers("bob")
    assert not hub.has_subscribers(None)


def test_heartbeats_are_due_in_portions(hub: Hub) -> None:
    subscriptions = [hub.subscribe(now=0) for _ in range(5)]
    subscriptions[4].close()

    assert not hub.wake_for_heartbeats(HEARTBEAT_SECONDS - 1, 2)
    assert hub.wake_for_heartbeats(HEARTBEAT_SECONDS + 1, 2)
    assert hub.wake_for_heartbeats(HEARTBEAT_SECONDS + 1, 2)
    assert not hub.wake_for_heartbeats(HEARTBEAT_SECONDS + 1, 2)
    assert all(
        subscription.is_ready and subscription.take() == [] for subscription in subscriptions[:4]
    )
    assert not any(subscription.is_ready for subscription in subscriptions[:4])
    hub.wake_for_heartbeats(2 * HEARTBEAT_SECONDS + 2, 9)
    assert all(subscription.is_ready for subscription in subscriptions[:4])
