"""Follows the uploads of other workers for the subscriptions of this one.

The follower subscribes at the broker to each owner that has a subscription in this process, and to
no other. What arrives is delivered by the hub, as if it had been received here.

Events may be lost: before the subscription was confirmed, while the connection was lost, or because
it is dead without an error. So the store is read for all uploads that have subscriptions here and
are received elsewhere: after each ``EventsMissed``, after some seconds without an event of an
upload, and every second while there is no connection to the broker. Each time it is one batch.
That goes on until each subscription was shown the end. Where a group or everything is subscribed
to, the list is read again from time to time: all events of an upload may have been lost.
"""

from collections.abc import Collection, Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._cluster.reconciler import Reconciler
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.update import Topic, Update
from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import UploadKey
from upload_progress._model.state import is_final
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.auto_reset_event import AutoResetEvent
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter, first_cause
from upload_progress._runtime.yielding import yielding
from upload_progress._tracking.measurements import Distribution
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import (
    ALL_OWNERS,
    Clock,
    EventsMissed,
    EventStream,
    EventSubscriber,
    RecordPage,
)

__all__ = [
    "BATCH_SIZE",
    "LINGER_SECONDS",
    "LIST_SECONDS",
    "MAX_PAGES",
    "POLL_SECONDS",
    "QUIET_SECONDS",
    "RECENT_SECONDS",
    "RETRY_SECONDS",
    "Follower",
]

POLL_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 5.0
"""An upload without an event for this long is read from the store: the connection may be dead."""
LIST_SECONDS: Final = 30.0
"""How often the list of an owner is read for subscriptions to a group or to everything."""
LINGER_SECONDS: Final = 5.0
"""How long an owner stays subscribed at the broker after the last subscription here: long polls
come back."""
RETRY_SECONDS: Final = 1.0
RECENT_SECONDS: Final = 300.0
BATCH_SIZE: Final = 500
MAX_PAGES: Final = 10


@define(eq=False, repr=False)
class _OwnerState:
    """The subscription to one owner at the broker.

    Attributes:
        is_subscribed: Whether the broker has confirmed the subscription.
        is_stale: Whether events may have been missed since the store was read.
    """

    is_subscribed: bool = False
    is_stale: bool = True


@define(eq=False, repr=False, kw_only=True)
class Follower:
    """Follows uploads of other workers for the subscriptions of this one.

    Args:
        subscriber: Where the events of other workers come from; None only reads the store.
        subscriber_breaker: Its circuit breaker.
        loader: Reads the store.
        hub: Delivers to the subscriptions of this process.
        registry: The uploads that are received here, which are not read from the store.
        reconciler: Checks an upload that is received here and, by an event, has ended elsewhere.
        namespace: The namespace of this system.
        clock: The time.
        log_limiter: Logs what fails.
        is_single_worker: Whether no other process can write into the store: nothing to follow.

    Attributes:
        received: Events of other workers that arrived.
        rejected: Events of another system, or of an owner that is not subscribed, or that name
            another upload.
    """

    subscriber: EventSubscriber | None
    subscriber_breaker: CircuitBreaker
    loader: RecordLoader
    hub: Hub
    registry: Registry
    reconciler: Reconciler
    namespace: str
    clock: Clock
    log_limiter: LogLimiter
    is_single_worker: bool
    received: int = field(default=0, init=False)
    rejected: int = field(default=0, init=False)
    _owners: dict[str | None, _OwnerState] = field(factory=dict, init=False)
    _unused_since: dict[str | None, float] = field(factory=dict, init=False)
    _is_connected: bool = field(default=False, init=False)
    _read_at: dict[Topic, float] = field(factory=dict, init=False)
    _listed_at: dict[str | None, float] = field(factory=dict, init=False)
    _poll_now: AutoResetEvent = field(factory=AutoResetEvent, init=False)

    async def run(self) -> None:
        """Follow until cancelled."""
        if self.is_single_worker:
            return
        async with anyio.create_task_group() as tasks:
            if self.subscriber is not None:
                tasks.start_soon(self._stay_subscribed, self.subscriber)
            while True:
                await self.poll()
                with anyio.move_on_after(POLL_SECONDS):
                    await self._poll_now.wait()

    # The broker

    async def _stay_subscribed(self, subscriber: EventSubscriber) -> None:
        """Open a stream, and another one after an error."""
        while True:
            try:
                await self._use_stream(subscriber)
            except Exception as error:  # noqa: BLE001  # any error of a driver: try again
                self.subscriber_breaker.record_failure(first_cause(error))
            finally:
                self._owners.clear()
                self._is_connected = False
            await anyio.sleep(RETRY_SECONDS)

    async def _use_stream(self, subscriber: EventSubscriber) -> None:
        async with subscriber.events() as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(self._update_subscriptions, stream)
            async for item in stream:
                if isinstance(item, CloudEvent):
                    await self._handle(item)
                else:
                    self._is_connected = isinstance(item, EventsMissed)
                    self._mark_stale()
            tasks.cancel_scope.cancel()

    def _mark_stale(self) -> None:
        for state in self._owners.values():
            state.is_stale = True
        self._poll_now.set()

    async def _update_subscriptions(self, stream: EventStream) -> None:
        """Keep the owners at the broker equal to those with subscriptions in this process."""
        while True:
            await self._subscribe(stream, set(self.hub.owners()) - self._owners.keys())
            await self._unsubscribe(stream, self._expired_owners())
            with anyio.move_on_after(POLL_SECONDS):
                await self.hub.owners_changed()

    async def _subscribe(self, stream: EventStream, owners: Collection[str | None]) -> None:
        if owners:
            states = {owner: _OwnerState() for owner in owners}
            self._owners |= states
            await stream.subscribe(*owners)
            self.subscriber_breaker.record_success()
            self._is_connected = True
            for state in states.values():
                state.is_subscribed = True
            self._poll_now.set()

    async def _unsubscribe(self, stream: EventStream, owners: Collection[str | None]) -> None:
        if owners:
            await stream.unsubscribe(*owners)
            for owner in owners:
                del self._owners[owner]

    def _expired_owners(self) -> Collection[str | None]:
        """Return the owners without a subscription here for ``LINGER_SECONDS``."""
        now, known = self.clock.monotonic(), self._unused_since
        unused = self._owners.keys() - set(self.hub.owners())
        self._unused_since = {owner: known.get(owner, now) for owner in unused}
        since = self._unused_since.items()
        return [owner for owner, moment in since if now - moment >= LINGER_SECONDS]

    async def _handle(self, event: CloudEvent) -> None:
        progress = event.data
        if event.namespace != self.namespace:
            self.rejected += 1
            self.log_limiter.log_warning(
                "an event was rejected: it has another namespace; workers of one system need the "
                "same one, and systems that share a broker need different channels"
            )
            return
        if self._state_of(event.owner) is None or event.subject != progress.upload_id:
            self.rejected += 1
            self.log_limiter.log_warning(
                "an event was rejected: it belongs to another owner or upload"
            )
            return
        self.received += 1
        seconds = self.clock.time() - progress.updated_at.timestamp()
        self.registry.measurements.add(Distribution.LAG, max(0.0, seconds))
        live = self.registry.find(event.owner, progress.upload_id)
        if live is not None and live.attempt >= progress.attempt:
            if is_final(progress.state):
                await self.reconciler.check([live])
            if live.sequence >= progress.sequence:
                return
        self._deliver(Update(event.owner, progress))

    def _deliver(self, update: Update) -> None:
        self._read_at[update.topic] = self.clock.monotonic()
        self.hub.deliver(update)

    # The store

    async def poll(self) -> None:
        """Read from the store what may have been missed. Never raises."""
        try:
            await self._read_doubtful()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is logged, and the next poll may succeed
            self.log_limiter.log_warning("following the uploads of other workers failed", error)

    async def _read_doubtful(self) -> None:
        keys = self._doubtful()
        owners = self._unlisted()
        stale = [each for each in self._owners.values() if each.is_subscribed and each.is_stale]
        for state in stale:
            state.is_stale = False
        missed = set[str | None]()
        try:
            for start in range(0, len(keys), BATCH_SIZE):
                missed.update(await self._read(keys[start : start + BATCH_SIZE]))
            for owner in owners:
                missed.update(await self._read_all(owner))
        except BaseException:
            for state in stale:
                state.is_stale = True
            raise
        unread = [self._state_of(owner) for owner in missed]
        for state in stale:
            state.is_stale = state in unread

    def _state_of(self, owner: str | None) -> _OwnerState | None:
        """Return the subscription that brings the events of *owner*; None without one."""
        return self._owners.get(owner) or self._owners.get(ALL_OWNERS)

    def is_current(self, owner: str | None) -> bool:
        """Tell whether the events of *owner* arrive, and none has been missed."""
        state = self._state_of(owner)
        return (
            state is not None
            and state.is_subscribed
            and not state.is_stale
            and self._is_connected
            and not self.subscriber_breaker.is_failing
        )

    def _doubtful(self) -> Sequence[UploadKey]:
        """Return followed uploads of other workers whose newest snapshot may be unknown here."""
        now, named, waiting = self.clock.monotonic(), self.hub.topics(), self.hub.open_topics()
        self._read_at = {topic: self._read_at.get(topic, now) for topic in named | waiting}
        doubtful = []
        for topic in self._read_at:
            owner, upload_id = topic
            if self.registry.is_receiving(owner, upload_id):
                continue
            state = self._state_of(owner)
            is_stale = state is not None and state.is_subscribed and state.is_stale
            is_quiet = now - self._read_at[topic] >= QUIET_SECONDS
            is_uncertain = topic in named and not self.is_current(owner)
            is_late = topic in waiting and (is_quiet or is_uncertain)
            if is_late or (is_stale and topic in named):
                doubtful.append(UploadKey(owner, upload_id))
        return doubtful

    def _unlisted(self) -> Sequence[str | None]:
        """Return the owners, or ``ALL_OWNERS``, of whom uploads may be unknown here."""
        now, known = self.clock.monotonic(), self._listed_at
        self._listed_at = {owner: known.get(owner, now) for owner in self.hub.broad_owners()}
        return [
            owner
            for owner, listed_at in self._listed_at.items()
            if not self.is_current(owner) or now - listed_at >= LIST_SECONDS
        ]

    async def _read(self, keys: Sequence[UploadKey]) -> Collection[str]:
        """Read uploads; return the owners whose part of the store is away or outdated."""
        loaded = await self.loader.load_current(keys)
        now = self.clock.monotonic()
        read = [key for key in keys if key.owner not in loaded.errors]
        self._read_at.update(((key.owner, key.upload_id), now) for key in read)
        async for key, records in yielding(loaded.records.items()):
            self._deliver(Update(key.owner, self.loader.fold(records)))
        return loaded.errors.keys()

    async def _read_all(self, owner: str | None) -> Collection[str | None]:
        """Read all uploads of *owner*; return it if its part of the store does not answer."""
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            try:
                page = await self._page(owner, cursor)
            except StoreUnavailable:
                return {owner}
            for records in page.uploads:
                progress, name = self.loader.fold(records), records[0].owner
                if not self.registry.is_receiving(name, progress.upload_id):
                    self.hub.deliver(Update(name, progress))
            cursor = page.next
            if cursor is None:
                break
            await checkpoint()
        self._listed_at[owner] = self.clock.monotonic()
        return ()

    async def _page(self, owner: str | None, cursor: str | None) -> RecordPage:
        if owner is ALL_OWNERS:
            return await self.loader.open_page(cursor=cursor)
        return await self.loader.page(owner, ended_within_seconds=RECENT_SECONDS, cursor=cursor)
