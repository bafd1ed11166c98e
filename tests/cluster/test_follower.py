"""Following other workers: over events, which may be lost, and from the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, evolve, field

from tests._support.fake_connections import FakeSubscriber
from tests._support.simulation import ANN, deadline, until
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._cluster.follower import Follower
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord
from upload_progress._tracking.live_record import current_snapshot
from upload_progress.interfaces import ConnectionLost, EventsMissed
from upload_progress.testing import FakeClock, FaultyStore

pytestmark = pytest.mark.anyio

S = UploadState


@define(eq=False)
class World:
    """A worker that receives, and one that follows and gets only the events of the test."""

    memory: MemoryStore = field(factory=MemoryStore)
    subscriber: FakeSubscriber = field(factory=FakeSubscriber)
    store: FaultyStore = field(init=False)
    receiving: ProgressTracker = field(init=False)
    following: ProgressTracker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = FaultyStore(self.memory)
        self.receiving = ProgressTracker(store=self.memory)
        self.following = ProgressTracker(store=self.store, subscriber=self.subscriber)

    @property
    def follower(self) -> Follower:
        return internals_of(self.following).follower

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the follower while the block runs."""
        with deadline():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.follower.run)
                yield
                tasks.cancel_scope.cancel()

    async def subscribed(self) -> None:
        """Wait until Ann's events are subscribed to."""
        await until(lambda: self.subscriber.is_subscribed_to("ann"))

    async def announce(self) -> UploadProgress:
        """Announce an upload of Ann's at the other worker."""
        return await self.receiving.announce(owner="ann")

    def subscription(self, *upload_ids: str) -> Subscription:
        """Follow these uploads of Ann's, or all of hers."""
        subscription = internals_of(self.following).subscribe()
        for upload_id in upload_ids:
            subscription.add_upload("ann", upload_id)
        if not upload_ids:
            subscription.add_owner("ann")
        return subscription


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return two workers that retry at once."""
    monkeypatch.setattr("upload_progress._cluster.follower.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._cluster.follower.POLL_SECONDS", 0.02)
    return World()


async def updates(subscription: Subscription) -> list[UploadProgress]:
    """Return the next snapshots."""
    await subscription.wait()
    return [update.progress for update in subscription.take()]


async def test_failed_stream_and_subscription_are_retried(world: World) -> None:
    world.subscriber.open_errors = [OSError(), OSError()]
    world.subscriber.subscribe_errors = [OSError()]
    pending = await world.announce()
    subscription = world.subscription(pending.upload_id)

    async with world.running():
        await world.subscribed()
        world.subscriber.publish(evolve(pending, sequence=7))
        await until(lambda: world.follower.received)

    assert [update.progress.sequence for update in subscription.take()] == [7]
    assert world.following.statistics().events_received == 1
    assert world.follower.subscriber_breaker.failures == 3


async def test_stream_that_ends_is_replaced(world: World) -> None:
    world.subscription("up")
    async with world.running():
        await world.subscribed()
        first = world.subscriber.stream
        world.subscriber.close()
        await until(lambda: world.subscriber.stream not in {None, first})
        await world.subscribed()


async def test_store_is_read_after_missed_events(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.follower.POLL_SECONDS", 60.0)
    pending = await world.announce()
    subscription = world.subscription(pending.upload_id)
    async with world.running():
        assert [each.state for each in await updates(subscription)] == [S.PENDING]
        await until(lambda: world.follower.is_current("ann"))
        calls = world.store.calls
        await world.follower.poll()
        assert world.store.calls == calls
        await world.receiving.cancel(pending.upload_id, owner="ann")

        world.subscriber.put(EventsMissed())

        assert [each.state for each in await updates(subscription)] == [S.CANCELLED]


async def test_store_is_polled_while_the_connection_is_lost(world: World) -> None:
    pending = await world.announce()
    subscription = world.subscription(pending.upload_id)
    async with world.running():
        assert [each.state for each in await updates(subscription)] == [S.PENDING]
        await until(lambda: world.follower.is_current("ann"))
        world.subscriber.put(ConnectionLost())
        await until(lambda: not world.follower.is_current("ann"))
        calls = world.store.calls
        await until(lambda: world.store.calls >= calls + 3)
        await world.receiving.cancel(pending.upload_id, owner="ann")
        assert [each.state for each in await updates(subscription)] == [S.CANCELLED]

        world.subscriber.put(EventsMissed())
        await until(lambda: world.follower.is_current("ann"))


async def test_owner_of_a_new_subscription_is_subscribed_to_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.follower.POLL_SECONDS", 60.0)
    async with world.running():
        await until(lambda: world.subscriber.stream)
        assert not world.subscriber.is_subscribed_to("ann")
        world.subscription("up")
        await world.subscribed()


async def test_event_of_an_owner_that_is_not_subscribed_is_rejected(world: World) -> None:
    """B08: it is not delivered."""
    pending = await world.announce()
    subscription = world.subscription()
    async with world.running():
        await updates(subscription)
        await world.subscribed()
        world.subscriber.publish(evolve(pending, sequence=8), owner="bob")
        await until(lambda: world.follower.rejected)

    assert not subscription.take()
    assert world.following.statistics().events_rejected == 1


async def test_newer_snapshot_of_an_upload_that_is_received_here_wins(world: World) -> None:
    world.subscription("up")
    live = internals_of(world.following).admission.open(requested_id="up", total_bytes=100)
    assert internals_of(world.following).admission.admit(live, ANN)
    live.begin()
    own = current_snapshot(live)

    async with world.running():
        await world.subscribed()
        world.subscriber.publish(own)
        await until(lambda: world.follower.received == 1)
        # An end from elsewhere is verified in the store.
        world.subscriber.publish(evolve(own, sequence=own.sequence + 9))
        calls = world.store.calls
        world.subscriber.publish(evolve(own, sequence=own.sequence + 10, state=S.CANCELLED))
        await until(lambda: world.follower.received == 3 and world.store.calls > calls)

    assert current_snapshot(live).state is S.RECEIVING


@pytest.mark.parametrize("followed", ["one", "all"])
async def test_store_that_is_away_for_a_while_is_read_afterwards(
    world: World, followed: str
) -> None:
    world.subscriber.open_errors = [OSError()] * 1000
    world.store.fault = "raise"
    subscription = world.subscription(*(["up"] if followed == "one" else []))
    async with world.running():
        await until(lambda: world.follower.loader.parts.breaker.failures)
        async with world.receiving.track(owner="ann", upload_id="up"):
            pass
        world.store.fault = None
        assert [each.state for each in await updates(subscription)][-1] is S.COMPLETED


async def test_missed_events_are_remembered_while_the_store_is_away(world: World) -> None:
    world.subscription("up")
    world.store.fault = "raise"
    async with world.running():
        await until(lambda: world.follower.loader.parts.breaker.failures)
        await until(lambda: not world.follower.is_current("ann"))
        world.store.fault = None
        await until(lambda: world.follower.is_current("ann"))


async def test_store_that_returns_nonsense_does_not_end_the_follower(world: World) -> None:
    world.subscription("up")

    async def load(*_keys: object) -> list[TransferRecord]:
        return [object()]  # type: ignore[list-item]  # nonsense

    original = world.store.load
    world.store.load = load  # type: ignore[method-assign]  # for a while
    async with world.running():
        await until(lambda: internals_of(world.following).log_limiter.count)
        world.store.load = original  # type: ignore[method-assign]  # as it was
        await until(lambda: world.follower.is_current("ann"))


async def test_owner_without_subscriptions_is_unsubscribed_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = world.subscription("up")
    async with world.running():
        await world.subscribed()
        subscription.close()
        await until(lambda: "ann" in world.follower._unused_since)
        assert world.subscriber.is_subscribed_to("ann")
        again = world.subscription("up")
        await until(lambda: "ann" not in world.follower._unused_since)
        again.close()
        monkeypatch.setattr("upload_progress._cluster.follower.LINGER_SECONDS", 0.0)
        await until(lambda: not world.subscriber.is_subscribed_to("ann"))


@pytest.mark.parametrize("pages", [1, 10])
async def test_all_uploads_of_an_owner_are_read_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr("upload_progress._cluster.follower.MAX_PAGES", pages)
    for number in range(130):
        async with world.receiving.track(owner="ann", upload_id=f"up{number}"):
            pass
    subscription = world.subscription()
    live = internals_of(world.following).admission.open(requested_id="up129")
    assert internals_of(world.following).admission.admit(live, ANN)

    await world.follower.poll()

    seen = {update.progress.upload_id for update in subscription.take()}
    assert len(seen) == (99 if pages == 1 else 129)
    assert "up129" not in seen


async def test_single_worker_asks_neither_store_nor_broker() -> None:
    tracker = ProgressTracker(clock=FakeClock())
    with deadline():
        await internals_of(tracker).follower.run()
        await internals_of(tracker).background.reconciler.run(lambda: False)
        await internals_of(tracker).rpc.run()


async def test_end_that_follows_a_higher_sequence_is_shown(world: World) -> None:
    """Events were ahead of the store, and the worker that sent them has crashed."""
    pending = await world.announce()
    subscription = world.subscription(pending.upload_id)
    async with world.running():
        await updates(subscription)
        await world.subscribed()
        world.subscriber.publish(evolve(pending, sequence=5000, state=S.RECEIVING))
        assert [each.sequence for each in await updates(subscription)] == [5000]

        await world.receiving.cancel(pending.upload_id, owner="ann")
        world.subscriber.put(EventsMissed())

        assert [each.state for each in await updates(subscription)] == [S.CANCELLED]


async def test_upload_is_read_until_each_subscription_was_shown_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One subscription was shown the end, and a later one an older snapshot from the store."""
    monkeypatch.setattr("upload_progress._cluster.follower.QUIET_SECONDS", 0.05)
    pending = await world.announce()
    early = world.subscription(pending.upload_id)
    async with world.running():
        await world.subscribed()
        await world.receiving.cancel(pending.upload_id, owner="ann")
        end = await world.following.get(pending.upload_id, owner="ann")
        world.subscriber.publish(end)
        await until(lambda: early.open_topics() == [])

        late = world.subscription(pending.upload_id)
        late.offer(Update("ann", pending))
        assert [each.state for each in await updates(late)] == [S.PENDING]

        assert [each.state for each in await updates(late)] == [S.CANCELLED]


async def test_uploads_shown_to_a_subscription_to_everything_are_read_until_their_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event of the end was lost."""
    monkeypatch.setattr("upload_progress._cluster.follower.QUIET_SECONDS", 0.05)
    pending = await world.announce()
    subscription = world.subscription()
    async with world.running():
        assert [each.state for each in await updates(subscription)] == [S.PENDING]
        await until(lambda: world.follower.is_current("ann"))

        await world.receiving.cancel(pending.upload_id, owner="ann")

        assert [each.state for each in await updates(subscription)] == [S.CANCELLED]


async def test_list_is_read_from_time_to_time_for_a_subscription_to_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All events of an upload were lost."""
    monkeypatch.setattr("upload_progress._cluster.follower.LIST_SECONDS", 0.05)
    subscription = world.subscription()
    async with world.running():
        await until(lambda: world.follower.is_current("ann"))

        pending = await world.announce()

        assert [each.upload_id for each in await updates(subscription)] == [pending.upload_id]
