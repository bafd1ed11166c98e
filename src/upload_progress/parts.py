"""The parts of a tracker, and how they hang together."""

from typing import Protocol

from attrs import frozen

from upload_progress.backend import Backend
from upload_progress.background import Background
from upload_progress.complaints import Complaints
from upload_progress.flusher import Flusher
from upload_progress.hub import Hub
from upload_progress.limits import Limits
from upload_progress.ports import Clock, EventPublisher, SessionStore
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
    reader: Reader
    sessions: Sessions
    reception: Reception

    @classmethod
    def assemble(cls, settings: Settings) -> "Parts":
        """Put the parts together; nothing runs and nothing connects yet."""
        store, clock, hub = settings.store, settings.clock, settings.hub
        limits, path = settings.limits, settings.mount_path
        guard, complaints = Backend("the session store", clock), Complaints(clock)
        registry = Registry(limits)
        flusher = Flusher(
            hub=hub,
            clock=clock,
            store=store,
            store_guard=guard,
            publisher=settings.publisher,
            publisher_guard=Backend("the event publisher", clock),
            source=settings.source,
            on_saved=registry.remove,
            complaints=complaints,
        )
        ticker = Ticker(hub, flusher, clock, complaints)
        flusher.on_sent = ticker.watch
        keeper = Keeper(clock, store, guard, flusher, path, lambda: settings.worker, complaints)
        background = Background(hub, flusher, ticker, keeper, complaints)
        return cls(
            hub=hub,
            registry=registry,
            flusher=flusher,
            ticker=ticker,
            keeper=keeper,
            background=background,
            reader=Reader(registry, store, guard, clock, path),
            sessions=Sessions(store, guard, flusher, clock, limits, path),
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
            events_published=flusher.published,
            updates_delivered=self.hub.delivered,
            store_failures=flusher.store_guard.failures,
            publisher_failures=flusher.publisher_guard.failures,
            ends_dropped=flusher.dropped,
            swept=self.keeper.swept,
            untracked=self.reception.untracked,
        )
