"""A part of the store that is away stops only the uploads that are in it."""

from __future__ import annotations

import anyio
import pytest
from attrs import evolve

from tests._support.records import record
from tests._support.simulation import Simulation
from tests._support.store_parts import StoreOfTwoParts, simulate_two_parts
from tests.reporting.test_end_outbox import KeepingPublisher
from upload_progress import StoreUnavailable, UploadState
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import LOST
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.identity import Identity

pytestmark = pytest.mark.anyio

S = UploadState
ANN, BOB = UploadKey("ann", "up"), UploadKey("bob", "up")
KEYS = ANN, BOB


@pytest.fixture
def sim() -> Simulation:
    return Simulation(publisher=KeepingPublisher())


@pytest.fixture
def store(sim: Simulation) -> StoreOfTwoParts:
    return simulate_two_parts(sim)


def begin(sim: Simulation, key: UploadKey) -> LiveUpload:
    """Begin an upload that is received here."""
    admission = sim.internals.admission
    live = admission.open(requested_id=key.upload_id, total_bytes=100)
    assert admission.admit(live, Identity(key.owner))
    live.begin()
    sim.add(live, 10)
    return live


def end(live: LiveUpload) -> None:
    live.end_body()
    outcomes.finish(live, None)


async def stored(store: StoreOfTwoParts) -> list[list[UploadState]]:
    """Return the states of the uploads of Ann and of Bob."""
    return [
        [each.state for each in await part.inner.load(key)]
        for part, key in zip(store.parts, KEYS, strict=True)
    ]


async def save(store: StoreOfTwoParts, *records: TransferRecord) -> None:
    """Store records as another worker does."""
    for each in records:
        await store.parts[store.part_of(each.owner)].inner.save([each])


async def test_readers_of_the_other_part_are_answered(
    sim: Simulation, store: StoreOfTwoParts
) -> None:
    """Reads that wait at the same time are one batch, and each gets its own result."""
    await save(store, *(record(owner=key.owner) for key in KEYS))
    store.parts[0].fault = "raise"
    results: dict[str, object] = {}

    async def read(key: UploadKey) -> None:
        try:
            results[key.owner] = (await sim.tracker.get(key.upload_id, owner=key.owner)).state
        except StoreUnavailable as error:
            results[key.owner] = type(error)

    async with anyio.create_task_group() as tasks:
        for key in KEYS:
            tasks.start_soon(read, key)

    assert results == {"ann": StoreUnavailable, "bob": S.RECEIVING}
    assert len((await sim.tracker.list(owner="bob")).uploads) == 1
    with pytest.raises(StoreUnavailable):
        await sim.tracker.list(owner="ann")
    with pytest.raises(StoreUnavailable):
        await sim.internals.reader.loader.load(KEYS)
    statistics = sim.tracker.statistics()
    assert statistics.open_circuits["store"]
    assert statistics.backend_failures["store"] == statistics.store_failures == 1
    assert store.calls == 0


async def test_operators_need_all_parts(sim: Simulation, store: StoreOfTwoParts) -> None:
    """Their list is a call of the whole store, with a circuit breaker of its own."""
    await save(store, record(owner="bob"))
    store.fault = "raise"
    with pytest.raises(StoreUnavailable):
        await sim.internals.reader.loader.open_page()

    assert (await sim.tracker.get("up", owner="bob")).state is S.RECEIVING


async def test_what_a_part_does_not_take_is_stored_later(
    sim: Simulation, store: StoreOfTwoParts
) -> None:
    lives = [begin(sim, key) for key in KEYS]
    await sim.run(1)
    store.parts[0].fault = "raise"
    for live in lives:
        end(live)
    await sim.run(3)
    during, published = await stored(store), [event.owner for event in sim.publisher.events][-1:]
    left = sim.internals.flusher._unsaved.keys()
    assert [each.owner for each in left] == ["ann"]
    # The entries of the outbox of ends are in the parts, too.
    entries = [each.saved[-1] for each in store.parts]
    store.parts[0].fault = None
    await sim.run(10)

    assert during == [[S.RECEIVING], [S.COMPLETED]]
    assert published == ["bob"]
    assert [each.state for each in entries[1]] == [S.COMPLETED]
    assert await stored(store) == [[S.COMPLETED], [S.COMPLETED]]
    assert sim.publisher.events[-1].owner == "ann"
    assert sim.internals.flusher.is_idle
    assert not sim.internals.flusher.outbox.ends._unsaved


async def test_uploads_that_begin_while_a_part_is_away(
    sim: Simulation, store: StoreOfTwoParts
) -> None:
    store.parts[0].fault = "raise"
    lives = [begin(sim, key) for key in KEYS]
    await sim.run(2)
    during = await stored(store), [live.has_prior_state for live in lives]
    store.parts[0].fault = None
    await sim.run(8)

    assert during == ([[], [S.RECEIVING]], [False, True])
    assert await stored(store) == [[S.RECEIVING], [S.RECEIVING]]


async def test_lease_is_renewed_in_the_other_part(sim: Simulation, store: StoreOfTwoParts) -> None:
    """What the part that was away may have lost is written again, and nobody is taken for dead."""
    lives = [begin(sim, key) for key in KEYS]
    await sim.run(1)
    lease = sim.internals.reaper.lease
    store.parts[0].fault = "raise"
    await sim.run(20)
    has_run_out = [lease.has_run_out(part) for part in range(2)]
    for live in lives:
        sim.add(live, 10)
    await sim.run(1)
    sim.publisher.events.clear()
    for live in lives:
        sim.add(live, 10)
    await sim.run(2)
    owners = {event.owner for event in sim.publisher.events}
    store.parts[0].fault = None
    [known] = await store.parts[0].inner.load(ANN)
    ended = evolve(known, state=S.FAILED, error=LOST, sequence=900, finished_at=sim.clock.time())
    await save(store, ended)
    await sim.run(8)

    assert has_run_out == [True, False]
    # Another worker may have ended Ann's upload.
    assert owners == {"bob"}
    assert not any(lease.has_run_out(part) for part in range(2))
    [overruled] = await store.parts[0].inner.load(ANN)
    assert (overruled.attempt, overruled.state) == (2, S.RECEIVING)
    assert sim.tracker.statistics().reaped == 0


async def test_uploads_of_dead_workers_are_ended_in_the_other_part(
    sim: Simulation, store: StoreOfTwoParts
) -> None:
    await save(store, *(record(owner=key.owner, worker="dead") for key in KEYS))
    for part in store.parts:
        await part.inner.renew("dead", seconds=15)
    subscription = sim.internals.subscribe()
    for key in KEYS:
        subscription.add_upload(key.owner, key.upload_id)
    await sim.run(5)
    store.parts[0].fault = "raise"
    await sim.run(30)
    during = await stored(store)
    store.parts[0].fault = None
    await sim.run(40)

    assert during == [[S.RECEIVING], [S.FAILED]]
    assert await stored(store) == [[S.FAILED], [S.FAILED]]
    assert sim.tracker.statistics().reaped == 2
    assert {update.owner for update in subscription.take()} == {"ann", "bob"}
