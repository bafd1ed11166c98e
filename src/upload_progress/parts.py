"""The parts of a tracker, and how they hang together."""

from typing import Protocol

from attrs import frozen

from upload_progress.background import Background
from upload_progress.cluster import Cluster
from upload_progress.complaints import Complaints
from upload_progress.flusher import Flusher
from upload_progress.hub import Hub
from upload_progress.limits import Limits
from upload_progress.outbox import Outbox
from upload_progress.ports import Clock, EventFeed, EventPublisher, Post, SessionStore
from upload_progress.premises import Guards, Premises
from upload_progress.reading import Reader
from upload_progress.reception import Reception
from upload_progress.registry import Registry
from upload_progress.sessions import Sessions
from upload_progress.statistics import Statistics
from upload_progress.throttle import ThrottlePolicy
from upload_progress.ticker import Keeper, Ticker

__all__ = ["Parts", "Settings"]


class Settings(Protocol):
    """What a tracker was told, and the parts are built from."""

    store: SessionStore
    publisher: EventPublisher | None
    feed: EventFeed | None
    post: Post | None
    policy: ThrottlePolicy
    limits: Limits
    mount_path: str
    stall_after_seconds: float
    source: str
    clock: Clock
    hub: Hub

    @property
    def worker(self) -> str:
        """The name of this process."""


@frozen(eq=False, repr=False, kw_only=True)
class Parts:
    """What a ``ProgressTracker`` is made of."""

    hub: Hub
    registry: Registry
    flusher: Flusher
    ticker: Ticker
    keeper: Keeper
    background: Background
    cluster: Cluster
    reader: Reader
    sessions: Sessions
    reception: Reception

    @classmethod
    def assemble(cls, settings: Settings) -> "Parts":
        """Put the parts together; nothing runs and nothing connects yet."""
        store, clock, hub = settings.store, settings.clock, settings.hub
        limits, path = settings.limits, settings.mount_path
        guards, complaints = Guards(clock), Complaints(clock)
        guard = guards.of(store, "the session store")
        registry = Registry(limits)
        publishing = guards.of(settings.publisher, "the event publisher")
        flusher = Flusher(
            hub=hub,
            clock=clock,
            store=store,
            store_guard=guard,
            outbox=Outbox(settings.publisher, publishing, settings.source),
            on_saved=registry.remove,
            complaints=complaints,
        )
        ticker = Ticker(hub, flusher, clock, complaints)
        flusher.on_sent = ticker.watch
        keeper = Keeper(clock, store, guard, flusher, path, lambda: settings.worker, complaints)
        cluster = Cluster.assemble(settings, guards, hub, registry, complaints)
        keeper.on_lapse = cluster.recheck.everything
        premises = Premises(guards.resources)
        background = Background(hub, flusher, ticker, keeper, cluster, premises, complaints)
        return cls(
            hub=hub,
            registry=registry,
            flusher=flusher,
            ticker=ticker,
            keeper=keeper,
            background=background,
            cluster=cluster,
            reader=Reader(registry, store, guard, clock, path),
            sessions=Sessions(store, guard, flusher, registry, cluster.correspondence, settings),
            reception=Reception(
                registry, settings, due=flusher.add, watch=ticker.watch, breathe=background.breathe
            ),
        )

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        flusher = self.flusher
        return Statistics(
            live_uploads=len(self.registry),
            watchers=len(self.hub),
            store_writes=flusher.writes,
            records_written=flusher.records,
            events_published=flusher.outbox.published,
            updates_delivered=self.hub.delivered,
            store_failures=flusher.store_guard.failures,
            publisher_failures=flusher.outbox.guard.failures,
            events_heard=self.cluster.relay.heard,
            events_refused=self.cluster.relay.refused,
            letters_spoiled=self.cluster.correspondence.spoiled,
            ends_dropped=flusher.dropped,
            swept=self.keeper.swept,
            untracked=self.reception.untracked,
        )
