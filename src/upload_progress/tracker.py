"""What a tracker has counted."""

import builtins
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self, Unpack

from attrs import define, field, frozen

from upload_progress._background import Background
from upload_progress._cluster.commands import UploadCommands
from upload_progress._cluster.follower import Follower
from upload_progress._cluster.reaper import Reaper
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._cluster.worker import Worker
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._fanout.watch import Watch
from upload_progress._model.fold import sum_of
from upload_progress._model.models import (
    Metadata,
    UploadKey,
    UploadPage,
    UploadProgress,
    UploadState,
)
from upload_progress._model.validation import Described
from upload_progress._resources import CircuitBreakers, ManagedResources
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.admission import Admission
from upload_progress._tracking.flusher import Flusher
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.multi_request_upload import MultiRequestUpload
from upload_progress._tracking.outbox import Outbox
from upload_progress._tracking.reader import Reader
from upload_progress._tracking.record_loader import RecordLoader
from upload_progress._tracking.registry import Registry
from upload_progress._tracking.ticker import Ticker
from upload_progress.backends import TrackerSettings, publisher_from_url, store_from_url
from upload_progress.backends.memory import MemoryStore
from upload_progress.config import Limits, Retention, check_mount_path, check_stall
from upload_progress.identity import Identity, as_identity
from upload_progress.interfaces import (
    Clock,
    EventPublisher,
    EventSubscriber,
    MessageTransport,
    SessionStore,
    SystemClock,
)
from upload_progress.protocols import TransferHead
from upload_progress.throttling import DEFAULT_POLICY, ThrottlePolicy
from upload_progress.upload import Upload

__all__ = [
    "Parts",
    "ProgressTracker",
    "Settings",
    "Statistics",
]


@frozen
class Statistics:
    """Figures of one tracker in this process, at one moment.

    Attributes:
        live_uploads: Being received now, or ended and not yet stored.
        watchers: Sockets, streams, long polls and ``watch()`` loops.
        store_writes: Batches stored; ``records_written`` counts what was in them.
        events_published: Handed to the publisher.
        updates_delivered: Snapshots put into watchers' slots.
        store_failures: Calls to the store that failed or took too long.
        publisher_failures: The same for the publisher.
        events_received: Events of other workers that arrived for subscriptions here.
        events_rejected: Events of owners that are not subscribed, or about another upload.
        messages_rejected: Messages of other workers that could not be decoded, or were too many.
        ends_dropped: Ends that the store never got because it was away for too long.
        swept: Uploads that expired or lost their worker, ended by this process.
        untracked: Uploads received without progress, because a limit was reached.
    """

    live_uploads: int
    watchers: int
    store_writes: int
    records_written: int
    events_published: int
    updates_delivered: int
    store_failures: int
    publisher_failures: int
    events_received: int
    events_rejected: int
    messages_rejected: int
    ends_dropped: int
    reaped: int
    untracked: int


# FROM parts: The parts of a tracker, and how they hang together.


class Settings(Protocol):
    """What a tracker was told, and the parts are built from."""

    store: SessionStore
    publisher: EventPublisher | None
    subscriber: EventSubscriber | None
    transport: MessageTransport | None
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
    reaper: Reaper
    background: Background
    follower: Follower
    reconciler: Reconciler
    rpc: RpcEndpoint
    reader: Reader
    sessions: UploadCommands
    admission: Admission

    @classmethod
    def assemble(cls, settings: Settings, worker: Worker) -> "Parts":
        """Put the parts together; nothing runs and nothing connects yet."""
        store, clock, hub = settings.store, settings.clock, settings.hub
        limits, path = settings.limits, settings.mount_path
        circuit_breakers, log_limiter = CircuitBreakers(clock), LogLimiter(clock)
        breaker = circuit_breakers.of(store, "the session store")
        registry = Registry(limits)
        flusher = Flusher(
            hub=hub,
            clock=clock,
            store=store,
            store_breaker=breaker,
            outbox=Outbox(
                settings.publisher,
                circuit_breakers.of(settings.publisher, "the event publisher"),
                settings.source,
            ),
            on_saved=registry.remove,
            log_limiter=log_limiter,
        )
        ticker = Ticker(hub, flusher, clock, log_limiter)
        flusher.on_sent = ticker.watch
        loader = RecordLoader(store, breaker, clock, path)
        # A store in memory without events of others belongs to this tracker alone.
        is_single_worker = settings.subscriber is None and isinstance(store, MemoryStore)
        reconciler = Reconciler(loader=loader, registry=registry, is_single_worker=is_single_worker)
        rpc = RpcEndpoint(
            transport=settings.transport,
            breaker=circuit_breakers.of(settings.transport, "the message transport"),
            worker=worker,
            log_limiter=log_limiter,
            on_missed=reconciler.check_all,
        )
        follower = Follower(
            subscriber=settings.subscriber,
            subscriber_breaker=circuit_breakers.of(settings.subscriber, "the event subscriber"),
            loader=loader,
            hub=hub,
            registry=registry,
            reconciler=reconciler,
            clock=clock,
            log_limiter=log_limiter,
            is_single_worker=is_single_worker,
        )
        reaper = Reaper(
            clock=clock,
            loader=loader,
            flusher=flusher,
            worker=worker,
            log_limiter=log_limiter,
            on_lease_lost=reconciler.check_all,
        )
        background = Background(
            hub=hub,
            flusher=flusher,
            ticker=ticker,
            reaper=reaper,
            follower=follower,
            reconciler=reconciler,
            rpc=rpc,
            resources=ManagedResources(circuit_breakers.resources),
            log_limiter=log_limiter,
        )
        return cls(
            hub=hub,
            registry=registry,
            flusher=flusher,
            ticker=ticker,
            reaper=reaper,
            background=background,
            follower=follower,
            reconciler=reconciler,
            rpc=rpc,
            reader=Reader(registry, store, breaker, clock, path),
            sessions=UploadCommands(
                loader=loader,
                flusher=flusher,
                registry=registry,
                rpc=rpc,
                worker=worker,
                limits=limits,
            ),
            admission=Admission(
                registry,
                settings,
                due=flusher.add,
                watch=ticker.watch,
                run_once=background.run_once,
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
            store_failures=flusher.store_breaker.failures,
            publisher_failures=flusher.outbox.breaker.failures,
            events_received=self.follower.received,
            events_rejected=self.follower.rejected,
            messages_rejected=self.rpc.rejected,
            ends_dropped=flusher.dropped,
            reaped=self.reaper.reaped,
            untracked=self.admission.untracked,
        )


# FROM tracker: ``ProgressTracker``: what an application makes one of, and mounts.


@define(eq=False, repr=False, kw_only=True)
class ProgressTracker:
    """Knows how far every upload of this process is, and tells whoever may know.

    Args:
        store: Where sessions are kept; in memory by default.
        publisher: Where ``UploadProgressUpdated`` events go; nowhere by default.
        subscriber: Where events of other workers come from; the publisher, if it can.
        transport: Carries commands between workers; the publisher, if it can.
        policy: When a report is due.
        limits: How much one owner, one socket and the process may hold.
        mount_path: Where ``progress_routes`` are mounted, as clients see it: links begin so.
        stall_after_seconds: After how long without a byte an upload is reported as stalled.
        source: The ``source`` of events, a URI reference (CloudEvents 1.0).
        clock: The time, replaceable for tests.

    Attributes:
        has_routes: Whether ``progress_routes`` were made for it: the mount path is then theirs.
    """

    store: SessionStore = field(factory=MemoryStore)
    publisher: EventPublisher | None = None
    subscriber: EventSubscriber | None = None
    transport: MessageTransport | None = None
    policy: ThrottlePolicy = DEFAULT_POLICY
    limits: Limits = field(factory=Limits)
    mount_path: str = field(default="/uploads", validator=check_mount_path)
    stall_after_seconds: float = field(default=30.0, validator=check_stall)
    source: str = "/upload-progress"
    clock: Clock = field(factory=SystemClock)
    hub: Hub = field(factory=Hub, init=False)
    has_routes: bool = field(default=False, init=False)
    _parts: Parts = field(init=False)
    _worker: Worker = field(factory=Worker, init=False)

    def __attrs_post_init__(self) -> None:
        """Put the parts together; nothing runs and nothing connects yet."""
        publisher: object = self.publisher
        if self.subscriber is None and isinstance(publisher, EventSubscriber):
            self.subscriber = publisher
        if self.transport is None and isinstance(publisher, MessageTransport):
            self.transport = publisher
        self._parts = Parts.assemble(self, self._worker)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        events: str | None = None,
        retention: Retention | None = None,
        **settings: Unpack[TrackerSettings],
    ) -> Self:
        """Return one over the store at *url*, such as ``redis://…`` or ``memory:``.

        Args:
            url: Where sessions are kept, for as long as ``retention`` says.
            events: Where events go, and come from; the same place by default.
            retention: See ``Retention``.
            settings: As above.

        Raises:
            InvalidValue: Nothing here is for such a URL.
            MissingExtra: Its driver is not installed.
        """
        store = store_from_url(url, retention=retention)
        publisher = publisher_from_url(url if events is None else events)
        return cls(store=store, publisher=publisher, **settings)

    def __repr__(self) -> str:
        """Show how much there is, and no secrets of a store or publisher."""
        return f"<ProgressTracker {self.mount_path} {len(self._parts.registry)} live uploads>"

    @property
    def worker(self) -> str:
        """The name of this process; a fork gets one of its own."""
        return self._worker.name

    @property
    def rpc(self) -> RpcEndpoint:
        """How this worker asks others."""
        return self._parts.rpc

    def lifespan(self, _app: object = None) -> AbstractAsyncContextManager[None]:
        """Run the background work; for ``Starlette(lifespan=tracker.lifespan)``.

        Raises:
            TrackerInUse: It runs already.
        """
        return self._parts.background.running()

    @property
    def is_running(self) -> bool:
        """Whether ``lifespan`` is entered."""
        return self._parts.background.is_running

    def spawn(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run *work* in the background; return False where ``lifespan`` is not entered."""
        return self._parts.background.spawn(work)

    async def run_once(self) -> None:
        """Write what is due, where nothing runs that would; never raises."""
        await self._parts.background.run_once()

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        return self._parts.statistics()

    def open(
        self, *, claimed_id: str | None = None, is_proxied: bool = False, **said: Unpack[Described]
    ) -> LiveUpload:
        """Return a live upload that is not tracked yet; ``admit`` tracks it.

        An id that is no upload id is replaced by a fresh one.

        Raises:
            InvalidValue: What is said of it cannot be kept.
        """
        return self._parts.admission.open(claimed_id=claimed_id, is_proxied=is_proxied, **said)

    def open_transfer(
        self,
        transfer_head: TransferHead,
        *,
        claimed_id: str | None,
        is_proxied: bool,
        **said: Unpack[Described],
    ) -> MultiRequestUpload:
        """Return the upload of which a request carries *piece*; ``admit`` may join it."""
        admission = self._parts.admission
        return admission.open_transfer(
            transfer_head, claimed_id=claimed_id, is_proxied=is_proxied, **said
        )

    def admit(self, upload: LiveUpload, identity: Identity) -> bool:
        """Track *upload* for *identity*, under a fresh id where its own cannot be had.

        Returns:
            Whether there was room; without, it is received untracked.
        """
        return self._parts.admission.admit(upload, identity)

    def track(
        self,
        *,
        owner: str | Identity,
        upload_id: str | None = None,
        total_bytes: int | None = None,
        filename: str | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
    ) -> AbstractAsyncContextManager[Upload]:
        """Track an upload that does not come through the middleware, while the block runs.

        It completes when the block ends, fails when it raises, and is cancelled when its
        task is. When its owner cancels it, the block is cancelled.

        Raises:
            InvalidValue: The id is no upload id, or what is said of it cannot be kept.
            QuotaExceeded: The owner has as many as may be tracked at once.
            UploadCancelled: The owner cancelled it.
        """
        said = Described(
            total_bytes=total_bytes,
            filename=filename,
            content_type=content_type,
            group=group,
            metadata=metadata,
        )
        return self._parts.admission.track(as_identity(owner), upload_id, said)

    async def announce(
        self,
        *,
        owner: str | Identity,
        filename: str | None = None,
        total_bytes: int | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
    ) -> UploadProgress:
        """Make a pending upload under a fresh id; a request may carry it within a day.

        Raises:
            InvalidValue: The size is negative, or the metadata too large.
            QuotaExceeded: The owner has announced as many as may wait at once.
            StoreUnavailable: The store does not answer.
        """
        return await self._parts.sessions.announce(
            as_identity(owner),
            filename=filename,
            total_bytes=total_bytes,
            content_type=content_type,
            group=group,
            metadata=metadata,
        )

    async def get(self, upload_id: str, *, owner: str | Identity) -> UploadProgress:
        """Return the snapshot of an upload; live and unthrottled where this process has it.

        Raises:
            UploadNotFound: There is no such upload of this owner.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        return await self._parts.reader.get(self.key(upload_id, owner))

    async def list(
        self,
        *,
        owner: str | Identity,
        states: Collection[UploadState] | None = None,
        group: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> UploadPage:
        """Return a page of the owner's uploads, newest first, and the sum over all pages.

        Args:
            owner: Whose.
            states: Only these; None for the open ones and those ended in the last minutes.
            group: Only this group.
            cursor: ``next`` of the page before.
            limit: How many to a page.

        Raises:
            InvalidValue: The cursor is none, or the limit is no number above 0.
            StoreUnavailable: The store does not answer.
        """
        identity = as_identity(owner)
        if not identity.listable:
            return UploadPage((), sum_of(()))
        return await self._parts.reader.list(
            identity.id, states=states, group=group, cursor=cursor, limit=limit
        )

    async def cancel(self, upload_id: str, *, owner: str | Identity) -> UploadProgress:
        """Cancel an upload: its running transfer is cut; cancelled twice is cancelled once.

        Raises:
            UploadNotFound: There is no such upload of this owner.
            UploadEnded: It has completed or failed already.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        return await self._parts.sessions.cancel(self.key(upload_id, owner))

    def watch(self, upload_id: str, *, owner: str | Identity) -> Watch:
        """Follow an upload: ``async for snapshot in tracker.watch(...)``, its end last."""
        key = self.key(upload_id, owner)
        return Watch(key, self.watcher, self._parts.reader.get, self.wait)

    def watcher(self) -> Subscription:
        """Return a watcher that follows nothing yet, for a socket or stream; close it."""
        limits = self.limits
        return self.hub.watcher(
            now=self.clock.monotonic(),
            capacity=limits.subscriptions_per_socket,
            most_waiting=2 * (limits.subscriptions_per_socket + limits.tracked_per_owner),
        )

    async def wait(self, watcher: Subscription) -> builtins.list[Update]:
        """Wait for news for *watcher*: the newest of each upload, or none at a heartbeat.

        A watcher that ``is_closed`` gets no more news.
        """
        return await self._parts.background.wait(watcher)

    def drain(self) -> None:
        """End all watchers, so that their streams and sockets close; for a graceful stop."""
        self.hub.close()

    def key(self, upload_id: str, owner: str | Identity) -> UploadKey:
        """Return the key of *upload_id* in the namespace of *owner*."""
        return UploadKey(as_identity(owner).owner_of(upload_id), upload_id)
