"""Events of an upload whose parts arrive at two workers at once: one id has one content.

The workers are two trackers in this process. Their calls of the store are interleaved at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, field

from tests._support.open_requests import OpenRequest
from upload_progress import MemoryStore, ProgressTracker, UploadState
from upload_progress._internals import TrackerInternals, internals_of
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._tracking import outcomes
from upload_progress.identity import Identity
from upload_progress.protocols import (
    ContentRange,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
)
from upload_progress.testing import FakeClock, FaultyStore, RecordingPublisher

pytestmark = pytest.mark.anyio

SEQUENCES = 40
PARTS = 6
PART_BYTES = 100
TOTAL_BYTES = PARTS * PART_BYTES
ANN = Identity("ann")


@define(eq=False, repr=False, slots=False)
class InterleavedStore(FaultyStore):
    """A store whose calls begin and end after a random number of turns of the event loop."""

    random: Random = field(kw_only=True)

    async def _wait(self) -> None:
        for _ in range(self.random.randrange(6)):
            await checkpoint()

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        await self._wait()
        refused = await super().save(records)
        await self._wait()
        return refused

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        await self._wait()
        found = await super().load(*keys)
        await self._wait()
        return found


@define(eq=False)
class Part(OpenRequest):
    """A request that brings one part of the upload."""

    def receive(self, count: int) -> None:
        """Receive that many bytes."""
        missing = PART_BYTES - self.transfer.meter.received_bytes
        if self.transfer.meter.add(min(count, missing)):
            self.upload.check_due(self.transfer)

    @property
    def is_whole(self) -> bool:
        """Whether all its bytes have arrived."""
        return self.transfer.meter.received_bytes == PART_BYTES

    def end(self, result: TransferResult = TransferResult.ACCEPTED) -> None:
        """End with that result."""
        self.upload.end_body(self.transfer)
        outcomes.end_transfer(self.upload, self.transfer, TransferOutcome(result))


def open_part(worker: TrackerInternals, number: int, upload_id: str = "up") -> Part:
    """Begin the request for a part."""
    head = TransferHead(
        "content-range",
        TransferKind.BYTES,
        f"/{upload_id}",
        offset=number * PART_BYTES,
        length=PART_BYTES,
        total_bytes=TOTAL_BYTES,
        is_sequential=False,
        resource_is_unique=False,
        completes_at_total=True,
    )
    opened = worker.admission.open_transfer(
        head,
        ContentRange(),
        requested_id=upload_id,
        is_proxied=False,
        total_bytes=TOTAL_BYTES,
        filename=None,
    )
    part = Part(opened)
    assert worker.admission.admit(opened, ANN)
    part.upload.begin(part.transfer)
    return part


@define(eq=False)
class World:
    """Two workers with a common store and a common publisher."""

    random: Random
    clock: FakeClock = field(factory=FakeClock)
    publisher: RecordingPublisher = field(factory=RecordingPublisher)
    stores: list[InterleavedStore] = field(init=False)
    trackers: list[ProgressTracker] = field(init=False)
    workers: list[TrackerInternals] = field(init=False)

    def __attrs_post_init__(self) -> None:
        memory = MemoryStore(clock=self.clock)
        self.stores = [InterleavedStore(memory, random=self.random) for _ in range(2)]
        self.trackers = [
            ProgressTracker(store=store, publisher=self.publisher, clock=self.clock)
            for store in self.stores
        ]
        self.workers = [internals_of(tracker) for tracker in self.trackers]

    async def report(self, *workers: int) -> None:
        """Let a tenth of a second pass, in which these workers report one after the other."""
        self.clock.advance(0.1)
        for number in workers:
            await self.workers[number].background.ticker.tick()
            await self.workers[number].flusher.flush()

    async def report_at_once(self) -> None:
        """Let a tenth of a second pass, in which both workers report at the same time."""
        self.clock.advance(0.1)
        async with anyio.create_task_group() as tasks:
            for worker in self.workers:
                await worker.background.ticker.tick()
                tasks.start_soon(worker.flusher.flush)

    @property
    def ends(self) -> list[str]:
        """The ids of the events that tell of an end."""
        return [event.id for event in self.publisher.events if is_final(event.data.state)]


@pytest.mark.parametrize("seed", range(SEQUENCES))
async def test_one_event_id_has_one_content_and_one_worker_publishes_the_end(seed: int) -> None:
    random = Random(seed)  # noqa: S311  # deterministic, not secret
    world = World(random)
    running = [open_part(world.workers[number % 2], number) for number in range(PARTS)]
    while running:
        for part in list(running):
            part.receive(random.randrange(40))
            if part.is_whole:
                part.end()
                running.remove(part)
        await world.report_at_once()
    for _ in range(10):
        await world.report_at_once()
    for worker in world.workers:
        # As the event of the end makes them do.
        await worker.background.reconciler.check_all()
    for _ in range(30):
        await world.report_at_once()

    contents: dict[str, object] = {}
    for event in world.publisher.events:
        assert contents.setdefault(event.id, event.data) == event.data
    [end] = world.ends
    last = max(world.publisher.events, key=lambda event: event.data.sequence)
    assert (last.id, last.data.bytes_transferred) == (end, TOTAL_BYTES)
    for tracker in world.trackers:
        shown = await tracker.get("up", owner="ann")
        assert (shown.state, shown.bytes_transferred) == (UploadState.COMPLETED, TOTAL_BYTES)
        # No worker has stored another version after the end.
        assert f"up/{shown.attempt}/{shown.sequence}" == end


@pytest.fixture
def world() -> World:
    return World(Random(0))  # noqa: S311  # deterministic, not secret


async def test_upload_that_two_workers_have_completed_has_one_end(world: World) -> None:
    parts = [open_part(worker, number) for number, worker in enumerate(world.workers)]
    await world.report(0, 1)
    for part in parts:
        part.receive(PART_BYTES)
        part.end(TransferResult.COMPLETED)
        world.clock.advance(0.01)
    await world.report(0)
    await world.report(1)
    await world.report(0, 1)

    assert len(world.ends) == 1


async def test_without_the_store_a_worker_publishes_what_it_alone_receives(world: World) -> None:
    parts = [open_part(worker, number) for number, worker in enumerate(world.workers)]
    await world.report(1, 0)
    alone = open_part(world.workers[0], 2, "alone")
    await world.report(0)
    world.stores[0].fault = "raise"
    del world.publisher.events[:]

    for part in [*parts, alone]:
        part.receive(PART_BYTES)
    await world.report(0)
    await world.report(0)

    [event] = world.publisher.events
    assert (event.subject, event.data.bytes_transferred) == ("alone", PART_BYTES)


async def test_worker_that_does_not_report_the_end_leaves_it_to_the_other(world: World) -> None:
    """Both know that nothing is missing; the one that would complete it reports nothing more."""
    parts = [open_part(world.workers[number % 2], number) for number in range(PARTS)]
    await world.report(0, 1)
    last = max(parts, key=lambda part: part.upload.transfer_id)
    stopped, going_on = (1, 0) if last.opened in world.workers[0].registry.everything() else (0, 1)
    for part in parts:
        part.receive(PART_BYTES)
        part.end()
    await world.report(stopped)
    for _ in range(10):
        await world.report(going_on)

    assert len(world.ends) == 1
