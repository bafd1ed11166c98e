"""The outbox of ends in the store: each end is published, whatever happens to its worker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, evolve, field

from tests._support.simulation import Simulation
from upload_progress import CloudEvent, MemoryStore, ProgressTracker, UploadState
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reading.store_parts import StoreParts
from upload_progress._reporting import end_outbox as end_outbox_module
from upload_progress._reporting import outbox as outbox_module
from upload_progress._reporting.end_outbox import is_entry
from upload_progress._tracking import outcomes
from upload_progress.identity import Identity
from upload_progress.testing import FaultyPublisher, RecordingPublisher

pytestmark = pytest.mark.anyio

S = UploadState


@define(eq=False, repr=False)
class KeepingPublisher(FaultyPublisher):
    """A publisher whose broker keeps events; it refuses those of an owner."""

    keeps_events: bool = True
    refused_owner: str = field(default="", init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        if any(event.owner == self.refused_owner for event in events):
            raise ValueError
        await super().publish(events)


@pytest.fixture
def sim() -> Simulation:
    return Simulation(publisher=KeepingPublisher())


@define(eq=False)
class NextWorker:
    """A worker that is started after the one of the simulation is gone."""

    sim: Simulation
    publisher: RecordingPublisher = field(factory=KeepingPublisher)
    tracker: ProgressTracker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tracker = ProgressTracker(
            store=self.sim.store, publisher=self.publisher, clock=self.sim.clock
        )

    async def run(self, seconds: int = 40) -> None:
        """Do the work of so many seconds."""
        internals = internals_of(self.tracker)
        for _ in range(seconds):
            self.sim.clock.advance(1)
            await internals.reaper.run_once()
            await internals.flusher.flush()

    @property
    def published(self) -> list[tuple[str, UploadState]]:
        return [(event.id, event.data.state) for event in self.publisher.events]


def entries(sim: Simulation) -> list[TransferRecord]:
    """Return the newest stored version of each entry."""
    saved = [record for batch in sim.store.saved for record in batch if is_entry(record)]
    return list({entry.key: entry for entry in saved}.values())


async def end(sim: Simulation, upload_id: str = "up", size: int = 9) -> None:
    live = sim.begin(upload_id, total=size)
    sim.add(live, size)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)


async def test_entry_is_stored_with_the_end_and_ended_after_its_event(sim: Simulation) -> None:
    await end(sim)

    [with_end] = [batch for batch in sim.store.saved if any(map(is_entry, batch))][:1]
    assert [(each.upload_id, each.state) for each in with_end] == [
        ("up/1", S.RECEIVING),
        ("up", S.COMPLETED),
    ]
    [entry] = entries(sim)
    assert (entry.state, entry.worker, entry.metadata) == (S.COMPLETED, None, None)
    follower = NextWorker(sim)
    await follower.run()
    assert follower.published == []
    assert [event.state for event in sim.events("up")] == [S.COMPLETED]


async def test_broker_that_keeps_no_events_needs_no_entries() -> None:
    sim = Simulation()
    await end(sim)

    assert entries(sim) == []


async def test_next_worker_publishes_the_end_of_a_killed_one(sim: Simulation) -> None:
    """Once, with the same content, and also if a third worker looks for it."""
    sim.publisher.fault = "raise"
    await end(sim)
    expected = await sim.tracker.get("up", owner="ann")
    follower, third = NextWorker(sim), NextWorker(sim)
    await follower.run(1)
    assert follower.published == []
    await follower.run()
    await third.run()

    assert follower.published == [(f"up/1/{expected.sequence}", S.COMPLETED)]
    assert follower.publisher.events[0].data == expected
    assert third.published == []
    assert internals_of(follower.tracker).reaper.reaped == 0
    assert {entry.state for entry in entries(sim)} == {S.COMPLETED}


async def test_end_waits_in_the_store_until_a_broker_accepts_it(sim: Simulation) -> None:
    sim.publisher.fault = "raise"
    await end(sim)
    broken = KeepingPublisher("raise")
    follower, last = NextWorker(sim, broken), NextWorker(sim)
    await follower.run()
    await last.run(120)

    assert [state for _id, state in last.published] == [S.COMPLETED]


async def test_end_of_an_attempt_outlives_the_next_attempt(sim: Simulation) -> None:
    sim.publisher.fault = "raise"
    await end(sim)
    follower = NextWorker(sim)
    async with follower.tracker.track(owner="ann", upload_id="up", total_bytes=3) as upload:
        upload.advance(3)
    await follower.run()

    ends = {each for each, state in follower.published if state is S.COMPLETED}
    assert {each.rpartition("/")[0] for each in ends} == {"up/1", "up/2"}


async def test_entry_is_stored_when_the_store_is_back(sim: Simulation) -> None:
    """An end that another worker has stored, such as that of a cancelled upload."""
    announced = await sim.tracker.announce(owner="ann")
    await sim.run(1)
    sim.publisher.fault = "raise"
    await sim.tracker.cancel(announced.upload_id, owner="ann")
    sim.store.fault = "raise"
    await sim.run(1)
    assert entries(sim) == []
    sim.store.fault = None
    await sim.run(10)
    assert [entry.state for entry in entries(sim)] == [S.RECEIVING]

    sim.store.fault, sim.publisher.fault = "raise", None
    await sim.run(10)
    assert [event.state for event in sim.events(announced.upload_id)][-1] is S.CANCELLED
    assert [entry.state for entry in entries(sim)] == [S.RECEIVING]
    sim.store.fault = None
    await sim.run(10)
    assert [entry.state for entry in entries(sim)] == [S.COMPLETED]


async def test_entries_that_wait_for_the_store_are_bounded(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_outbox_module, "MAX_UNSAVED", 2)
    announced = [await sim.tracker.announce(owner="ann") for _ in range(4)]
    sim.publisher.fault = "raise"
    for each in announced:
        await sim.tracker.cancel(each.upload_id, owner="ann")
    sim.store.fault = "raise"
    await sim.run(1)

    assert len(sim.internals.flusher.outbox.ends._unsaved) == 2


async def test_end_that_was_dropped_is_published_by_the_next_worker(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_UNPUBLISHED", 2)
    sim.publisher.fault = "raise"
    for number in range(5):
        await end(sim, f"up{number}")
    assert sim.tracker.statistics().end_events_dropped == 3
    sim.publisher.fault = None
    await sim.run(10)
    follower = NextWorker(sim)
    await follower.run()

    published = [event.subject for event in sim.publisher.events]
    assert len(published) == 2
    published += [event.subject for event in follower.publisher.events]
    assert sorted(published) == [f"up{number}" for number in range(5)]


async def test_end_that_the_broker_refuses_is_not_tried_for_ever(sim: Simulation) -> None:
    assert isinstance(sim.publisher, KeepingPublisher)
    sim.publisher.refused_owner = "ann"
    await end(sim)
    for number in range(3):
        await sim.run(10)
        live = sim.internals.admission.open(requested_id=f"good{number}")
        assert sim.internals.admission.admit(live, Identity("bob"))
        live.begin()
        outcomes.client_disconnected(live)
        await sim.run(10)

    assert sim.tracker.statistics().end_events_dropped == 1
    assert {entry.state for entry in entries(sim)} == {S.COMPLETED}


async def test_entries_without_use_are_ended(sim: Simulation) -> None:
    """Those of a system whose broker keeps no events now, and those that cannot be read."""
    sim.publisher.fault = "raise"
    await end(sim, "one")
    follower = NextWorker(sim, RecordingPublisher())
    await follower.run()
    assert follower.published == []
    assert {entry.state for entry in entries(sim)} == {S.COMPLETED}

    await end(sim, "other")
    [entry] = [each for each in entries(sim) if each.state is S.RECEIVING]
    await sim.memory.save([evolve(entry, sequence=2, metadata={"not": "a snapshot"})])
    last = NextWorker(sim)
    await last.run()

    assert last.published == []
    assert {entry.state for entry in entries(sim)} == {S.COMPLETED}


async def test_entry_that_ends_while_it_is_stored(sim: Simulation) -> None:
    """The store may answer late; the broker has accepted the event meanwhile."""
    await end(sim)
    ends, update = sim.internals.flusher.outbox.ends, Update("ann", sim.events("up")[-1])
    stored: list[UploadState] = []

    class SlowStore(MemoryStore):
        async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
            if not stored:
                stored.append(S.PENDING)
                await ends.confirm([update])
            stored.extend(each.state for each in records)
            return ()

    ends.loader = RecordLoader(
        StoreParts(SlowStore(), ends.loader.parts.breaker), sim.clock, "/uploads"
    )
    await ends.add([update])

    assert stored == [S.PENDING, S.COMPLETED, S.RECEIVING]
    assert not ends._unsaved
