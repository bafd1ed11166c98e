"""Following other workers: over a line that may break, and from the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, evolve, field

from tests._support.fake_connections import BrokerSubscriber
from tests._support.simulation import ANN, deadline
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._cluster.follower import Follower
from upload_progress._fanout.subscription import Subscription
from upload_progress._model.models import TransferRecord
from upload_progress.interfaces import EventsMissed
from upload_progress.testing import FakeClock, FaultyStore
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

S = UploadState


@define(eq=False)
class World:
    """A worker that receives, and one that watches and hears only what the test says."""

    memory: MemoryStore = field(factory=MemoryStore)
    feed: BrokerSubscriber = field(factory=BrokerSubscriber)
    store: FaultyStore = field(init=False)
    there: ProgressTracker = field(init=False)
    here: ProgressTracker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = FaultyStore(self.memory)
        self.there = ProgressTracker(store=self.memory)
        self.here = ProgressTracker(store=self.store, subscriber=self.feed)

    @property
    def follower(self) -> Follower:
        return internals_of(self.here).follower

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Let the relay run while the block does."""
        with deadline():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.follower.run)
                yield
                tasks.cancel_scope.cancel()

    def subscription(self, *upload_ids: str) -> Subscription:
        """Watch these uploads of Ann's at the other worker, or all of hers."""
        subscription = internals_of(self.here).subscribe()
        for upload_id in upload_ids:
            subscription.add_upload("ann", upload_id)
        if not upload_ids:
            subscription.add_owner("ann")
        return subscription


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return two workers; nobody waits long."""
    monkeypatch.setattr("upload_progress._cluster.follower.AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("upload_progress._cluster.follower.POLL_SECONDS", 0.02)
    return World()


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    is_so = False
    while not is_so:
        await anyio.sleep(0.002)
        is_so = bool(condition())


async def news(subscription: Subscription) -> list[UploadProgress]:
    """Return what comes next."""
    await subscription.wait()
    return [update.progress for update in subscription.take()]


async def announced(world: World) -> UploadProgress:
    return await world.there.announce(owner="ann")


async def test_a_line_that_cannot_be_had_is_tried_again(world: World) -> None:
    world.feed.troubles = [OSError(), OSError()]
    pending = await announced(world)
    subscription = world.subscription(pending.upload_id)

    async with world.following():
        await until(lambda: "ann" in world.feed.listening)
        world.feed.say(evolve(pending, sequence=7))
        await until(lambda: world.follower.heard)

    assert [update.progress.sequence for update in subscription.take()] == [7]
    assert world.here.statistics().events_received == 1
    assert world.follower.subscriber_breaker.failures == 2


async def test_a_line_that_ends_is_taken_up_again(world: World) -> None:
    world.subscription("up")
    async with world.following():
        await until(lambda: "ann" in world.feed.listening)
        first = world.feed.listening["ann"]
        first.close()
        await until(lambda: world.feed.listening.get("ann") not in {None, first})


async def test_after_a_break_the_store_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.follower.POLL_SECONDS", 60.0)
    pending = await announced(world)
    subscription = world.subscription(pending.upload_id)
    async with world.following():
        assert [each.state for each in await news(subscription)] == [S.PENDING]
        await until(lambda: world.follower._is_sound("ann"))
        asked = world.store.calls
        await world.follower.poll()
        assert world.store.calls == asked
        await world.there.cancel(pending.upload_id, owner="ann")

        world.feed.listening["ann"].send_nowait(EventsMissed())

        assert [each.state for each in await news(subscription)] == [S.CANCELLED]


async def test_what_is_not_the_owners_is_refused(world: World) -> None:
    """B08: a forged event reaches nobody."""
    pending = await announced(world)
    subscription = world.subscription()
    async with world.following():
        await news(subscription)
        await until(lambda: "ann" in world.feed.listening)
        world.feed.say(evolve(pending, sequence=8), owner="bob")
        await until(lambda: world.follower.refused)

    assert not subscription.take()
    assert world.here.statistics().events_rejected == 1


async def test_what_is_received_here_is_known_better_here(world: World) -> None:
    world.subscription("up")
    live = internals_of(world.here).admission.open(client_id="up", total_bytes=100)
    assert internals_of(world.here).admission.admit(live, ANN)
    live.begin()
    own = live.snapshot()

    async with world.following():
        await until(lambda: "ann" in world.feed.listening)
        world.feed.say(own)
        await until(lambda: world.follower.heard == 1)
        # What has ended elsewhere is looked up in the store before it is believed.
        world.feed.say(evolve(own, sequence=own.sequence + 9))
        asked = world.store.calls
        world.feed.say(evolve(own, sequence=own.sequence + 10, state=S.CANCELLED))
        await until(lambda: world.follower.heard == 3 and world.store.calls > asked)

    assert live.snapshot().state is S.RECEIVING


@pytest.mark.parametrize("watched", ["one", "all"])
async def test_the_store_may_be_away_for_a_while(world: World, watched: str) -> None:
    world.feed.troubles = [OSError()] * 1000
    world.store.fault = "raise"
    subscription = world.subscription(*(["up"] if watched == "one" else []))
    async with world.following():
        await until(lambda: world.follower.store_breaker.failures)
        async with world.there.track(owner="ann", upload_id="up"):
            pass
        world.store.fault = None
        assert [each.state for each in await news(subscription)][-1] is S.COMPLETED


async def test_a_break_while_the_store_is_away_is_remembered(world: World) -> None:
    world.subscription("up")
    world.store.fault = "raise"
    async with world.following():
        await until(lambda: world.follower.store_breaker.failures)
        await until(lambda: not world.follower._is_sound("ann"))
        world.store.fault = None
        await until(lambda: world.follower._is_sound("ann"))


async def test_a_store_that_answers_nonsense_ends_nothing(world: World) -> None:
    world.subscription("up")

    async def load(*_keys: object) -> list[TransferRecord]:
        return [object()]  # type: ignore[list-item]  # nonsense is what it is about

    monkey = world.store.load
    world.store.load = load  # type: ignore[method-assign]  # for a while
    async with world.following():
        await until(lambda: internals_of(world.here).log_limiter.count)
        world.store.load = monkey  # type: ignore[method-assign]  # as it was
        await until(lambda: world.follower._is_sound("ann"))


async def test_the_line_of_who_is_watched_no_more_is_given_up_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = world.subscription("up")
    async with world.following():
        await until(lambda: "ann" in world.feed.listening)
        subscription.close()
        await world.follower.poll()
        assert "ann" in world.feed.listening
        monkeypatch.setattr("upload_progress._cluster.follower.LINGER_SECONDS", 0.0)
        await until(lambda: not world.feed.listening)


@pytest.mark.parametrize("pages", [1, 10])
async def test_all_of_an_owners_uploads_are_read_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr("upload_progress._cluster.follower.MOST_PAGES", pages)
    for number in range(130):
        async with world.there.track(owner="ann", upload_id=f"up{number}"):
            pass
    subscription = world.subscription()
    live = internals_of(world.here).admission.open(client_id="up129")
    assert internals_of(world.here).admission.admit(live, ANN)

    await world.follower.poll()

    seen = {update.progress.upload_id for update in subscription.take()}
    assert len(seen) == (99 if pages == 1 else 129)
    assert "up129" not in seen


async def test_a_worker_that_nobody_else_writes_for_asks_nobody() -> None:
    tracker = ProgressTracker(clock=FakeClock())
    with deadline():
        await internals_of(tracker).follower.run()
        await internals_of(tracker).background.reconciler.run()
        await internals_of(tracker).rpc.run()
