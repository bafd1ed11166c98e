"""``ProgressTracker``: what an application makes one of, and mounts."""

import builtins
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Self, Unpack

from attrs import define, field

from upload_progress.assembled import AssembledUpload
from upload_progress.backends import TrackerSettings, connect
from upload_progress.checks import check_mount_path, check_stall
from upload_progress.correspondence import Correspondence
from upload_progress.description import Described
from upload_progress.fold import sum_of
from upload_progress.hub import Hub, Watcher
from upload_progress.identity import Identity, as_identity
from upload_progress.limits import Limits
from upload_progress.live import LiveUpload
from upload_progress.memory import MemoryStore, Retention
from upload_progress.model import Metadata, UploadKey, UploadPage, UploadProgress, UploadState
from upload_progress.parts import Parts
from upload_progress.ports import Clock, EventFeed, EventPublisher, Post, SessionStore, SystemClock
from upload_progress.statistics import Statistics
from upload_progress.throttle import DEFAULT_POLICY, ThrottlePolicy
from upload_progress.transfers import Piece
from upload_progress.upload import Upload
from upload_progress.watch import Watch
from upload_progress.wire import Update
from upload_progress.worker import Worker

__all__ = ["ProgressTracker", "Statistics"]


@define(eq=False, repr=False, kw_only=True)
class ProgressTracker:
    """Knows how far every upload of this process is, and tells whoever may know.

    Args:
        store: Where sessions are kept; in memory by default.
        publisher: Where ``UploadProgressUpdated`` events go; nowhere by default.
        feed: Where events of other workers come from; the publisher, if it can.
        post: Carries commands between workers; the publisher, if it can.
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
    feed: EventFeed | None = None
    post: Post | None = None
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
        if self.feed is None and isinstance(publisher, EventFeed):
            self.feed = publisher
        if self.post is None and isinstance(publisher, Post):
            self.post = publisher
        self._parts = Parts.assemble(self)

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
        store, publisher = connect(url, events, retention)
        return cls(store=store, publisher=publisher, **settings)

    def __repr__(self) -> str:
        """Show how much there is, and no secrets of a store or publisher."""
        return f"<ProgressTracker {self.mount_path} {len(self._parts.registry)} live uploads>"

    @property
    def worker(self) -> str:
        """The name of this process; a fork gets one of its own."""
        return self._worker.name

    @property
    def correspondence(self) -> Correspondence:
        """How this worker asks others."""
        return self._parts.cluster.correspondence

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

    async def breathe(self) -> None:
        """Write what is due, where nothing runs that would; never raises."""
        await self._parts.background.breathe()

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
        return self._parts.reception.open(claimed_id=claimed_id, is_proxied=is_proxied, **said)

    def open_piece(
        self, piece: Piece, *, claimed_id: str | None, is_proxied: bool, **said: Unpack[Described]
    ) -> AssembledUpload:
        """Return the upload of which a request carries *piece*; ``admit`` may join it."""
        reception = self._parts.reception
        return reception.open_piece(piece, claimed_id=claimed_id, is_proxied=is_proxied, **said)

    def admit(self, upload: LiveUpload, identity: Identity) -> bool:
        """Track *upload* for *identity*, under a fresh id where its own cannot be had.

        Returns:
            Whether there was room; without, it is received untracked.
        """
        return self._parts.reception.admit(upload, identity)

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
        return self._parts.reception.track(as_identity(owner), upload_id, said)

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

    def watcher(self) -> Watcher:
        """Return a watcher that follows nothing yet, for a socket or stream; close it."""
        limits = self.limits
        return self.hub.watcher(
            now=self.clock.monotonic(),
            capacity=limits.subscriptions_per_socket,
            most_waiting=2 * (limits.subscriptions_per_socket + limits.tracked_per_owner),
        )

    async def wait(self, watcher: Watcher) -> builtins.list[Update]:
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
