"""What other workers receive, for those who watch it here.

The owner is the channel: for each owner that has a watcher here, and for nobody else, there is
a line to the feed. What comes over it goes to the hub, as if it had been received here.

News may get lost: before the line was there, while it was broken, or because its end is dead
and does not know it. So the store is read again, for all that is watched and not received here:
whenever a line says that it may have missed something, whenever nothing was heard of an upload
for some seconds, and each second where there is no line. All of it in one batch a round.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._cluster.reconciler import Reconciler
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.update import Topic, Update
from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadKey, UploadProgress
from upload_progress._model.state import is_final
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.yielding import yielding
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import (
    Clock,
    EventsMissed,
    EventSubscriber,
    RecordPage,
    SessionStore,
)

__all__ = [
    "AGAIN_SECONDS",
    "LINGER_SECONDS",
    "MOST_PAGES",
    "POLL_SECONDS",
    "PORTION",
    "QUIET_SECONDS",
    "RECENT_SECONDS",
    "Follower",
]

POLL_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 5.0
"""After so long without news of an upload, its line may be dead."""
LINGER_SECONDS: Final = 5.0
"""How long a line outlives its last watcher: long-polls come again."""
AGAIN_SECONDS: Final = 1.0
RECENT_SECONDS: Final = 300.0
PORTION: Final = 500
MOST_PAGES: Final = 10


@define(eq=False, repr=False)
class _Line:
    """To the feed, for one owner.

    Attributes:
        is_up: Whether it was entered, and has not failed since.
        is_stale: Whether the store is to be read, since something may have been missed.
        watched_at: When somebody here was last seen watching that owner.
    """

    owner: str
    watched_at: float
    scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    is_up: bool = field(default=False, init=False)
    is_stale: bool = field(default=True, init=False)

    @property
    def is_sound(self) -> bool:
        """Whether what it says is all that there is."""
        return self.is_up and not self.is_stale


@define(eq=False, repr=False)
class Follower:
    """Follows uploads of other workers for the watchers of this one.

    Attributes:
        is_alone: Whether nobody else can write into the store: then there is nothing to follow.
        heard: Events that came over the lines.
        refused: Events that were none of the owner whose line they came over.
    """

    feed: EventSubscriber | None
    subscriber_breaker: CircuitBreaker
    store: SessionStore
    store_breaker: CircuitBreaker
    hub: Hub
    registry: Registry
    reconciler: Reconciler
    clock: Clock
    mount_path: str
    log_limiter: LogLimiter
    is_alone: bool
    heard: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    _lines: dict[str, _Line] = field(factory=dict, init=False)
    _asked_at: dict[Topic, float] = field(factory=dict, init=False)
    _ended: set[Topic] = field(factory=set, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _woken: anyio.Event = field(init=False)

    def join(self, owner: str) -> None:
        """Take up a line for *owner*, who has a watcher here."""
        if self._tasks is None or self.feed is None or owner in self._lines:
            return
        line = self._lines[owner] = _Line(owner, self.clock.monotonic())
        self._tasks.start_soon(self._follow, line, self.feed)

    async def run(self) -> None:
        """Follow for ever."""
        if self.is_alone:
            return
        self._woken = anyio.Event()
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._follow_owners)
                while True:
                    self._woken = anyio.Event()
                    await self.poll()
                    with anyio.move_on_after(POLL_SECONDS):
                        await self._woken.wait()
        finally:
            self._tasks = None
            self._lines.clear()

    # Lines

    async def _follow_owners(self) -> None:
        while True:
            for owner in self.hub.owners():
                self.join(owner)
            await self.hub.owners_changed()

    async def _follow(self, line: _Line, feed: EventSubscriber) -> None:
        with line.scope:
            while True:
                try:
                    await self._listen(line, feed)
                except Exception as error:  # noqa: BLE001  # whatever a driver raises means: not now
                    self.subscriber_breaker.record_failure(error)
                finally:
                    line.is_up = False
                await anyio.sleep(AGAIN_SECONDS)

    async def _listen(self, line: _Line, feed: EventSubscriber) -> None:
        async with feed.listen(line.owner) as news:
            line.is_up = True
            self.subscriber_breaker.record_success()
            self._distrust(line)
            async for event in news:
                if isinstance(event, EventsMissed):
                    self._distrust(line)
                else:
                    await self._hear(line.owner, event)

    def _distrust(self, line: _Line) -> None:
        line.is_stale = True
        self._woken.set()

    async def _hear(self, owner: str, event: CloudEvent) -> None:
        progress = event.data
        if (event.owner, event.subject) != (owner, progress.upload_id):
            self.refused += 1
            return self.log_limiter.warn("an event came that is not what its channel is for")
        self.heard += 1
        live = self.registry.find(owner, progress.upload_id)
        if live is not None and live.attempt >= progress.attempt:
            if live.sequence >= progress.sequence:
                return None
            if is_final(progress.state):
                await self.reconciler.these([live])
        return self._show(Update(owner, progress))

    def _show(self, update: Update) -> None:
        self._asked_at[update.topic] = self.clock.monotonic()
        if is_final(update.progress.state):
            self._ended.add(update.topic)
        else:
            self._ended.discard(update.topic)
        self.hub.deliver(update)

    # The store

    async def poll(self) -> None:
        """Read from the store what may have been missed; never raises."""
        try:
            self._hang_up()
            await self._read_doubtful()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
            self.log_limiter.warn("following other workers failed", error)

    async def _read_doubtful(self) -> None:
        keys = self._doubtful()
        owners = [owner for owner in self.hub.broad_owners() if not self._is_sound(owner)]
        stale = [line for line in self._lines.values() if line.is_up and line.is_stale]
        for line in stale:
            line.is_stale = False
        try:
            for start in range(0, len(keys), PORTION):
                await self._read(keys[start : start + PORTION])
            for owner in owners:
                await self._read_all(owner)
        except BaseException:
            for line in stale:
                line.is_stale = True
            raise

    def _hang_up(self) -> None:
        """Give up the lines of owners whom nobody has watched for a while."""
        now = self.clock.monotonic()
        for line in list(self._lines.values()):
            if self.hub.has_subscribers(line.owner):
                line.watched_at = now
            elif now - line.watched_at >= LINGER_SECONDS:
                del self._lines[line.owner]
                line.scope.cancel()

    def _is_sound(self, owner: str) -> bool:
        line = self._lines.get(owner)
        return line is not None and line.is_sound and not self.subscriber_breaker.is_failing

    def _doubtful(self) -> Sequence[UploadKey]:
        """Return what is watched, not received here, and may be further on than is known."""
        now, watched = self.clock.monotonic(), self.hub.topics()
        self._asked_at = {topic: self._asked_at.get(topic, now) for topic in watched}
        self._ended &= watched
        due = []
        for owner, upload_id in watched:
            if self.registry.is_receiving(owner, upload_id):
                continue
            line, topic = self._lines.get(owner), (owner, upload_id)
            is_quiet = now - self._asked_at[topic] >= QUIET_SECONDS
            is_late = topic not in self._ended and (is_quiet or not self._is_sound(owner))
            if is_late or (line is not None and line.is_up and line.is_stale):
                due.append(UploadKey(owner, upload_id))
        return due

    async def _read(self, keys: Sequence[UploadKey]) -> None:
        records = await self.store_breaker.call(lambda: self.store.load(*keys))
        now = self.clock.monotonic()
        self._asked_at.update(((key.owner, key.upload_id), now) for key in keys)
        async for progress, owner in yielding(self._folded(records)):
            self._show(Update(owner, progress))

    async def _read_all(self, owner: str) -> None:
        since = self.clock.time() - RECENT_SECONDS
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._page(owner, since, cursor)
            for progress, _owner in self._folded(
                [record for upload in page.uploads for record in upload]
            ):
                if not self.registry.is_receiving(owner, progress.upload_id):
                    self.hub.deliver(Update(owner, progress))
            cursor = page.next
            if cursor is None:
                return
            await checkpoint()

    async def _page(self, owner: str, since: float, cursor: str | None) -> RecordPage:
        return await self.store_breaker.call(
            lambda: self.store.list(owner, ended_since=since, cursor=cursor)
        )

    def _folded(self, records: Sequence[TransferRecord]) -> Iterator[tuple[UploadProgress, str]]:
        by_key = groupby(sorted(records, key=lambda record: record.key), lambda record: record.key)
        for key, group in by_key:
            progress = fold(group, now=self.clock.time(), mount_path=self.mount_path)
            assert progress is not None  # noqa: S101  # no group is empty
            yield progress, key.owner
