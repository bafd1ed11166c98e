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
from upload_progress._fanout.hub import HEARTBEAT_SECONDS, Hub, Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress.exceptions import QuotaExceeded

pytestmark = pytest.mark.anyio


def update(
    sequence: int, *, owner: str = "ann", upload_id: str = "up", group: str | None = None
) -> Update:
    record = TransferRecord(owner, upload_id, "t", 1, sequence, UploadState.RECEIVING)
    progress = fold([evolve(record, group=group)], now=0.0)
    assert progress is not None
    return Update(owner, progress)


def taken(watcher: Subscription) -> list[tuple[str, int]]:
    return [(each.progress.upload_id, each.progress.sequence) for each in watcher.take()]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=40))
def test_shuffled_and_repeated_news_never_go_back(steps: list[tuple[int, bool]]) -> None:
    """I7, B04: sequences rise, and the highest always comes."""
    hub = Hub()
    watcher = hub.watcher(now=0)
    watcher.follow("ann", "up")
    seen = []
    for sequence, reads in steps:
        hub.deliver(update(sequence))
        seen += taken(watcher) if reads else []
    seen += taken(watcher)

    sequences = [sequence for _, sequence in seen]
    assert sequences == sorted(set(sequences))
    assert sequences[-1:] == [max(each for each, _ in steps)][: len(steps)] if steps else not seen


def test_only_what_is_followed_comes(hub: Hub) -> None:
    by_id, by_group, by_owner = (hub.watcher(now=0) for _ in range(3))
    by_id.follow("ann", "up")
    by_group.follow_group("ann", "g")
    by_owner.follow_all("ann")
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
    assert hub.is_watched("ann")
    assert not hub.is_watched("bob")
    assert not hub.is_watched(None)


def test_leaving(hub: Hub) -> None:
    watcher = hub.watcher(now=0)
    for _ in range(2):
        watcher.follow("ann", "up")
    watcher.follow("ann", "other")
    watcher.follow_group("ann", "g")
    assert watcher.topics == 3
    hub.deliver(update(1))

    assert watcher.leave("ann", "up")
    assert not watcher.leave("ann", "up")
    assert taken(watcher) == []
    assert watcher.leave_group("ann", "g")
    assert not watcher.leave_group("ann", "g")
    assert hub.is_watched("ann")
    watcher.follow_all("bob")
    assert watcher.leave_all() == ["other"]
    assert not hub._by_owner


def test_who_follows_again_is_told_again(hub: Hub) -> None:
    """On subscribing the current snapshot comes first, also the second time."""
    watcher = hub.watcher(now=0)
    for _ in range(2):
        watcher.follow("ann", "up")
        watcher.offer(update(5))
        assert taken(watcher) == [("up", 5)]
        watcher.leave("ann", "up")


def test_capacity(hub: Hub) -> None:
    watcher = hub.watcher(now=0, capacity=2)
    watcher.follow("ann", "a")
    watcher.follow_group("ann", "g")
    watcher.follow("ann", "a")

    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        watcher.follow("ann", "b")
    with pytest.raises(QuotaExceeded, match="subscriptions_per_socket"):
        watcher.follow_group("ann", "h")


def test_what_was_seen_is_remembered_for_a_bounded_number(hub: Hub) -> None:
    watcher = hub.watcher(now=0, capacity=2)
    watcher.follow_all("ann")
    for number in range(50):
        hub.deliver(update(1, upload_id=f"u{number}"))
        watcher.take()

    assert len(watcher._seen) == 4


def test_hearts_beat_in_portions(hub: Hub) -> None:
    watchers = [hub.watcher(now=0) for _ in range(5)]
    watchers[4].close()

    assert not hub.beat(HEARTBEAT_SECONDS - 1, 2)
    assert hub.beat(HEARTBEAT_SECONDS + 1, 2)
    assert hub.beat(HEARTBEAT_SECONDS + 1, 2)
    assert not hub.beat(HEARTBEAT_SECONDS + 1, 2)
    assert all(watcher.is_ready and watcher.take() == [] for watcher in watchers[:4])
    assert not any(watcher.is_ready for watcher in watchers[:4])
    hub.beat(2 * HEARTBEAT_SECONDS + 2, 9)
    assert all(watcher.is_ready for watcher in watchers[:4])


async def test_waiting_ends_with_news_a_beat_or_the_end(hub: Hub) -> None:
    watcher = hub.watcher(now=0)
    watcher.follow("ann", "up")
    with deadline(), anyio.CancelScope() as scope:
        scope.cancel()
        await watcher.ready()
    wakes: list[Callable[[], None]] = [lambda: hub.deliver(update(1)), watcher.nudge, hub.close]
    for wake in wakes:
        with deadline():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watcher.ready)
                await checkpoint()
                wake()
        watcher.take()
    assert watcher.is_closed
    assert len(hub) == 0


def test_what_came_before_the_end_is_still_read(hub: Hub) -> None:
    """W11: a server that stops tells the last it knows."""
    watcher = hub.watcher(now=0)
    watcher.follow("ann", "up")
    hub.deliver(update(1))
    hub.close()
    hub.deliver(update(2))

    assert taken(watcher) == [("up", 1)]
