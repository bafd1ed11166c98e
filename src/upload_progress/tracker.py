"""``ProgressTracker``: the object that an application creates and mounts."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from math import inf
from types import TracebackType
from typing import Self, Unpack
from urllib.parse import quote

import anyio
from attrs import define

from upload_progress._cluster.drain import Drain
from upload_progress._fanout.watch import Watch
from upload_progress._internals import Backends, HasInternals, TrackerInternals, create
from upload_progress._model.fold import sum_of
from upload_progress._model.models import (
    Metadata,
    UploadKey,
    UploadPage,
    UploadProgress,
    UploadState,
    is_upload_id,
)
from upload_progress._model.state import CANCELLED
from upload_progress._model.validation import Description
from upload_progress._reporting.statistics import Readiness, Statistics
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.backends import publisher_from_url, store_from_url
from upload_progress.backends.memory import MemoryStore
from upload_progress.backends.namespaces import namespace_of, validate_namespace
from upload_progress.blocking import BlockingUpload, resume_blocking
from upload_progress.config import (
    Limits,
    Retention,
    TrackerConfig,
)
from upload_progress.exceptions import InvalidValue, QuotaExceeded, UploadCancelled
from upload_progress.identity import Identity, as_identity, listed_owner
from upload_progress.interfaces import (
    ALL_OWNERS,
    Clock,
    EventPublisher,
    EventSubscriber,
    MessageTransport,
    SessionStore,
    SystemClock,
)
from upload_progress.throttling import DEFAULT_POLICY, ThrottlePolicy
from upload_progress.upload import Upload

__all__ = ["ProgressTracker", "Statistics"]


class _Lifespan(AbstractAsyncContextManager[None]):
    """A lifespan that may also be called, as by ``Starlette(lifespan=tracker.lifespan())``.

    Args:
        running: The work of the tracker.
    """

    def __init__(self, running: AbstractAsyncContextManager[None]) -> None:
        self._running = running

    def __call__(self, _app: object) -> Self:
        """Return itself."""
        return self

    async def __aenter__(self) -> None:
        """Start the work."""
        await self._running.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """End the work."""
        return await self._running.__aexit__(kind, error, trace)


@define(eq=False, repr=False, init=False)
class ProgressTracker(HasInternals):
    """Tracks the uploads of this process, and shows their progress to their owners.

    >>> tracker = ProgressTracker(mount_path="/progress")
    >>> tracker.config.stall_after_seconds
    30.0

    Args:
        store: The session store; by default one in the memory of this process.
        publisher: Publishes ``UploadProgressUpdated`` events; by default none are published.
        subscriber: Receives the events of other workers; by default the publisher, if it can.
        transport: Carries messages between workers; by default the publisher, if it can.
        edge: A push server that gets the events, too, and sends them to watchers: see
            ``upload_progress.edge``. By default this process holds their connections.
        policy: When a snapshot is sent; by default at every 10 %, and at least every second.
        watched_interval_seconds: How often, at most, a watched upload is reported
            while bytes arrive, in addition to the policy.
        store_records_per_second: How many records per second this process writes to the store, at
            most, before it reports less often than the policy says. Starts, ends and changes of
            state are always written at once, and each upload at least every 30 s while its bytes
            arrive; watched uploads are written most often.
        limits: Bounds on what one owner, one socket and the process may hold.
        mount_path: Where ``progress_routes`` are mounted, as clients see it: links begin with it.
        stall_after_seconds: After how long without a byte an upload is reported as stalled.
        lease_seconds: After how long without a sign of life a worker counts as dead, and its
            uploads as ``worker_lost``; the same for all workers.
        source: The ``source`` of events, a URI reference (CloudEvents 1.0); by default a slash and
            the namespace.
        namespace: The system that this tracker belongs to. Events and commands of another
            namespace are rejected. By default that of the store (the prefix and the number of the
            database in Redis, the schema in PostgreSQL, the topic in Kafka), together with
            *source* if it is given.
        secret: At least 16 bytes, the same at all workers of the system: commands between workers
            are authenticated with it. By default they are not.
        clock: The clock; replaceable for tests.

    Attributes:
        config: The settings.

    Raises:
        InvalidValue: A setting is not valid.
    """

    config: TrackerConfig

    def __init__(
        self,
        *,
        store: SessionStore | None = None,
        publisher: EventPublisher | None = None,
        subscriber: EventSubscriber | None = None,
        transport: MessageTransport | None = None,
        edge: EventPublisher | None = None,
        policy: ThrottlePolicy = DEFAULT_POLICY,
        watched_interval_seconds: float = 0.25,
        store_records_per_second: float = 2000.0,
        limits: Limits | None = None,
        mount_path: str = "/uploads",
        stall_after_seconds: float = 30.0,
        lease_seconds: float = 15.0,
        source: str | None = None,
        namespace: str | None = None,
        secret: str | bytes = b"",
        clock: Clock | None = None,
    ) -> None:
        store = MemoryStore() if store is None else store
        system = _system_of(store, namespace, source)
        self.config = TrackerConfig(
            policy=policy,
            watched_interval_seconds=watched_interval_seconds,
            store_records_per_second=store_records_per_second,
            limits=limits or Limits(),
            mount_path=mount_path,
            stall_after_seconds=stall_after_seconds,
            lease_seconds=lease_seconds,
            source=f"/{quote(system)}" if source is None else source,
            namespace=system,
            secret=secret.encode() if isinstance(secret, str) else secret,
            clock=clock or SystemClock(),
        )
        backends = _backends(store, publisher, subscriber, transport, edge)
        self._internals = create(self.config, backends)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        events: str | None = None,
        edge: EventPublisher | None = None,
        retention: Retention | None = None,
        policy: ThrottlePolicy = DEFAULT_POLICY,
        watched_interval_seconds: float = 0.25,
        store_records_per_second: float = 2000.0,
        limits: Limits | None = None,
        mount_path: str = "/uploads",
        stall_after_seconds: float = 30.0,
        lease_seconds: float = 15.0,
        source: str | None = None,
        namespace: str | None = None,
        secret: str | bytes = b"",
        clock: Clock | None = None,
    ) -> Self:
        """Return a tracker whose store and broker are given by URL; nothing connects yet.

        >>> ProgressTracker.from_url("memory:")
        <ProgressTracker /uploads 0 live uploads>

        Args:
            url: The store: ``memory:``, ``redis://…``, ``postgresql://…`` or ``kafka://…``.
            events: The broker of events and of messages between workers, also ``amqp://…``; by
                default the same as *url*.
            edge: As above.
            retention: How long the store keeps sessions.
            policy: As above, like the other arguments.
            watched_interval_seconds: As above.
            store_records_per_second: As above.
            limits: As above.
            mount_path: As above.
            stall_after_seconds: As above.
            lease_seconds: As above.
            source: As above.
            namespace: The name of the system: 1 to 31 of ``a-z 0-9 -``, beginning with a letter.
                The names of all keys, channels, exchanges, queues and topics begin with it; in
                PostgreSQL it is the schema, with ``_`` for ``-``. Systems that share a server or
                broker need different ones. By default ``upload-progress``, and the number of the
                database if Redis has the store and it is not 0.
            secret: As above.
            clock: As above.

        Raises:
            InvalidValue: A URL or a setting is not valid.
            MissingExtra: The driver is not installed.
        """
        store = store_from_url(url, retention=retention, namespace=namespace)
        # A publisher on the server of the store separates databases by itself.
        named = namespace if namespace or events is None else namespace_of(store)
        return cls(
            store=store,
            publisher=publisher_from_url(url if events is None else events, namespace=named),
            edge=edge,
            policy=policy,
            watched_interval_seconds=watched_interval_seconds,
            store_records_per_second=store_records_per_second,
            limits=limits,
            mount_path=mount_path,
            stall_after_seconds=stall_after_seconds,
            lease_seconds=lease_seconds,
            source=source,
            namespace=namespace,
            secret=secret,
            clock=clock,
        )

    def __repr__(self) -> str:
        """Show the mount path and the number of uploads; no secrets of a store or publisher."""
        count = len(self._internals.registry)
        return f"<ProgressTracker {self.config.mount_path} {count} live uploads>"

    @property
    def worker(self) -> str:
        """The name of this process; a forked process has another one."""
        return self._internals.worker.name

    def lifespan(self, _app: object = None) -> AbstractAsyncContextManager[None]:
        """Run the background work; for ``Starlette(lifespan=tracker.lifespan)``.

        Raises:
            TrackerInUse: The tracker is running already.
        """
        self._internals.check_workers()
        return _Lifespan(self._internals.background.running())

    @property
    def is_running(self) -> bool:
        """Whether ``lifespan`` is entered."""
        return self._internals.tasks.is_running

    def readiness(self) -> Readiness:
        """Return whether this process should get new requests, and what it still has to do.

        >>> ProgressTracker().readiness()
        Readiness(is_ready=True, open_uploads=0, longest_eta_seconds=None)
        """
        return self._internals.readiness()

    def statistics(self) -> Statistics:
        """Return the current counters, in time proportional to the number of live uploads."""
        return self._internals.statistics()

    @asynccontextmanager
    async def track(
        self,
        *,
        owner: str | Identity,
        upload_id: str | None = None,
        total_bytes: int | None = None,
        filename: str | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
        disconnect_errors: tuple[type[Exception], ...] = (),
    ) -> AsyncIterator[Upload]:
        """Track an upload that does not come through the middleware, while the block runs.

        The upload is completed when the block ends, failed when it raises, and cancelled when its
        task is. When the owner cancels the upload, the block is cancelled.

        Args:
            owner: The owner, the only one who may watch the upload.
            upload_id: 1 to 128 of ``A-Z a-z 0-9 . _ ~ -``; by default a new random id.
            total_bytes: The size; None (the default) if it is unknown.
            filename: The file name.
            content_type: The media type.
            group: The group that the upload belongs to.
            metadata: A JSON object.
            disconnect_errors: Errors that the block raises when its client has disconnected, such
                as ``(ConnectionResetError,)`` in aiohttp. The upload then fails as
                ``client_disconnected`` instead of ``app_error``, unless no byte is missing.

        Raises:
            InvalidValue: The id or the description is not valid.
            QuotaExceeded: The owner has as many uploads as may be tracked at once.
            UploadCancelled: The owner cancelled the upload.
        """
        if upload_id is not None and not is_upload_id(upload_id):
            raise InvalidValue("track.upload_id", "must be 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        internals = self._internals
        live = internals.admission.open(
            requested_id=upload_id,
            where="track",
            total_bytes=total_bytes,
            filename=filename,
            content_type=content_type,
            group=group,
            metadata=metadata,
        )
        if not internals.admission.admit(live, as_identity(owner)):
            raise QuotaExceeded("tracked_per_owner", self.config.limits.tracked_per_owner)
        async with _run(internals, live, disconnect_errors=disconnect_errors) as upload:
            yield upload

    @asynccontextmanager
    async def resume(self, token: str) -> AsyncIterator[Upload]:
        """Go on with an upload that an endpoint has handed over, while the block runs.

        The upload is completed when the block ends, and failed when it raises. When the owner
        cancels it, the block is cancelled. If this process dies, the upload fails as
        ``worker_lost`` within ``lease_seconds`` and a little more. A task that its queue starts
        again resumes with the same token; that is the next attempt of the upload.

        Example:
            ::

                tracker = ProgressTracker()
                async with tracker.track(owner="alice") as upload:
                    token = await upload.hand_over()
                async with tracker.resume(token) as upload:
                    async with upload.stage("scanning", total=2) as stage:
                        stage.advance(2)

        Args:
            token: The result of ``Upload.hand_over()``. A task that begins before the endpoint has
                answered waits for the answer, up to 30 s.

        Raises:
            InvalidValue: It is no token.
            UploadNotFound: The upload has ended long ago, and was deleted.
            NotHandedOver: The endpoint does not answer, or a newer upload has the id.
            UploadCancelled: The owner cancelled the upload, before or while the block runs.
            UploadEnded: The upload has ended: it was completed by a task before, it was rejected,
                or the token has expired.
            StoreUnavailable: The store does not answer within 5 s.
        """
        internals = self._internals
        live = await internals.hand_overs.resume(token)
        try:
            async with _run(internals, live) as upload:
                yield upload
        finally:
            # Stored before a task queue learns that the task has ended.
            with anyio.CancelScope(shield=True):
                await internals.flusher.flush(ends=True)

    @contextmanager
    def resume_blocking(
        self, token: str, *, on_cancel: Callable[[], object] | None = None
    ) -> Iterator[BlockingUpload]:
        """Go on with an upload like ``resume``, in a task without ``async``.

        For Celery, RQ and threads. When the owner cancels the upload, the block goes on:
        *on_cancel* is called, ``upload.is_cancelled`` is true, and ``UploadCancelled`` is raised at
        the end of the block.

        Example:
            ::

                def process(path: str, token: str) -> None:
                    with tracker.resume_blocking(token) as upload:
                        with upload.stage("scanning", total=len(blocks)) as stage:
                            for block in blocks:
                                scan(block)
                                stage.advance()

        Args:
            token: As for ``resume``, which lists the errors, too.
            on_cancel: Called once, in a thread of its own, when the owner cancels the upload.
        """
        with resume_blocking(self._internals, token, on_cancel) as upload:
            yield upload

    async def announce(
        self, *, owner: str | Identity, **description: Unpack[Description]
    ) -> UploadProgress:
        """Create a pending upload with a new id; a request may carry it within a day.

        Args:
            owner: The owner.
            description: ``filename``, ``total_bytes``, ``content_type``, ``group``, ``metadata``,
                each optional.

        Raises:
            InvalidValue: The description is not valid.
            QuotaExceeded: The owner has as many pending uploads as allowed.
            StoreUnavailable: The store does not answer.
        """
        return await self._internals.commands.announce(as_identity(owner), **description)

    async def get(self, upload_id: str, *, owner: str | Identity) -> UploadProgress:
        """Return the snapshot of an upload; not throttled if this process receives it.

        Args:
            upload_id: The id.
            owner: The owner.

        Raises:
            UploadNotFound: The owner has no such upload.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        return await self._internals.reader.get(_key(upload_id, owner))

    async def list(
        self,
        *,
        owner: str | Identity | None,
        states: Collection[UploadState] | None = None,
        group: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> UploadPage:
        """Return a page of the owner's uploads, newest first, and the sum over all pages.

        Args:
            owner: The owner. ``ALL_OWNERS`` lists the open uploads of all owners, with their
                ``owner``, in the order of the store; the sum is that of the page.
            states: Only uploads in these states; by default open and recently ended ones.
            group: Only uploads of this group.
            cursor: ``next`` of the previous page.
            limit: How many uploads at most.

        Raises:
            InvalidValue: The cursor or the limit is not valid.
            StoreUnavailable: The store does not answer.
        """
        identity = None if owner is ALL_OWNERS else as_identity(owner)
        if identity is not None and not identity.listable:
            return UploadPage((), sum_of(()))
        return await self._internals.reader.list(
            ALL_OWNERS if identity is None else listed_owner(identity),
            states=states,
            group=group,
            cursor=cursor,
            limit=limit,
        )

    async def cancel(self, upload_id: str, *, owner: str | Identity) -> UploadProgress:
        """Cancel an upload and stop its running transfer; a second call changes nothing.

        Args:
            upload_id: The id.
            owner: The owner.

        Raises:
            UploadNotFound: The owner has no such upload.
            UploadEnded: The upload has completed or failed already.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        return await self._internals.commands.cancel(_key(upload_id, owner))

    def watch(self, upload_id: str, *, owner: str | Identity) -> Watch:
        """Watch an upload: ``async for snapshot in tracker.watch(...)``, its end last.

        Args:
            upload_id: The id.
            owner: The owner.
        """
        internals = self._internals
        key = _key(upload_id, owner)
        return Watch(key, internals.subscribe, internals.reader.get, internals.wait)

    def drain(self, *, let_finish: bool = False, seconds: float = inf) -> Drain:
        """Prepare the stop of this process: streams and sockets end, uploads can finish.

        Clients of streams and sockets connect again, to another worker. No upload is announced
        here any more: the response is 503 with ``Retry-After``. Uploads that are running, and that
        still begin, are received as before. Example::

            tracker.drain()  # when the server begins to stop

        Args:
            let_finish: Whether the result, when it is awaited, waits for the running uploads.
            seconds: How long it waits at most.

        Returns:
            To be awaited or not: whether no upload is running any more.
        """
        internals = self._internals
        internals.hub.close()
        internals.commands.is_stopping = True
        return Drain(internals.registry, internals.flusher, seconds if let_finish else 0.0)


@asynccontextmanager
async def _run(
    internals: TrackerInternals,
    live: LiveUpload,
    *,
    disconnect_errors: tuple[type[Exception], ...] = (),
) -> AsyncIterator[Upload]:
    """Run a block that receives or processes *live*, and cancel it if the owner cancels.

    Raises:
        UploadCancelled: The owner cancelled the upload.
    """
    with anyio.CancelScope() as scope:
        live.opened_by.on_cancel = scope.cancel
        async with internals.receiving(live, disconnect_errors=disconnect_errors):
            yield Upload(live)
    # Its last step may have no point at which the block could be cancelled.
    if scope.cancelled_caught or live.error == CANCELLED:
        raise UploadCancelled


def _key(upload_id: str, owner: str | Identity) -> UploadKey:
    return UploadKey(as_identity(owner).owner_of(upload_id), upload_id)


def _backends(
    store: SessionStore,
    publisher: EventPublisher | None,
    subscriber: EventSubscriber | None,
    transport: MessageTransport | None,
    edge: EventPublisher | None,
) -> Backends:
    """Let the publisher subscribe and carry messages as well, if it can and no other one does."""
    other: object = publisher
    return Backends(
        store=store,
        publisher=publisher,
        subscriber=subscriber or (other if isinstance(other, EventSubscriber) else None),
        transport=transport or (other if isinstance(other, MessageTransport) else None),
        edge=edge,
    )


def _system_of(store: SessionStore, namespace: str | None, source: str | None) -> str:
    """Return what the events and messages of a system are recognised by."""
    if namespace is not None:
        return validate_namespace(namespace)
    return namespace_of(store) if source is None else f"{namespace_of(store)}:{source}"
