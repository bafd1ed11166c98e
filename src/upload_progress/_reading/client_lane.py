"""The calls of the store that clients cause: few at once, owners in turn, the rest is refused.

The flusher, the lease of this worker and the other background tasks call the store directly. What
requests cause passes through here, so that any number of them leaves connections of the store to
those tasks. Requests for single uploads that wait at the same time are read together in one round
trip, and requests for the same upload share its records. A caller never gets the result of a read
that began before the call.

An owner who waits for much does not delay others. Waiting owners are served in turn, and each is in
one read at a time, which leaves the other reads to the others. When a read has ended, few callers
of each owner continue in one turn of the event loop, and after that turn the owner pauses in
proportion to its duration: however many requests one owner makes, they take a part of the time of
the event loop. If all continued at once, their responses and the next requests of their clients
would be one long turn, and would fill the memory that the garbage collector examines in one pass.

Who waits too long, or finds the lane full, gets ``StoreBusy``. That is no failure of the store.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import RunVar, checkpoint
from attrs import define, field

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._reading.fair_queue import FairQueue
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.exceptions import StoreBusy, StoreUnavailable

__all__ = [
    "BATCH_SIZE",
    "BATCH_SIZE_PER_OWNER",
    "CONTINUED_PER_OWNER",
    "MAX_BATCHES",
    "MAX_CALLS",
    "MAX_CONTINUED",
    "MAX_PAUSE_SECONDS",
    "MAX_WAIT_SECONDS",
    "PAUSE_FACTOR",
    "ClientLane",
]

T = TypeVar("T")

BATCH_SIZE: Final = 64
"""Uploads in one read."""
BATCH_SIZE_PER_OWNER: Final = 16
"""Uploads of one owner in one read."""
MAX_BATCHES: Final = 2
MAX_CALLS: Final = 2
MAX_CONTINUED: Final = 16
"""Callers that continue in one turn of the event loop."""
CONTINUED_PER_OWNER: Final = 2
"""Callers of one owner that continue in one turn of the event loop."""
PAUSE_FACTOR: Final = 3
"""A pause between such turns lasts that many times as long as the turn before it."""
MAX_PAUSE_SECONDS: Final = 0.01
MAX_WAIT_SECONDS: Final = 3.0


@define(eq=False)
class _KeyRead:
    """The read of one upload.

    Attributes:
        key: The upload.
        callers: Those who wait for it; the event of each is set when its turn to continue comes.
        records: The result; None without one.
        error: Why there is no result.
    """

    key: UploadKey
    callers: dict[anyio.Event, None] = field(factory=dict)
    records: list[TransferRecord] | None = None
    error: StoreUnavailable | None = None


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
        turn = anyio.Event()
        read.callers[turn] = None
        try:
            with anyio.move_on_after(MAX_WAIT_SECONDS):
                await turn.wait()
        finally:
            del read.callers[turn]
            if not read.callers and self._waiting.get(key) is read:
                del self._waiting[key]
                self._reads.discard(key.owner, read)
        if read.error is not None:
            raise type(read.error)
        if read.records is None:
            raise StoreBusy
        return read.records

    def _add(self, key: UploadKey) -> _KeyRead:
        read = _KeyRead(key)
        self._reads.put(key.owner, read)
        self._waiting[key] = read
        self._start_batch()
        return read

    def _start_batch(self) -> None:
        """Start a read of what may be read now, unless enough others run."""
        if self._reads.owners and self._batches < MAX_BATCHES:
            self._batches += 1
            # In a task of its own, which starts when all callers of this turn of the event loop
            # have been added.
            self.tasks.start(self._run_batch)

    async def _run_batch(self) -> None:
        """Read several uploads; let their callers continue; then let their owners read more."""
        reads = self._reads.take_several(BATCH_SIZE, per_owner=BATCH_SIZE_PER_OWNER)
        owners = {read.key.owner for read in reads}
        for read in reads:
            del self._waiting[read.key]
            self._reads.hold(read.key.owner)
        callers: FairQueue[anyio.Event] = FairQueue(max_items=inf, max_per_owner=inf)
        turn_seconds = 0.0
        try:
            try:
                await self._load(reads)
                for read in reads:
                    for turn in read.callers:
                        callers.put(read.key.owner, turn)
                first = callers.take_several(len(callers), per_owner=CONTINUED_PER_OWNER)
                for start in range(0, len(first), MAX_CONTINUED):
                    turn_seconds = await _continue(first[start : start + MAX_CONTINUED])
            finally:
                self._batches -= 1
            self._start_batch()
            while callers:
                await _pause_after(turn_seconds)
                turn_seconds = await _continue(
                    callers.take_several(MAX_CONTINUED, per_owner=CONTINUED_PER_OWNER)
                )
            if any(owner in self._reads for owner in owners):
                await _pause_after(turn_seconds)
        finally:
            _continue_all(reads)
            for owner in owners:
                self._reads.resume(owner)
        self._start_batch()

    async def _load(self, reads: Sequence[_KeyRead]) -> None:
        """Give each read its result or error."""
        try:
            loaded = await self.loader.load_available([read.key for read in reads])
        except StoreUnavailable as error:
            for read in reads:
                read.error = error
            return
        for read in reads:
            read.error = loaded.errors.get(read.key.owner)
            if read.error is None:
                read.records = loaded.records.get(read.key, [])

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


async def _continue(turns: Sequence[anyio.Event]) -> float:
    """Let some callers continue; return how long the turn of the event loop took, in seconds."""
    began = anyio.current_time()
    for turn in turns:
        turn.set()
    await checkpoint()
    return anyio.current_time() - began


async def _pause_after(turn_seconds: float) -> None:
    await anyio.sleep(min(PAUSE_FACTOR * turn_seconds, MAX_PAUSE_SECONDS))


def _continue_all(reads: Sequence[_KeyRead]) -> None:
    """Let all callers continue that still wait: the tracker stops."""
    for read in reads:
        if read.records is None and read.error is None:
            read.error = StoreUnavailable()
        for turn in read.callers:
            turn.set()
