"""The parts of a tracker, and how they are created: each from those before it."""

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final
from weakref import WeakSet

import anyio
from attrs import define, field, fields, frozen

from upload_progress._background import Background
from upload_progress._cluster.commands import UploadCommands
from upload_progress._cluster.directory import WorkerDirectory
from upload_progress._cluster.follower import Follower
from upload_progress._cluster.hand_overs import HandOvers
from upload_progress._cluster.messages import MessageSeal
from upload_progress._cluster.reaper import Reaper
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._cluster.task_reports import TaskReports
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import DirectSender, Subscription, Transport
from upload_progress._fanout.update import Update
from upload_progress._model.models import UploadState
from upload_progress._model.state import OPEN_STATES
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.reader import Reader
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reading.store_parts import StoreParts
from upload_progress._reporting.end_outbox import EndOutbox
from upload_progress._reporting.flusher import Flusher
from upload_progress._reporting.lease import Lease
from upload_progress._reporting.outbox import Outbox
from upload_progress._reporting.statistics import Readiness, Statistics
from upload_progress._reporting.ticker import Ticker
from upload_progress._reporting.timers import UploadTimers
from upload_progress._resources import CircuitBreakers, ManagedResources
from upload_progress._runtime.circuit_breaker import LONGEST_OPEN_SECONDS, CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.server_workers import configured_workers
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress._runtime.worker import Worker
from upload_progress._tracking import outcomes
from upload_progress._tracking.admission import Admission
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.measurements import Measurements
from upload_progress._tracking.registry import Registry, ResourceIndex
from upload_progress._tracking.store_budget import StoreBudget
from upload_progress.backends.memory import MemoryStore
from upload_progress.config import TrackerConfig
from upload_progress.interfaces import (
    EventPublisher,
    EventSubscriber,
    KeepsEvents,
    MessageTransport,
    SessionStore,
)

__all__ = ["Backends", "HasInternals", "TrackerInternals", "assemble", "create", "internals_of"]


@frozen(eq=False, repr=False, kw_only=True)
class Backends:
    """The store and the brokers of a tracker."""

    store: SessionStore
    publisher: EventPublisher | None
    subscriber: EventSubscriber | None
    transport: MessageTransport | None
    edge: EventPublisher | None = None

    @property
    def keeps_events(self) -> bool:
        """Whether the broker may keep events for consumers that are not connected."""
        publisher: object = self.publisher
        return isinstance(publisher, KeepsEvents) and publisher.keeps_events

    @property
    def is_single_worker(self) -> bool:
        """Whether no other worker can write into the store: it is in the memory of this one."""
        return self.subscriber is None and isinstance(self.store, MemoryStore)


@define(eq=False, repr=False, kw_only=True)
class TrackerInternals:
    """The parts of a tracker; for the ASGI and Starlette layers, not for applications.

    Attributes:
        backends: The store and the brokers.
        has_routes: Whether ``progress_routes`` were created: then the mount path is theirs.
        has_middleware: Whether an ``UploadProgressMiddleware`` was created.
    """

    config: TrackerConfig
    backends: Backends
    worker: Worker
    log_limiter: LogLimiter
    tasks: TaskSpawner
    hub: Hub
    registry: Registry
    admission: Admission
    flusher: Flusher
    reader: Reader
    rpc: RpcEndpoint
    directory: WorkerDirectory
    follower: Follower
    reaper: Reaper
    commands: UploadCommands
    hand_overs: HandOvers
    task_reports: TaskReports
    background: Background
    has_routes: bool = field(default=False, init=False)
    has_middleware: bool = field(default=False, init=False)

    @property
    def is_in_memory(self) -> bool:
        """Whether the store is in the memory of this process."""
        return isinstance(self.backends.store, MemoryStore)

    def start_again(self) -> None:
        """Forget all uploads, subscriptions and tasks: this process was forked, they are another's.

        The parent process goes on with them. If this one did, too, both would write different
        versions of the same records.
        """
        previous, new = self.rpc, assemble(self.config, self.backends)
        new.measurements.observers.extend(self.measurements.observers)
        for attribute in fields(TrackerInternals):
            if attribute.init:
                setattr(self, attribute.name, getattr(new, attribute.name))
        # Those of the web routes, which were created with the tracker.
        for kind, handlers in previous.handlers.items():
            self.rpc.handlers.setdefault(kind, handlers)

    @property
    def measurements(self) -> Measurements:
        """What is measured of the uploads of this process."""
        return self.registry.measurements

    def circuit_breakers(self) -> dict[str, CircuitBreaker | StoreParts]:
        """Return the circuit breakers of each backend, one that has several roles once."""
        backends = self.backends
        roles = (
            ("store", backends.store, self.flusher.loader.parts),
            ("publisher", backends.publisher, self.flusher.outbox.breaker),
            ("subscriber", backends.subscriber, self.follower.subscriber_breaker),
            ("transport", backends.transport, self.rpc.breaker),
        )
        found = dict[int, tuple[str, CircuitBreaker | StoreParts]]()
        for role, backend, breaker in roles:
            if backend is not None:
                found.setdefault(id(backend), (role, breaker))
        if (edge := self.flusher.outbox.edge) is not None:
            found[id(edge)] = ("edge", edge.breaker)
        return dict(found.values())

    def readiness(self) -> Readiness:
        """Return whether this process should get requests; may be called from any thread."""
        live = self.registry.everything()
        uploads = [upload for upload in live if upload.transfers and not upload.is_ended]
        known = [seconds for each in uploads if (seconds := each.eta_seconds) is not None]
        return Readiness(
            is_ready=not self.commands.is_stopping,
            open_uploads=len(uploads),
            longest_eta_seconds=max(known, default=None),
        )

    def statistics(self) -> Statistics:
        """Return the current counters; may be called from any thread."""
        flusher, measurements = self.flusher, self.measurements
        # In this order: an upload that is removed meanwhile by another thread counts once.
        removed_bytes, live = measurements.removed_bytes, self.registry.everything()
        breakers = self.circuit_breakers()
        open_uploads = [upload for upload in live if not upload.is_ended]
        states = Counter(upload.state for upload in open_uploads)
        return Statistics(
            live_uploads=len(live),
            open_uploads={state: states[state] for state in UploadState if state in OPEN_STATES},
            open_bytes=sum(upload.received_bytes for upload in open_uploads),
            stalled_uploads=sum(upload.is_stalled for upload in open_uploads),
            received_bytes=measurements.count_received(removed_bytes, live),
            accepted_bytes=measurements.accepted_bytes,
            uploads_ended=MappingProxyType(measurements.ends.copy()),
            arrivals=MappingProxyType(measurements.arrivals.copy()),
            subscriptions=len(self.hub),
            subscriptions_by_transport={
                str(each): count for each, count in self.hub.by_transport().items()
            },
            store_writes=flusher.writes,
            records_written=flusher.records,
            store_interval_seconds=self.admission.budget.interval_seconds(
                self.config.clock.monotonic()
            ),
            events_published=flusher.outbox.published,
            events_dropped=flusher.outbox.dropped,
            end_events_dropped=flusher.outbox.dropped_ends,
            updates_delivered=self.hub.delivered,
            store_failures=flusher.loader.parts.failures,
            publisher_failures=flusher.outbox.breaker.failures,
            backend_failures={role: each.failures for role, each in breakers.items()},
            open_circuits={role: each.is_open for role, each in breakers.items()},
            events_received=self.follower.received,
            events_rejected=self.follower.rejected,
            messages_rejected=self.rpc.rejected,
            ends_dropped=flusher.dropped,
            reaped=self.reaper.reaped,
            untracked=self.admission.untracked,
        )

    @property
    def gets_uploads(self) -> bool:
        """Whether uploads can be known here: by middleware, ``track()``, or another worker."""
        is_used = self.has_middleware or self.flusher.records or len(self.registry)
        return bool(is_used) or not self.flusher.is_single_worker

    def subscribe(self, transport: Transport = Transport.ITERATOR) -> Subscription:
        """Open a subscription for a socket or stream, within the limits; close it after use."""
        limits = self.config.limits
        return self.hub.subscribe(
            now=self.config.clock.monotonic(),
            capacity=limits.subscriptions_per_socket,
            max_pending=2 * (limits.subscriptions_per_socket + limits.tracked_per_owner),
            transport=transport,
        )

    def check_workers(self) -> None:
        """Log a warning if the server runs several workers, and their uploads are not shared."""
        workers = configured_workers(sys.argv, os.environ) if self.is_in_memory else 1
        if workers > 1:
            self.log_limiter.log_warning(
                f"the server runs {workers} workers, and each keeps its uploads in its own memory: "
                "pass the URL of a common store, as ProgressTracker.from_url('redis://localhost')",
                effect="the progress of an upload is found only at the worker that receives it",
            )

    async def wait(
        self, subscription: Subscription, direct_sender: DirectSender | None = None
    ) -> list[Update]:
        """Wait for the updates of *subscription*; see ``Background.wait``."""
        return await self.background.wait(subscription, direct_sender)

    @asynccontextmanager
    async def receiving(
        self, live: LiveUpload, *, disconnect_errors: tuple[type[Exception], ...] = ()
    ) -> AsyncIterator[None]:
        """Receive *live* while the block runs, which completes, fails or cancels it.

        Args:
            live: The upload.
            disconnect_errors: Errors of the block that mean that the client has disconnected.
        """
        live.begin()
        self.background.work_while_receiving()
        try:
            yield
        except anyio.get_cancelled_exc_class():
            outcomes.app_cancelled(live)
            raise
        except BaseException as error:
            is_whole = live.received_bytes == live.meter.total_bytes
            if isinstance(error, disconnect_errors) and not is_whole:
                outcomes.client_disconnected(live)
            else:
                outcomes.app_raised(live)
            raise
        else:
            live.end_body()
            outcomes.finish(live, None)
        finally:
            live.opened_by.on_cancel = None
            await self.background.run_once()


@frozen(eq=False, repr=False, kw_only=True)
class _Core:
    """The parts that track the uploads of this process."""

    config: TrackerConfig
    worker: Worker
    log_limiter: LogLimiter
    tasks: TaskSpawner
    breakers: CircuitBreakers
    loader: RecordLoader
    lane: ClientLane
    flusher: Flusher
    lease: Lease

    @classmethod
    def create(cls, config: TrackerConfig, backends: Backends) -> "_Core":
        """Create the parts; nothing connects yet."""
        clock, log_limiter = config.clock, LogLimiter(config.clock)
        tasks = TaskSpawner(log_limiter)
        breakers = CircuitBreakers(clock, min(LONGEST_OPEN_SECONDS, config.lease_seconds / 3))
        parts = breakers.of_parts(backends.store, "the session store")
        loader = RecordLoader(parts, clock, config.mount_path)
        lease = _lease(config, backends, len(parts))
        worker = Worker()
        flusher = Flusher(
            hub=Hub(tasks),
            clock=clock,
            loader=loader,
            outbox=_outbox(
                config,
                backends,
                loader=loader,
                worker=worker,
                breakers=breakers,
                # Another worker may have published the ends of these uploads.
                is_held=lambda owner: lease.has_run_out(parts.part_of(owner)),
                log_limiter=log_limiter,
            ),
            registry=Registry(config.limits, Measurements(log_limiter)),
            timers=UploadTimers(clock),
            log_limiter=log_limiter,
            watched_seconds=config.watched_interval_seconds,
            is_single_worker=backends.is_single_worker,
        )
        return cls(
            config=config,
            worker=worker,
            log_limiter=log_limiter,
            tasks=tasks,
            breakers=breakers,
            loader=loader,
            lane=ClientLane(loader, tasks),
            flusher=flusher,
            lease=lease,
        )


def _outbox(
    config: TrackerConfig,
    backends: Backends,
    *,
    loader: RecordLoader,
    worker: Worker,
    breakers: CircuitBreakers,
    is_held: Callable[[str], bool],
    log_limiter: LogLimiter,
) -> Outbox:
    outbox = partial(
        Outbox,
        source=config.source,
        namespace=config.namespace,
        is_held=is_held,
        log_limiter=log_limiter,
    )
    edge = None
    if backends.edge is not None:
        edge = outbox(
            publisher=backends.edge,
            breaker=breakers.of(backends.edge, "the push server"),
            ends=EndOutbox(loader, worker, is_enabled=False),
        )
    return outbox(
        publisher=backends.publisher,
        breaker=breakers.of(backends.publisher, "the event publisher"),
        ends=EndOutbox(loader, worker, is_enabled=backends.keeps_events),
        edge=edge,
    )


def _lease(config: TrackerConfig, backends: Backends, parts: int) -> Lease:
    is_shared = not backends.is_single_worker
    return Lease(clock=config.clock, seconds=config.lease_seconds, is_shared=is_shared, parts=parts)


@frozen(eq=False, repr=False, kw_only=True)
class _Cluster:
    """The parts that deal with other workers."""

    reconciler: Reconciler
    rpc: RpcEndpoint
    reaper: Reaper
    follower: Follower

    @classmethod
    def create(cls, core: _Core, backends: Backends) -> "_Cluster":
        """Create the parts; nothing connects yet."""
        reconciler = Reconciler(
            flusher=core.flusher,
            worker=core.worker,
            is_single_worker=backends.is_single_worker,
        )
        rpc = RpcEndpoint(
            transport=backends.transport,
            breaker=core.breakers.of(backends.transport, "the message transport"),
            worker=core.worker,
            seal=MessageSeal(core.config.namespace, core.config.secret),
            log_limiter=core.log_limiter,
            on_missed=reconciler.check_all,
        )
        reaper = Reaper(
            clock=core.config.clock,
            loader=core.loader,
            flusher=core.flusher,
            lease=core.lease,
            worker=core.worker,
            log_limiter=core.log_limiter,
            on_doubt=reconciler.check_all,
        )
        follower = _follower(core, backends, reconciler)
        return cls(reconciler=reconciler, rpc=rpc, reaper=reaper, follower=follower)


def _follower(core: _Core, backends: Backends, reconciler: Reconciler) -> Follower:
    return Follower(
        subscriber=backends.subscriber,
        subscriber_breaker=core.breakers.of(backends.subscriber, "the event subscriber"),
        loader=core.loader,
        hub=core.flusher.hub,
        registry=core.flusher.registry,
        reconciler=reconciler,
        namespace=core.config.namespace,
        clock=core.config.clock,
        log_limiter=core.log_limiter,
        is_single_worker=backends.is_single_worker,
    )


def _background(core: _Core, cluster: _Cluster) -> Background:
    flusher = core.flusher
    return Background(
        hub=flusher.hub,
        flusher=flusher,
        ticker=Ticker(flusher.timers, flusher.hub, flusher, flusher.clock, core.log_limiter),
        reaper=cluster.reaper,
        follower=cluster.follower,
        reconciler=cluster.reconciler,
        rpc=cluster.rpc,
        resources=ManagedResources(core.breakers.resources),
        tasks=core.tasks,
        lag=core.breakers.lag,
    )


def _commands(core: _Core, cluster: _Cluster, resources: ResourceIndex) -> UploadCommands:
    return UploadCommands(
        resources=resources,
        loader=core.loader,
        lane=core.lane,
        flusher=core.flusher,
        registry=core.flusher.registry,
        rpc=cluster.rpc,
        worker=core.worker,
        limits=core.config.limits,
        tasks=core.tasks,
    )


_created: Final[WeakSet[TrackerInternals]] = WeakSet()
"""The parts of all trackers of this process."""


def create(config: TrackerConfig, backends: Backends) -> TrackerInternals:
    """Create the parts of a tracker, which start again in each process that is forked later."""
    internals = assemble(config, backends)
    _created.add(internals)
    return internals


def _start_again() -> None:
    for internals in list(_created):
        internals.start_again()


# Windows has no fork: there, this makes a dictionary that is not used.
getattr(os, "register_at_fork", dict)(after_in_child=_start_again)


def assemble(config: TrackerConfig, backends: Backends) -> TrackerInternals:
    """Create the parts of a tracker; nothing runs and nothing connects yet."""
    core = _Core.create(config, backends)
    cluster = _Cluster.create(core, backends)
    flusher, resources = core.flusher, ResourceIndex()
    commands = _commands(core, cluster, resources)
    admission = Admission(
        config=config,
        worker=core.worker,
        registry=flusher.registry,
        budget=StoreBudget(config.store_records_per_second),
        on_due=flusher.add,
        on_superseding=commands.supersede,
        resources=resources,
        on_resource=commands.share_resource,
    )
    return TrackerInternals(
        config=config,
        backends=backends,
        worker=core.worker,
        log_limiter=core.log_limiter,
        tasks=core.tasks,
        hub=flusher.hub,
        registry=flusher.registry,
        flusher=flusher,
        reader=Reader(flusher.registry, core.loader, core.lane),
        rpc=cluster.rpc,
        directory=WorkerDirectory(core.worker, cluster.rpc),
        follower=cluster.follower,
        reaper=cluster.reaper,
        commands=commands,
        hand_overs=HandOvers(
            loader=core.loader, admission=admission, reaper=cluster.reaper, worker=core.worker
        ),
        task_reports=TaskReports(
            loader=core.loader, lane=core.lane, flusher=flusher, lease_seconds=config.lease_seconds
        ),
        admission=admission,
        background=_background(core, cluster),
    )


@define(eq=False, repr=False)
class HasInternals:
    """The base of ``ProgressTracker``, which this module cannot import."""

    _internals: TrackerInternals = field(init=False)


def internals_of(tracker: HasInternals) -> TrackerInternals:
    """Return the parts of a tracker; for the ASGI and Starlette layers, not for applications."""
    return tracker._internals  # noqa: SLF001  # the one place that passes them on
