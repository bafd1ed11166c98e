"""Fan-out: who gets what, in which order, and never more than one slot per upload."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import deadline
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import HEARTBEAT_SECONDS, Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.exceptions import QuotaExceeded
from upload_progress.interfaces import SystemClock

pytestmark = pytest.mark.anyio


def update(
    sequence: int, *, owner: str = "ann", upload_id: str = "up", group: str | None = None
) -> Update:
    record = TransferRecord(owner, upload_id, "t", 1, sequence, UploadState.RECEIVING)
    progress = fold([evolve(record, group=group)], now=0.0)
    assert progress is not None
    return Update(owner, progress)


def taken(subscription: Subscription) -> list[tuple[str, int]]:
    return [(each.progress.upload_id, each.progress.sequence) for each in subscription.take()]


@pytest.fixture
def hub() -> Hub:
    return Hub(TaskSpawner(LogLimiter(SystemClock())))


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=40))
def test_shuffled_and_repeated_news_never_go_back(steps: list[tuple[int, bool]]) -> None:
    """I7, B04: sequences rise, and the highest always comes."""
    hub = Hub(TaskSpawner(LogLimiter(SystemClock())))
    subscription = hub.subscribe(now=0)
    subscription.add_upload("ann", "up")
    seen = []
    for sequence, reads in steps:
        hub.deliver(update(sequence))
        seen += taken(subscription) if reads else []
    seen += taken(subscription)

    sequences = [sequence for _, sequence in seen]
    assert sequences == sorted(set(sequences))
    assert sequences[-1:] == [max(each for each, _ in steps)][: len(steps)] if steps else not seen


def test_only_what_is_followed_comes(hub: Hub) -> None:
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


def test_leaving(hub: Hub) -> None:
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


def test_who_follows_again_is_told_again(hub: Hub) -> None:
    """On subscribing the current snapshot comes first, also the second time."""
    subscription = hub.subscribe(now=0)
    for _ in range(2):
        subscription.add_upload("ann", "up")
        subscription.offer(update(5))
        assert taken(subscription) == [("up", 5)]
        subscription.remove_upload("ann", "up")


def test_capacity(hub: Hub) -> None:
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_upload("ann", "a")
    subscription.add_group("ann", "g")
    subscription.add_upload("ann", "a")

    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        subscription.add_upload("ann", "b")
    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        subscription.add_group("ann", "h")


def test_what_was_seen_is_remembered_for_a_bounded_number(hub: Hub) -> None:
    subscription = hub.subscribe(now=0, capacity=2)
    subscription.add_owner("ann")
    for number in range(50):
        hub.deliver(update(1, upload_id=f"u{number}"))
        subscription.take()

    assert len(subscription._delivered) == 4


def test_hearts_beat_in_portions(hub: Hub) -> None:
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


async def test_waiting_ends_with_news_a_beat_or_the_end(hub: Hub) -> None:
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


def test_what_came_before_the_end_is_still_read(hub: Hub) -> None:
    """W11: a server that stops tells the last it knows."""
    subscription = hub.subscribe(now=0)
    subscription.add_upload("ann", "up")
    hub.deliver(update(1))
    hub.close()
    hub.deliver(update(2))

    assert taken(subscription) == [("up", 1)]
