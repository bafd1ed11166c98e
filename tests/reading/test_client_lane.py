"""The lane of clients: reads are shared, few calls run at once, and owners are served in turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, field

from tests._support.records import record
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from upload_progress import MemoryStore, ProgressTracker, StoreUnavailable, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._reading.client_lane import (
    BATCH_SIZE_PER_OWNER,
    CONTINUED_PER_OWNER,
    MAX_BATCHES,
    MAX_CALLS,
    MAX_CONTINUED,
    MAX_PAUSE_SECONDS,
    MAX_WAIT_SECONDS,
    PAUSE_FACTOR,
    ClientLane,
)
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.exceptions import StoreBusy, UploadNotFound
from upload_progress.testing import FakeClock

pytestmark = pytest.mark.anyio

UP = UploadKey("ann", "up")
DELAY_SECONDS = 0.02


@define(eq=False, slots=False)
class SlowStore(MemoryStore):
    """A store that waits before it reads, and notes what."""

    wait: Callable[[], Awaitable[object]] = checkpoint
    batches: list[tuple[UploadKey, ...]] = field(factory=list)
    calls_in_progress: int = 0
    most_running: int = 0

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        self.batches.append(keys)
        self.calls_in_progress += 1
        self.most_running = max(self.most_running, self.calls_in_progress)
        try:
            await self.wait()
            return await super().load(*keys)
        finally:
            self.calls_in_progress -= 1


@pytest.fixture
def store() -> SlowStore:
    return SlowStore(clock=FakeClock())


@pytest.fixture
def lane(store: SlowStore) -> ClientLane:
    return internals_of(ProgressTracker(store=store)).reader.lane


# --- reads ----------------------------------------------------------------------------------------


async def test_reads_of_one_turn_of_the_loop_are_one_call(
    lane: ClientLane, store: SlowStore
) -> None:
    """Equal keys are read once, and different keys in one round trip."""
    await store.save([record("up"), record("other")])
    found: list[list[TransferRecord]] = []

    async def load(upload_id: str) -> None:
        found.append(await lane.load(UploadKey("ann", upload_id)))

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(load, ("up", "other", "unknown")[number % 3])

    assert [len(keys) for keys in store.batches] == [3]
    assert sorted(map(len, found)) == [0] * 10 + [1] * 20


async def test_result_is_not_older_than_the_call(lane: ClientLane, store: SlowStore) -> None:
    may_end = anyio.Event()
    store.wait = may_end.wait
    states: list[UploadState] = []

    async def load() -> None:
        states.extend(each.state for each in await lane.load(UP))

    await store.save([record("up")])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load)
        while not store.calls_in_progress:
            await checkpoint()
        await store.save([record("up", sequence=2, state=UploadState.PROCESSING)])
        tasks.start_soon(load)
        may_end.set()

    assert states[-1] is UploadState.PROCESSING
    assert len(store.batches) == 2


async def test_failure_of_a_read_reaches_all_who_wait(
    lane: ClientLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_store: SlowStore, *_keys: UploadKey) -> list[TransferRecord]:
        raise OSError

    monkeypatch.setattr(SlowStore, "load", fail)
    errors: list[StoreUnavailable] = []

    async def load() -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await lane.load(UP)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(load)

    assert len({id(error) for error in errors}) == 3


async def test_cancelled_callers_are_not_waited_for(lane: ClientLane, store: SlowStore) -> None:
    """What nobody waits for any more is not read; what somebody else waits for is."""
    may_end = anyio.Event()
    store.wait = may_end.wait
    async with anyio.create_task_group() as tasks:
        for number in range(MAX_BATCHES):
            tasks.start_soon(lane.load, UploadKey(f"running-{number}", "up"))
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as cancelled:
            for upload_id in ("cancelled", "up"):
                cancelled.start_soon(lane.load, UploadKey("ann", upload_id))
            tasks.start_soon(lane.load, UP)
            await anyio.wait_all_tasks_blocked()
            assert len(lane) == 2
            cancelled.cancel_scope.cancel()
        assert len(lane) == 1
        may_end.set()

    assert store.batches[MAX_BATCHES:] == [(UP,)]


async def test_reads_fail_when_the_tracker_stops(store: SlowStore) -> None:
    """Its task group cancels the read, and the caller gets an error instead of waiting."""
    store.wait = anyio.sleep_forever
    tracker = ProgressTracker(store=store)
    lane = internals_of(tracker).reader.lane
    tasks_of_tracker = TaskSpawner(LogLimiter(FakeClock()))
    lane.tasks = tasks_of_tracker

    async def load() -> None:
        with pytest.raises(StoreUnavailable):
            await lane.load(UP)

    async with anyio.create_task_group() as callers, tasks_of_tracker.running() as tasks:
        callers.start_soon(load)
        while not store.calls_in_progress:
            await checkpoint()
        tasks.cancel_scope.cancel()


# --- turns ----------------------------------------------------------------------------------------


async def turns_of_callers(lane: ClientLane, keys: Sequence[UploadKey]) -> list[tuple[str, int]]:
    """Load these uploads at once; return owner and turn of the event loop of each, in order."""
    turn, loaded = 0, list[tuple[str, int]]()

    async def load(key: UploadKey) -> None:
        await lane.load(key)
        loaded.append((key.owner, turn))

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(load, key)
        while len(loaded) < len(keys):
            await checkpoint()
            turn += 1
    return loaded


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles the tasks of a turn
async def test_callers_of_an_owner_continue_in_turns_of_their_own(
    lane: ClientLane, store: SlowStore
) -> None:
    """Whether they wait for one upload or for several, others do not wait for all of them."""
    keys = [UploadKey("bob", f"unknown-{number % 30}") for number in range(90)]
    loaded = await turns_of_callers(lane, [*keys, UP])

    at_once = Counter(loaded)
    assert max(at_once.values()) == CONTINUED_PER_OWNER
    assert sum(at_once.values()) == 91
    # In the order of the first turns, all of whose callers wait at the time.
    assert "ann" in [owner for owner, _ in loaded[: CONTINUED_PER_OWNER + 1]]
    assert [len(batch) for batch in store.batches] == [BATCH_SIZE_PER_OWNER + 1, 14]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles the tasks of a turn
async def test_few_callers_continue_in_one_turn(lane: ClientLane, store: SlowStore) -> None:
    loaded = await turns_of_callers(
        lane, [UploadKey(f"owner-{number}", "up") for number in range(50)]
    )

    assert max(Counter(turn for _, turn in loaded).values()) == MAX_CONTINUED
    assert len(store.batches) == 1


async def test_owner_is_in_one_read_at_a_time(lane: ClientLane, store: SlowStore) -> None:
    """However much bob reads, ann is read at once; and bob again when his callers have gone on."""
    may_end = anyio.Event()
    store.wait = may_end.wait
    async with anyio.create_task_group() as tasks:
        for number in range(2 * BATCH_SIZE_PER_OWNER):
            tasks.start_soon(lane.load, UploadKey("bob", f"unknown-{number}"))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(lane.load, UP)
        await anyio.wait_all_tasks_blocked()
        assert [len(batch) for batch in store.batches] == [BATCH_SIZE_PER_OWNER, 1]
        may_end.set()

    assert [len(batch) for batch in store.batches] == [
        BATCH_SIZE_PER_OWNER,
        1,
        BATCH_SIZE_PER_OWNER,
    ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio shuffles the tasks of a turn
async def test_owner_pauses_in_proportion_to_what_callers_do(lane: ClientLane) -> None:
    """So that one owner takes a part of the time of the event loop, and not all of it."""
    busy_seconds, times = 0.002, list[float]()

    async def load(number: int) -> None:
        await lane.load(UploadKey("bob", f"unknown-{number}"))
        times.append(anyio.current_time())
        time.sleep(busy_seconds)  # noqa: ASYNC251  # work, such as to send a response

    async with anyio.create_task_group() as tasks:
        for number in range(BATCH_SIZE_PER_OWNER + 1):
            tasks.start_soon(load, number)

    turns = times[::CONTINUED_PER_OWNER]
    work_seconds = CONTINUED_PER_OWNER * busy_seconds
    pauses = [later - earlier - work_seconds for earlier, later in pairwise(turns)]
    assert min(pauses) >= 0.99 * min(PAUSE_FACTOR * work_seconds, MAX_PAUSE_SECONDS)


# --- other calls ----------------------------------------------------------------------------------


async def test_few_calls_run_at_once_and_owners_take_turns(lane: ClientLane) -> None:
    may_end, began = anyio.Event(), list[str]()

    async def call(owner: str) -> None:
        async def work() -> None:
            began.append(owner)
            await may_end.wait()

        await lane.call(owner, work)

    async with anyio.create_task_group() as tasks:
        for owner in ("eve",) * MAX_CALLS + ("ann", "ann", "ann", "bob"):
            tasks.start_soon(call, owner)
            await anyio.wait_all_tasks_blocked()
        assert began == ["eve"] * MAX_CALLS
        assert len(lane) == 4
        may_end.set()

    assert set(began[MAX_CALLS:][:2]) == {"ann", "bob"}
    assert began[MAX_CALLS + 2 :] == ["ann", "ann"]


@pytest.mark.parametrize("has_turn", [False, True])
async def test_cancelled_call_gives_its_turn_to_the_next(lane: ClientLane, has_turn: bool) -> None:
    ended: list[str] = []
    may_end = [anyio.Event() for _ in range(MAX_CALLS)]
    scope = anyio.CancelScope()

    async def call(name: str, event: anyio.Event) -> None:
        await lane.call("ann", event.wait)
        ended.append(name)

    async def be_cancelled() -> None:
        with scope:
            await lane.call("ann", anyio.sleep_forever)

    async with anyio.create_task_group() as tasks:
        for event in may_end:
            tasks.start_soon(call, "first", event)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(be_cancelled)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(call, "next", may_end[0])
        await anyio.wait_all_tasks_blocked()
        if has_turn:
            lane._lane._end_turn()  # of the first call, before its task runs again
            lane._lane._calls += 1
        scope.cancel()
        for event in may_end:
            event.set()

    assert sorted(ended) == ["first"] * MAX_CALLS + ["next"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_call_that_is_cancelled_as_its_turn_comes_gives_it_to_the_next(
    lane: ClientLane,
) -> None:
    """A task of asyncio is cancelled where it waits, also if what it waits for has come."""
    may_end = anyio.Event()
    first = [asyncio.create_task(lane.call("ann", may_end.wait)) for _ in range(MAX_CALLS)]
    await anyio.wait_all_tasks_blocked()
    cancelled = asyncio.create_task(lane.call("ann", anyio.sleep_forever))
    following = asyncio.create_task(lane.call("ann", may_end.wait))
    await anyio.wait_all_tasks_blocked()
    lane._lane._end_turn()  # of the first call, before its task runs again
    lane._lane._calls += 1
    cancelled.cancel()
    may_end.set()

    await asyncio.gather(*first, following)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (len(lane), lane._lane._calls) == (0, 0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_waits_too_long_is_refused(backend: str) -> None:
    """The store answers in 0.9 s: the first reads and calls succeed, and the others are refused."""

    async def main() -> None:
        store = SlowStore(clock=VirtualClock(), wait=partial(anyio.sleep, 0.9))
        lane = internals_of(ProgressTracker(store=store)).reader.lane
        refused: list[float] = []

        async def try_to(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except StoreBusy:
                refused.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for number in range(4 * BATCH_SIZE_PER_OWNER):
                tasks.start_soon(try_to, partial(lane.load, UploadKey("ann", str(number))))
            for _ in range(6 * MAX_CALLS):
                tasks.start_soon(try_to, partial(lane.call, "ann", partial(anyio.sleep, 0.9)))
        assert refused == [MAX_WAIT_SECONDS] * (BATCH_SIZE_PER_OWNER + 2 * MAX_CALLS)
        assert len(lane) == 0

    run_in_virtual_time(main, backend)


# --- a storm --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_storm_of_polls_harms_neither_uploads_nor_other_readers(backend: str) -> None:
    """A thousand requests at once for unknown uploads, at a store 20 ms away, for half a minute."""

    async def main() -> None:
        clock = VirtualClock()
        store = SlowStore(clock=clock, wait=partial(anyio.sleep, DELAY_SECONDS))
        here, other = (ProgressTracker(store=store, clock=clock) for _ in range(2))
        refused, delays = Counter[str](), list[float]()

        async def poll(number: int) -> None:
            while True:
                try:
                    await here.get(f"unknown-{number}", owner="bob")
                except (UploadNotFound, StoreBusy) as error:
                    refused[type(error).__name__] += 1

        async with (
            here.lifespan(),
            other.lifespan(),
            here.track(owner="ann", upload_id="up", total_bytes=10_000) as upload,
            other.track(owner="ann", upload_id="elsewhere", total_bytes=10),
            anyio.create_task_group() as tasks,
        ):
            await anyio.sleep(1)
            for number in range(1000):
                tasks.start_soon(poll, number)
            for _ in range(300):
                upload.advance(1)
                began = anyio.current_time()
                await here.get("elsewhere", owner="ann")
                delays.append(anyio.current_time() - began)
                await anyio.sleep(0.1)
            progress = await other.get("up", owner="ann")
            assert progress.state is UploadState.RECEIVING
            assert progress.bytes_transferred >= 290
            tasks.cancel_scope.cancel()

        assert max(delays) <= 5 * DELAY_SECONDS
        assert refused["UploadNotFound"] > 10_000
        assert store.most_running <= MAX_BATCHES + 2
        assert BATCH_SIZE_PER_OWNER <= max(map(len, store.batches)) <= BATCH_SIZE_PER_OWNER + 2
        for tracker in (here, other):
            assert tracker.statistics().store_failures == 0
            assert tracker.statistics().reaped == 0

    run_in_virtual_time(main, backend)
