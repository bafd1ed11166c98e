"""The calls of the store that clients cause: few at once, owners in turn, the rest is refused.

The flusher, the lease of this worker and the other background tasks call the store directly. What
requests cause passes through here, so that any number of them leaves connections of the store to
those tasks. Requests for single uploads that wait at the same time are read together in one round
trip, and requests for the same upload share its records. A caller never gets the result of a read
that began before the call.

An owner who waits for much does not delay others: waiting owners are served in turn. Who waits too
long, or finds the lane full, gets ``StoreBusy``. That is no failure of the store.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar
from attrs import define, field

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.exceptions import StoreBusy, StoreUnavailable

__all__ = [
    "BATCH_SIZE",
    "BATCH_SIZE_PER_OWNER",
    "MAX_BATCHES",
    "MAX_CALLS",
    "MAX_WAITING",
    "MAX_WAITING_PER_OWNER",
    "MAX_WAIT_SECONDS",
    "ClientLane",
    "FairQueue",
]

T = TypeVar("T")
H = TypeVar("H")

BATCH_SIZE: Final = 64
"""Uploads in one read."""
BATCH_SIZE_PER_OWNER: Final = 4
"""Uploads of one owner in one read. Their responses are sent in one go, while others wait."""
MAX_BATCHES: Final = 2
MAX_CALLS: Final = 2
MAX_WAITING: Final = 10_000
MAX_WAITING_PER_OWNER: Final = 2000
MAX_WAIT_SECONDS: Final = 3.0


@define(eq=False, repr=False)
class FairQueue(Generic[H]):
    """A bounded queue of the items of many owners, which takes one of each owner in turn.

    >>> queue = FairQueue()
    >>> for owner, item in [("ann", 1), ("ann", 2), ("bob", 3)]:
    ...     queue.put(owner, item)
    >>> [queue.take(), queue.take(), queue.take(), queue.take()]
    [1, 3, 2, None]
    """

    _items: dict[str, dict[H, None]] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return the number of items."""
        return self._size

    def put(self, owner: str, item: H) -> None:
        """Add an item at the end of the queue of *owner*.

        Raises:
            StoreBusy: There are too many items, of *owner* or in total.
        """
        own = self._items.get(owner, {})
        if self._size >= MAX_WAITING or len(own) >= MAX_WAITING_PER_OWNER:
            raise StoreBusy
        own[item] = None
        self._items[owner] = own
        self._size += 1

    def take(self) -> H | None:
        """Remove and return the first item of the owner whose turn it is; None without items."""
        if not self._items:
            return None
        owner = next(iter(self._items))
        own = self._items.pop(owner)
        item = next(iter(own))
        del own[item]
        if own:
            self._items[owner] = own
        self._size -= 1
        return item

    def take_several(self, limit: int, *, per_owner: int) -> list[H]:
        """Remove and return up to *limit* items, of which up to *per_owner* of each owner."""
        items: list[H] = []
        taken: Counter[str] = Counter()
        while len(items) < limit and (item := self._next_of(taken, per_owner)) is not None:
            items.append(item)
        return items

    def _next_of(self, taken: Counter[str], per_owner: int) -> H | None:
        owner = next(iter(self._items), "")
        if taken[owner] >= per_owner:
            return None  # as all others have had their turns
        taken[owner] += 1
        return self.take()

    def discard(self, owner: str, item: H) -> None:
        """Remove an item, if it is in the queue."""
        own = self._items.get(owner, {})
        if item in own:
            del own[item]
            self._size -= 1
        if not own:
            self._items.pop(owner, None)


@define(eq=False)
class _KeyRead:
    """The read of one upload.

    Attributes:
        key: The upload.
        callers: How many wait for it.
        records: The result.
        error: The error, unless there is a result.
        has_ended: Whether it has succeeded or failed; it also fails if the tracker stops.
    """

    key: UploadKey
    callers: int = 0
    records: list[TransferRecord] = field(factory=list)
    error: StoreUnavailable | None = field(factory=StoreUnavailable)
    has_ended: anyio.Event = field(factory=anyio.Event)


@define(eq=False, repr=False)
class ClientLane:
    """Reads uploads for clients, and makes other calls of the store for them.

    The limits hold in each event loop: callers in different ones share nothing.

    Args:
        loader: Reads the store.
        tasks: Starts the reads: they go on for the others if one caller is cancelled.
    """

    loader: RecordLoader
    tasks: TaskSpawner
    _lanes: RunVar["_LoopLane"] = field(factory=lambda: RunVar("client_lane"), init=False)

    @property
    def _lane(self) -> "_LoopLane":
        lane = self._lanes.get(None)
        if lane is None:
            lane = _LoopLane(self.loader, self.tasks)
            self._lanes.set(lane)
        return lane

    def __len__(self) -> int:
        """Return how many reads and calls wait."""
        return len(self._lane)

    async def load(self, key: UploadKey) -> list[TransferRecord]:
        """Return the records of an upload, from a read that begins after this call.

        Raises:
            StoreBusy: Too many reads wait, or this one waited too long.
            StoreUnavailable: The store does not answer.
        """
        return await self._lane.load(key)

    async def call(
        self,
        owner: str,
        function: Callable[[], Awaitable[T]],
        *,
        wait_seconds: float | None = None,
    ) -> T:
        """Return the result of *function*, which calls the store once.

        Args:
            owner: Who the call is for.
            function: Makes the call.
            wait_seconds: How long it may wait for its turn; by default ``MAX_WAIT_SECONDS``.

        Raises:
            StoreBusy: Too many calls wait, or this one waited too long.
        """
        return await self._lane.call(owner, function, wait_seconds or MAX_WAIT_SECONDS)


@define(eq=False, repr=False)
class _LoopLane:
    """The lane of one event loop.

    Args:
        loader: Reads the store.
        tasks: Starts the reads: they go on for the others if one caller is cancelled.
    """

    loader: RecordLoader
    tasks: TaskSpawner
    _waiting: dict[UploadKey, _KeyRead] = field(factory=dict, init=False)
    _reads: FairQueue[_KeyRead] = field(factory=FairQueue, init=False)
    _batches: int = field(default=0, init=False)
    _turns: FairQueue[anyio.Event] = field(factory=FairQueue, init=False)
    _calls: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._reads) + len(self._turns)

    async def load(self, key: UploadKey) -> list[TransferRecord]:
        read = self._waiting.get(key) or self._add(key)
        read.callers += 1
        try:
            with anyio.move_on_after(MAX_WAIT_SECONDS):
                await read.has_ended.wait()
        finally:
            read.callers -= 1
            if not read.callers and self._waiting.get(key) is read:
                del self._waiting[key]
                self._reads.discard(key.owner, read)
        if not read.has_ended.is_set():
            raise StoreBusy
        if read.error is not None:
            raise type(read.error)
        return read.records

    def _add(self, key: UploadKey) -> _KeyRead:
        read = _KeyRead(key)
        self._reads.put(key.owner, read)
        self._waiting[key] = read
        if self._batches < MAX_BATCHES:
            self._batches += 1
            # In a task of its own, which starts when all callers of this turn of the event loop
            # have been added.
            self.tasks.start(self._load_batches)
        return read

    async def _load_batches(self) -> None:
        try:
            while self._reads:
                await self._load_batch()
        finally:
            self._batches -= 1

    async def _load_batch(self) -> None:
        reads = self._reads.take_several(BATCH_SIZE, per_owner=BATCH_SIZE_PER_OWNER)
        batch = {read.key: self._waiting.pop(read.key) for read in reads}
        try:
            known = await self.loader.load(batch)
            for key, read in batch.items():
                read.records, read.error = known.get(key, []), None
        except StoreUnavailable as error:
            for read in batch.values():
                read.error = error
        finally:
            for read in batch.values():
                read.has_ended.set()

    async def call(
        self, owner: str, function: Callable[[], Awaitable[T]], wait_seconds: float
    ) -> T:
        await self._wait_for_turn(owner, wait_seconds)
        try:
            return await function()
        finally:
            self._end_turn()

    async def _wait_for_turn(self, owner: str, wait_seconds: float) -> None:
        if self._calls < MAX_CALLS:
            self._calls += 1
            return
        turn = anyio.Event()
        self._turns.put(owner, turn)
        try:
            with anyio.move_on_after(wait_seconds):
                await turn.wait()
        except BaseException:
            self._turns.discard(owner, turn)
            if turn.is_set():
                self._end_turn()
            raise
        if not turn.is_set():
            self._turns.discard(owner, turn)
            raise StoreBusy

    def _end_turn(self) -> None:
        """Let the next call begin."""
        turn = self._turns.take()
        if turn is None:
            self._calls -= 1
        else:
            turn.set()
