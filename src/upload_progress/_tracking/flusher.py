"""What is due, and when it may go out.

A set, never a queue: however often one asks, an upload's newest state goes out once. None goes
out twice within an interval. A new one that nobody watches is held back for one: most uploads
are over by then, and are one report instead of several. What goes out anyway takes it along.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import inf
from typing import Final

import anyio
from attrs import define, field

from upload_progress._fanout.hub import Hub
from upload_progress._fanout.update import Update
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.yielding import yielding
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.multi_request_upload import MultiRequestUpload
from upload_progress._tracking.outbox import Outbox, Topic
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import Clock, SessionStore

__all__ = [
    "DueUploads",
    "FLUSH_SECONDS",
    "Flusher",
    "MAX_UNSAVED",
    "PORTION",
    "Topic",
]

FLUSH_SECONDS: Final = 0.1


@define(eq=False, repr=False)
class DueUploads:
    """The uploads that are to be reported.

    Threads of an application may add to it: hence lists, where they are gone through.
    """

    clock: Clock
    _uploads: dict[LiveUpload, None] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._uploads)

    def add(self, upload: LiveUpload, *, is_watched: bool) -> bool:
        """Take *upload*; return whether it may go out now."""
        now = self.clock.monotonic()
        if _is_new(upload) and not upload.not_before and not is_watched:
            upload.not_before = now + FLUSH_SECONDS
        self._uploads[upload] = None
        return upload.not_before <= now

    def early_seconds(self) -> float:
        """Return for how long none of them may go out."""
        now = self.clock.monotonic()
        moments = (0 if _is_over(each) else each.not_before for each in list(self._uploads))
        return max(0.0, min(moments, default=inf) - now)

    def take(self, *, ends: bool, everything: bool) -> list[LiveUpload]:
        """Hand out what may go out now; see ``Flusher.flush``."""
        now, uploads = self.clock.monotonic(), list(self._uploads)
        ready = [
            upload
            for upload in uploads
            if everything
            or upload.not_before <= now
            or _is_over(upload)
            or (ends and upload.is_ended)
        ]
        if ready:
            ready = list(dict.fromkeys([*ready, *filter(_is_new, uploads)]))
        for upload in ready:
            del self._uploads[upload]
        return ready


def _is_new(upload: LiveUpload) -> bool:
    return upload.sequence == 0


def _is_over(upload: LiveUpload) -> bool:
    """Tell whether nothing came before, and nothing will follow."""
    return _is_new(upload) and upload.is_ended


# FROM flusher: One flusher per process: what is due is written as one batch, published as one batch.
#
# The next pass begins when store and broker have answered, and not before the flush interval
# is over. So a slow store makes updates rarer, never memory larger, never an upload slower.
# Watchers in this process do not wait for either.
#

MAX_UNSAVED: Final = 10_000
PORTION: Final = 1000


def _tell_nobody(_upload: LiveUpload) -> None:
    """Stand in until the ticker is there."""


@define(eq=False, repr=False)
class Flusher:
    """Takes due uploads to the hub, the store and the publisher.

    Attributes:
        on_saved: Told of each ended upload once its end is stored.
        on_sent: Told of each upload whenever it was reported.
        writes: Batches that were stored.
        records: Records that were stored.
        dropped: Ends that could not be kept while the store was away for too long.
    """

    hub: Hub
    clock: Clock
    store: SessionStore
    store_breaker: CircuitBreaker
    outbox: Outbox
    on_saved: Callable[[LiveUpload], None]
    log_limiter: LogLimiter
    on_sent: Callable[[LiveUpload], None] = field(default=_tell_nobody, init=False)
    writes: int = field(default=0, init=False)
    records: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _due: DueUploads = field(init=False)
    _posts: dict[Topic, Update] = field(factory=dict, init=False)
    _assembled: dict[MultiRequestUpload, None] = field(factory=dict, init=False)
    _unsettled: dict[LiveUpload, int] = field(factory=dict, init=False)
    _unsaved: dict[LiveUpload, TransferRecord] = field(factory=dict, init=False)
    _ended: dict[LiveUpload, None] = field(factory=dict, init=False)
    _woken: anyio.Event | None = field(default=None, init=False)
    _thread: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing."""
        self._due = DueUploads(self.clock)

    def add(self, upload: LiveUpload) -> None:
        """Take *upload* into the next pass."""
        is_first = self.is_idle
        may_go = self._due.add(upload, is_watched=self.hub.is_watched(upload.owner))
        # For what is held back one waits when it is the first, and not again.
        if (is_first or may_go) and threading.get_ident() == self._thread:
            self.wake()

    def post(self, update: Update) -> None:
        """Deliver and publish *update*, which is stored already."""
        self._posts[update.topic] = update
        self.wake()

    def is_heard(self, owner: str | None) -> bool:
        """Tell whether anybody would hear of an upload of *owner*."""
        return self.outbox.publisher is not None or self.hub.is_watched(owner)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due, and nothing is left to be stored or published."""
        waiting = (self._due, self._posts, self._unsettled, self._unsaved, self.outbox.waiting)
        return not any(waiting)

    def wake(self) -> None:
        """Begin a pass, if something is due; only from the thread of the event loop."""
        if self._woken is not None and not self.is_idle:
            self._woken.set()

    async def run(self) -> None:
        """Make passes for ever."""
        self._thread = threading.get_ident()
        try:
            while True:
                await self._wait()
                with anyio.CancelScope(shield=True):
                    await self.flush()
                await anyio.sleep(FLUSH_SECONDS)
        finally:
            self._woken = None

    async def _wait(self) -> None:
        """Wait until there is anything that may go out."""
        while (seconds := self._early_seconds()) > 0:
            self._woken = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._woken.wait()

    def _early_seconds(self) -> float:
        """Return for how long there will be nothing to do, unless something comes."""
        if self._left > len(self._due) or self._posts:
            return 0
        return self._due.early_seconds()

    async def flush(self, *, ends: bool = False, everything: bool = False) -> None:
        """Make one pass; never raises.

        Args:
            ends: Over what may go now, and over all that has ended.
            everything: Over all that is due.
        """
        try:
            await self._pass(ends=ends, everything=everything)
        except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
            self.log_limiter.say("a pass of the flusher failed", error)

    async def finish(self) -> None:
        """Make passes over all there is, as long as anything gets done; never raises."""
        self.store_breaker.reset()
        self.outbox.breaker.reset()
        before = -1
        while (left := self._left) != before:
            before = left
            await self.flush(everything=True)

    @property
    def _left(self) -> int:
        uploads = len(self._due) + len(self._unsettled) + len(self._unsaved)
        return uploads + len(self.outbox.waiting)

    async def _pass(self, *, ends: bool, everything: bool) -> None:
        batch = self._due.take(ends=ends, everything=everything)
        await self._load_prior_state(dict.fromkeys([*self._unsettled, *batch]))
        updates, self._posts = self._posts, {}
        async for upload in yielding([*batch, *self._late(batch)]):
            try:
                self._commit(upload, updates)
            except Exception as error:  # noqa: BLE001  # one upload's trouble is not the others'
                self.log_limiter.say("making a report failed", error)
        for update in updates.values():
            self.hub.deliver(update)
        async with anyio.create_task_group() as both:
            both.start_soon(self._save)
            both.start_soon(self.outbox.send, updates)
        await self._tell_assembled()

    def _commit(self, upload: LiveUpload, updates: dict[Topic, Update]) -> None:
        """Make the next version of *upload*, to be told to *updates* and to be stored."""
        record = upload.commit()
        upload.not_before = self.clock.monotonic() + FLUSH_SECONDS
        if upload.is_ended:
            self._ended[upload] = None
        if upload.is_superseded:
            self._let_go(upload)
        elif upload.has_prior_state:
            self._unsaved[upload] = record
        else:
            self._unsettled[upload] = upload.sequence
        self.on_sent(upload)
        if isinstance(upload, MultiRequestUpload):
            self._assembled[upload] = None
        elif self.is_heard(upload.owner):
            update = Update(record.owner, upload.snapshot())
            updates[update.topic] = update

    async def _load_prior_state(self, uploads: Iterable[LiveUpload]) -> None:
        """Learn what the store knows of uploads whose id came from outside."""
        asked = {
            key: upload
            for upload in uploads
            if not (upload.has_prior_state or upload.is_superseded) and (key := upload.key)
        }
        if not asked or self.store_breaker.is_resting:
            return
        try:
            known = await self.store_breaker.call(lambda: self._records_of(asked))
        except StoreUnavailable:
            return
        for key, upload in asked.items():
            upload.load_prior_state(known.get(key, []))

    async def _tell_assembled(self) -> None:
        """Tell of uploads whose requests may come to several workers, as all of them know them.

        What this worker knows is stored by now, and what the others had stored is read after
        that, of all in one round trip: so snapshots with one sequence are the same.
        """
        assembled, self._assembled = self._assembled, {}
        keys = {key: upload for upload in assembled if (key := upload.key)}
        if not keys:
            return
        try:
            known = await self.store_breaker.call(lambda: self._records_of(keys))
        except StoreUnavailable:
            known = {}
        updates: dict[Topic, Update] = {}
        for key, upload in keys.items():
            was_over = upload.is_superseded or upload.is_over
            if key in known:
                upload.learn(known[key])
            if not was_over and self.is_heard(upload.owner):
                update = Update(key.owner, upload.snapshot())
                updates[update.topic] = update
                self.hub.deliver(update)
        await self.outbox.send(updates)

    async def _records_of(self, keys: Iterable[UploadKey]) -> dict[UploadKey, list[TransferRecord]]:
        known: dict[UploadKey, list[TransferRecord]] = {}
        for record in await self.store.load(*keys):
            known.setdefault(record.key, []).append(record)
        return known

    def _late(self, batch: Sequence[LiveUpload]) -> list[LiveUpload]:
        """Let go those that settled at last; return those to be told again, as they changed."""
        for upload in [upload for upload in self._unsettled if upload.is_superseded]:
            del self._unsettled[upload]
            self._let_go(upload)
        settled = [upload for upload in self._unsettled if upload.has_prior_state]
        told = {upload: self._unsettled.pop(upload) for upload in settled}
        for upload, sequence in told.items():
            if upload.sequence == sequence:
                self._unsaved[upload] = upload.record()
        return [
            upload
            for upload, sequence in told.items()
            if upload.sequence != sequence and upload not in batch
        ]

    async def _save(self) -> None:
        self._bound()
        if not self._unsaved or self.store_breaker.is_resting:
            return
        batch = dict(islice(self._unsaved.items(), PORTION))
        try:
            await self.store_breaker.call(lambda: self.store.save(list(batch.values())))
        except StoreUnavailable:
            return
        self.writes += 1
        self.records += len(batch)
        for upload, record in batch.items():
            if self._unsaved.get(upload) is record:
                del self._unsaved[upload]
                if is_final(record.state) or upload.is_resting:
                    self._let_go(upload)

    def _let_go(self, upload: LiveUpload) -> None:
        self._ended.pop(upload, None)
        self.on_saved(upload)

    def _bound(self) -> None:
        """Keep no more than a bounded number of ends for a store that stays away."""
        while len(self._ended) > MAX_UNSAVED:
            upload = next(iter(self._ended))
            self._unsettled.pop(upload, None)
            self._unsaved.pop(upload, None)
            self.dropped += 1
            self._let_go(upload)
