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


def test_watched_uploads_are_those_that_a_subscription_matches(hub: Hub) -> None:
    def watched() -> set[tuple[str | None, str, str | None]]:
        candidates = [
            (owner, upload_id, group)
            for owner in ("ann", "bob", None)
            for upload_id in ("up", "other")
            for group in (None, "g", "up")
        ]
        return {each for each in candidates if hub.is_watched(*each)}

    first, second = hub.subscribe(now=0), hub.subscribe(now=0)
    for subscription in (first, first, second):
        subscription.add_upload("ann", "up")
    by_id = {("ann", "up", group) for group in (None, "g", "up")}
    assert watched() == by_id
    first.remove_upload("ann", "up")
    first.remove_upload("ann", "up")
    assert watched() == by_id
    first.add_group("ann", "g")
    assert watched() == by_id | {("ann", "other", "g")}
    second.close()
    assert watched() == {("ann", "up", "g"), ("ann", "other", "g")}
    first.add_owner("bob")
    first.remove_group("ann", "g")
    assert watched() == {("bob", i, g) for i in ("up", "other") for g in (None, "g", "up")}
    first.close()
    assert watched() == set()
    assert not hub._index._watched


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
