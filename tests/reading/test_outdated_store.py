"""A store that takes no writes and can be read: what it has may be old, so it is not shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from tests._support.records import record
from tests._support.simulation import Simulation
from tests._support.store_parts import simulate_two_parts
from upload_progress import (
    MemoryStore,
    ProgressTracker,
    StoreUnavailable,
    UploadNotFound,
    UploadState,
)
from upload_progress._cluster.reaper import SWEEP_SECONDS
from upload_progress._internals import internals_of
from upload_progress._model.api_types import TaskReport
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.version import SKIPPED_VERSIONS
from upload_progress._reading.store_parts import OUTDATED_SECONDS, REPAIR_SECONDS, StoreParts
from upload_progress._runtime.circuit_breaker import FIRST_OPEN_SECONDS, CircuitBreaker
from upload_progress._tracking.hand_over import make_token
from upload_progress.exceptions import StoreBusy
from upload_progress.interfaces import ALL_OWNERS
from upload_progress.testing import FakeClock, FaultyStore

pytestmark = pytest.mark.anyio

UP = UploadKey("ann", "up")


@define(eq=False, repr=False, slots=False)
class FullStore(FaultyStore):
    """A store that may be full, and then refuses all writes."""

    is_full: bool = field(default=False, kw_only=True)

    def _check(self) -> None:
        if self.is_full:
            raise OSError("full")

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        self._check()
        return await super().save(records)

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        self._check()
        return await super().announce(record, limit=limit)

    async def renew(self, worker: str, *, seconds: float) -> None:
        self._check()
        await super().renew(worker, seconds=seconds)


@pytest.fixture
def store(sim: Simulation) -> FullStore:
    """Return the store of the tracker."""
    store = FullStore(sim.memory)
    sim.tracker = ProgressTracker(store=store, publisher=sim.publisher, clock=sim.clock)
    return store


READS: dict[str, Callable[[ProgressTracker], Awaitable[object]]] = {
    "get": lambda tracker: tracker.get("up", owner="ann"),
    "offset": lambda tracker: internals_of(tracker).reader.get_offset(UP),
    "list": lambda tracker: tracker.list(owner="ann"),
    "operator": lambda tracker: tracker.list(owner=ALL_OWNERS),
}


async def outcome(read: Awaitable[object]) -> str:
    try:
        await read
    except StoreUnavailable:
        return "unavailable"
    return "shown"


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_reads_are_refused_until_the_store_takes_writes(
    sim: Simulation, store: FullStore, read: Callable[[ProgressTracker], Awaitable[object]]
) -> None:
    """They do not alternate, although each successful read closes the circuit breaker."""
    await sim.memory.save([record("up")])
    await sim.run(1)
    outcomes = [await outcome(read(sim.tracker))]
    store.is_full = True
    await sim.run(3)
    for _ in range(100):
        await sim.run(0.3)
        outcomes.append(await outcome(read(sim.tracker)))
    store.is_full = False
    await sim.run(7)
    outcomes.append(await outcome(read(sim.tracker)))

    assert outcomes == ["shown", *["unavailable"] * 100, "shown"]


async def test_upload_that_is_received_here_is_shown(sim: Simulation, store: FullStore) -> None:
    live = sim.begin("up", total=100)
    await sim.run(1)
    store.is_full = True
    await sim.run(5)
    sim.add(live, 70)
    await sim.run(1)

    assert (await sim.tracker.get("up", owner="ann")).bytes_transferred == 70


async def test_subscriptions_get_no_old_snapshot(sim: Simulation, store: FullStore) -> None:
    """They get the one that is stored when the store takes writes again."""
    follower = sim.internals.follower
    await sim.memory.save([record("up")])
    named, everything = sim.subscription("up"), sim.subscription()
    store.is_full = True
    await sim.run(3)
    await follower.poll()
    during = [*named.take(), *everything.take()]
    store.is_full = False
    await sim.run(7)
    await follower.poll()

    assert during == []
    for subscription in (named, everything):
        assert [update.progress.upload_id for update in subscription.take()] == ["up"]


async def test_refused_announcement_is_a_failed_write(sim: Simulation, store: FullStore) -> None:
    await sim.memory.save([record("up")])
    store.is_full = True

    with pytest.raises(StoreUnavailable):
        await sim.tracker.announce(owner="ann")
    sim.clock.advance(FIRST_OPEN_SECONDS)
    outcomes = [await outcome(sim.tracker.get("up", owner="ann"))]
    store.is_full = False
    await sim.tracker.announce(owner="ann")
    outcomes.append(await outcome(sim.tracker.get("up", owner="ann")))

    assert outcomes == ["unavailable", "shown"]


async def test_reads_are_answered_again_within_a_second_of_a_failed_write(
    sim: Simulation, store: FullStore
) -> None:
    """A worker that receives nothing tries to write, although its lease was just renewed."""
    await sim.memory.save([record("up")])
    await sim.internals.reaper.run_once()
    store.is_full = True
    with pytest.raises(StoreUnavailable):
        await sim.tracker.announce(owner="ann")
    store.is_full = False
    outcomes = [await outcome(sim.tracker.get("up", owner="ann"))]

    sim.clock.advance(SWEEP_SECONDS)
    await sim.internals.reaper.run_once()

    outcomes.append(await outcome(sim.tracker.get("up", owner="ann")))
    assert outcomes == ["unavailable", "shown"]


LOOKS: dict[str, Callable[[ProgressTracker], Awaitable[object]]] = {
    "get": READS["get"],
    "offset": READS["offset"],
    "cancel": lambda tracker: tracker.cancel("up", owner="ann"),
    "report of a task": lambda tracker: internals_of(tracker).task_reports.add(
        "up", make_token(UP), TaskReport()
    ),
}
"""What looks for one upload."""


async def test_what_a_store_lacks_after_an_outage_is_not_unknown_yet(
    sim: Simulation, store: FullStore
) -> None:
    """It may have lost it, and the worker that receives the upload stores it again."""
    store.fault = "raise"
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("up", owner="ann")
    sim.clock.advance(FIRST_OPEN_SECONDS)
    store.fault = None

    for look in LOOKS.values():
        with pytest.raises(StoreUnavailable):
            await look(sim.tracker)
    sim.clock.advance(REPAIR_SECONDS)
    for look in LOOKS.values():
        with pytest.raises(UploadNotFound):
            await look(sim.tracker)


async def test_upload_that_begins_after_an_outage_shares_no_event_id_with_a_lost_one(
    sim: Simulation, store: FullStore
) -> None:
    """Another worker may still receive an upload of its id, of which the store has no record."""
    sim.begin("before")
    await sim.run()
    store.fault = "raise"
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("unknown", owner="ann")
    store.fault = None
    sim.clock.advance(FIRST_OPEN_SECONDS)
    await sim.memory.save([record("known")])

    for upload_id in ("new", "known"):
        sim.begin(upload_id)
    await sim.run(2)

    ids = ("before", "new", "known")
    before, new, known = [await sim.tracker.get(each, owner="ann") for each in ids]
    assert before.sequence < known.sequence < SKIPPED_VERSIONS < new.sequence


async def test_upload_that_begins_during_an_outage_is_published_when_others_are_known(
    sim: Simulation, store: FullStore
) -> None:
    """Another worker may have published events of an upload with its id."""
    known = evolve(record("retry"), state=UploadState.RECEIVING, started_at=1.0, worker="other")
    await sim.memory.save([known])
    store.fault = "raise"
    subscription, live = sim.subscription("retry"), sim.begin("retry")
    sim.begin()
    await sim.run(2)
    during = [event.subject for event in sim.publisher.events]
    shown = [update.progress.upload_id for update in subscription.take()]
    store.fault = None
    for _ in range(10):
        sim.add(live, 1)
        await sim.run(1)

    assert (shown, "retry" in during, bool(during)) == (["retry"], False, True)
    assert {event.attempt for event in sim.events("retry")} == {2}


@pytest.fixture
def parts(clock: FakeClock) -> StoreParts:
    return StoreParts(FullStore(MemoryStore(clock=clock)), CircuitBreaker("the store", clock))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def fail(_store: object) -> None:
    await checkpoint()
    raise OSError


async def refuse_busy(_store: object) -> None:
    await checkpoint()
    raise StoreBusy


async def test_process_that_writes_nothing_reads_again_after_a_while(
    parts: StoreParts, clock: FakeClock
) -> None:
    with pytest.raises(StoreUnavailable):
        await parts.write("ann", fail)
    is_outdated = [parts.is_outdated("ann")]
    clock.advance(OUTDATED_SECONDS)
    is_outdated.append(parts.is_outdated("ann") or bool(parts.outdated))

    assert is_outdated == [True, False]


async def test_failed_reads_and_busy_writes_tell_nothing_about_writes(
    parts: StoreParts, clock: FakeClock
) -> None:
    with pytest.raises(StoreBusy):
        await parts.write("ann", refuse_busy)
    with pytest.raises(StoreUnavailable):
        await parts.call("ann", fail)
    # Its circuit is open: nothing is tried.
    with pytest.raises(StoreUnavailable):
        await parts.save([record("up")])

    assert not parts.outdated


async def test_records_of_other_owners_are_loaded(sim: Simulation) -> None:
    """Only the part that has refused a write is outdated."""
    store = simulate_two_parts(sim)
    keys = UP, UploadKey("bob", "up")
    for key, part in zip(keys, store.parts, strict=True):
        await part.inner.save([record(owner=key.owner)])
    loader = sim.internals.reader.loader
    with pytest.raises(StoreUnavailable):
        await loader.parts.write("ann", fail)
    sim.clock.advance(FIRST_OPEN_SECONDS)

    loaded = await loader.load_current(keys)

    assert (set(loaded.records), set(loaded.errors)) == ({keys[1]}, {"ann"})
    assert len((await loader.page("bob", ended_within_seconds=None)).uploads) == 1
    with pytest.raises(StoreUnavailable):
        await loader.page("ann", ended_within_seconds=None)
