"""Leases accuse only the dead: outages, and workers that stand still, end no upload wrongly.

Several workers with one clock and one store: hours pass in milliseconds, and the store can be taken
away from all of them, or from one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest
from attrs import define, evolve, field

from tests._support.records import record
from tests._support.simulation import ANN
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.models import ErrorCode, TransferRecord, UploadKey
from upload_progress._model.state import is_final
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.backends import MemoryPublisher
from upload_progress.testing import FakeClock, Fault, FaultyStore, RecordingPublisher

pytestmark = pytest.mark.anyio

S = UploadState
UPLOADS = 10
SIZE = 1000


@define(eq=False)
class SimulatedWorker:
    """A worker: a tracker whose work is done when the cluster lets it run."""

    store: FaultyStore
    tracker: ProgressTracker
    is_standing_still: bool = False

    def begin(self, upload_id: str) -> LiveUpload:
        admission = internals_of(self.tracker).admission
        live = admission.open(requested_id=upload_id, total_bytes=SIZE)
        assert admission.admit(live, ANN)
        live.begin()
        return live

    async def run_once(self, step: int) -> None:
        """Do what the background tasks do in a tenth of a second."""
        if self.is_standing_still:
            return
        internals = internals_of(self.tracker)
        await internals.background.ticker.tick()
        await internals.flusher.flush()
        if step % 10 == 0:
            await internals.reaper.run_once()
        if step % 150 == 0:
            await internals.background.reconciler._compare(30.0)


@define(eq=False)
class SimulatedCluster:
    """Workers that share a clock, a store and a broker."""

    clock: FakeClock = field(factory=FakeClock)
    memory: MemoryStore = field(init=False)
    publisher: RecordingPublisher = field(factory=RecordingPublisher)
    workers: list[SimulatedWorker] = field(init=False)
    _steps: int = 0

    def __attrs_post_init__(self) -> None:
        self.memory = MemoryStore(clock=self.clock)
        self.workers = [self.add_worker() for _ in range(3)]

    def add_worker(self) -> SimulatedWorker:
        store = FaultyStore(self.memory)
        tracker = ProgressTracker(
            store=store,
            publisher=self.publisher,
            subscriber=MemoryPublisher(),
            clock=self.clock,
        )
        return SimulatedWorker(store, tracker)

    async def run(self, seconds: float) -> None:
        """Let that many seconds pass. The workers do not run at the same moments."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self._steps += 1
            for number, worker in enumerate(self.workers):
                await worker.run_once(self._steps + 3 * number)

    async def shown(self, upload_id: str, worker: SimulatedWorker) -> UploadProgress:
        return await worker.tracker.get(upload_id, owner="ann")

    async def stored(self, upload_id: str) -> TransferRecord:
        [record] = await self.memory.load(UploadKey("ann", upload_id))
        return record

    async def lose(self, *upload_ids: str) -> None:
        """Let the store forget the newest versions of these uploads: it has their beginnings."""
        for upload_id in upload_ids:
            self.memory._drop(self.memory._owners["ann"][upload_id])

    def events(self, upload_id: str) -> list[UploadProgress]:
        return [event.data for event in self.publisher.events if event.subject == upload_id]

    def check_events(self) -> None:
        """Check that no id of an event has two contents, and that nothing follows an end."""
        contents = dict[str, UploadProgress]()
        ended = defaultdict[tuple[str, int], UploadState](lambda: S.PENDING)
        for event in self.publisher.events:
            progress, attempt = event.data, (event.subject, event.data.attempt)
            assert contents.setdefault(event.id, progress) == progress
            assert not is_final(ended[attempt]) or ended[attempt] is progress.state
            ended[attempt] = progress.state


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster()


def finish(live: LiveUpload) -> None:
    live.meter.received_bytes = SIZE
    live.end_body()
    outcomes.finish(live, 201)


@pytest.mark.parametrize("seconds", [5, 11, 20, 40])
@pytest.mark.parametrize("fault", ["raise", "hang"])
async def test_outage_of_the_store_ends_no_upload(
    cluster: SimulatedCluster, seconds: float, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a lease or not; the workers come back at different moments."""
    monkeypatch.setattr("upload_progress._runtime.circuit_breaker.CALL_SECONDS", 0.001)
    lives = [
        (worker, worker.begin(f"{number}-{index}"))
        for number, worker in enumerate(cluster.workers)
        for index in range(UPLOADS)
    ]
    await cluster.run(5)
    for worker in cluster.workers:
        worker.store.fault = fault
    await cluster.run(seconds)
    for worker in cluster.workers:
        worker.store.fault = None
        await cluster.run(0.7)
    newcomer = cluster.add_worker()
    cluster.workers.append(newcomer)
    await cluster.run(30)

    for _, live in lives:
        assert (await cluster.shown(live.upload_id, newcomer)).state is S.RECEIVING
        finish(live)
    await cluster.run(2)

    for _, live in lives:
        for worker in cluster.workers:
            shown = await cluster.shown(live.upload_id, worker)
            assert (shown.state, shown.attempt, shown.bytes_transferred) == (S.COMPLETED, 1, SIZE)
    cluster.check_events()


async def test_store_that_only_reads_ends_no_upload(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis without memory refuses writes, also the renewal of leases."""
    one, other, _ = cluster.workers
    live = one.begin("up")
    await cluster.run(3)

    async def refuse(*_: object, **__: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "save", refuse)
        patch.setattr(MemoryStore, "renew", refuse)
        await cluster.run(40)
        newcomer = cluster.add_worker()
        assert (await cluster.shown("up", newcomer)).state is S.RECEIVING
    await cluster.run(20)

    assert (await cluster.shown("up", other)).state is S.RECEIVING
    assert live.state is S.RECEIVING


async def test_uploads_of_a_dead_worker_end_within_20_seconds(cluster: SimulatedCluster) -> None:
    dead, other, _ = cluster.workers
    dead.begin("up")
    await cluster.run(7)
    dead.is_standing_still = True
    await cluster.run(18)

    ended = await cluster.shown("up", other)
    assert ended.error is not None
    assert ended.error.code is ErrorCode.WORKER_LOST
    assert [each for each in cluster.events("up") if is_final(each.state)] == [ended]


async def test_worker_that_died_during_an_outage_is_found(cluster: SimulatedCluster) -> None:
    """A lease and a bit after the store is back."""
    dead, other, _ = cluster.workers
    dead.begin("up")
    await cluster.run(3)
    for worker in cluster.workers:
        worker.store.fault = "raise"
    await cluster.run(30)
    dead.is_standing_still = True
    for worker in cluster.workers:
        worker.store.fault = None
    await cluster.run(25)

    assert (await cluster.shown("up", other)).state is S.FAILED


Change = Callable[[LiveUpload], None]


@pytest.mark.parametrize("change", [finish, LiveUpload.cancel, None])
async def test_worker_that_stood_still_overrules_its_own_death(
    cluster: SimulatedCluster, change: Change | None
) -> None:
    """Whether the upload goes on, or ends, at the moment when the worker goes on."""
    still, other, _ = cluster.workers
    live = still.begin("up")
    await cluster.run(5)
    still.is_standing_still = True
    await cluster.run(25)
    lost = await cluster.shown("up", other)
    assert (lost.state, lost.attempt) == (S.FAILED, 1)
    if change is not None:
        change(live)
    still.is_standing_still = False
    await cluster.run(3)
    if change is None:
        assert (await cluster.shown("up", other)).state is S.RECEIVING
        finish(live)
        await cluster.run(2)

    ends = [await cluster.shown("up", worker) for worker in cluster.workers]
    assert ends[0] == ends[1] == ends[2] == cluster.events("up")[-1]
    assert ends[0].attempt == 2
    assert ends[0].state is (S.CANCELLED if change is LiveUpload.cancel else S.COMPLETED)
    assert ends[0].sequence > lost.sequence
    cluster.check_events()


async def test_worker_without_the_store_publishes_nothing_after_its_lease(
    cluster: SimulatedCluster,
) -> None:
    """The broker still accepts its events; but others have published the end of its uploads."""
    alone, other, _ = cluster.workers
    live = alone.begin("up")
    await cluster.run(3)
    alone.store.fault = "raise"
    for _ in range(40):
        live.meter.add(1)
        live.mark_due()
        await cluster.run(1)
    assert (await cluster.shown("up", other)).state is S.FAILED
    alone.store.fault = None
    await cluster.run(10)
    finish(live)
    await cluster.run(2)

    assert (await cluster.shown("up", other)).state is S.COMPLETED
    cluster.check_events()


async def test_lost_end_is_written_again(cluster: SimulatedCluster) -> None:
    """A server that restarts may lack what it has acknowledged."""
    one, other, _ = cluster.workers
    live = one.begin("up")
    await cluster.run(3)
    before = await cluster.stored("up")
    finish(live)
    await cluster.run(3)
    end = await cluster.shown("up", other)
    await cluster.lose("up")
    await cluster.memory.save([before])
    assert (await cluster.shown("up", other)).state is S.RECEIVING
    await cluster.run(16)

    assert await cluster.shown("up", other) == end
    cluster.check_events()


async def test_lost_end_is_written_after_others_have_ended_the_upload(
    cluster: SimulatedCluster,
) -> None:
    one, other, _ = cluster.workers
    live = one.begin("up")
    await cluster.run(3)
    before = await cluster.stored("up")
    finish(live)
    await cluster.run(3)
    one.is_standing_still = True
    await cluster.lose("up")
    await cluster.memory.save([before])
    await cluster.run(20)
    assert (await cluster.shown("up", other)).state is S.FAILED
    one.is_standing_still = False
    await cluster.run(3)

    shown = await cluster.shown("up", other)
    assert (shown.state, shown.attempt) == (S.COMPLETED, 2)
    assert shown == await cluster.shown("up", one) == cluster.events("up")[-1]


@pytest.mark.parametrize("seconds", [10, 250])
async def test_uploads_that_the_store_has_lost_are_written_after_an_outage(
    cluster: SimulatedCluster, seconds: float
) -> None:
    """Those that are received and do not change, and those that have ended not long ago."""
    one, other, _ = cluster.workers
    live, silent = one.begin("up"), one.begin("silent")
    await cluster.run(2)
    finish(live)
    await cluster.run(seconds)
    for worker in cluster.workers:
        worker.store.fault = "raise"
    await cluster.run(3)
    await cluster.lose("up", "silent")
    for worker in cluster.workers:
        worker.store.fault = None
    await cluster.run(8)

    assert (await cluster.shown("up", other)).state is S.COMPLETED
    assert (await cluster.shown("silent", other)).state is S.RECEIVING
    assert silent.state is S.RECEIVING


async def test_upload_that_its_worker_does_not_receive_is_ended(
    cluster: SimulatedCluster,
) -> None:
    """Its end was lost, and is not remembered."""
    one, other, _ = cluster.workers
    live = one.begin("up")
    await cluster.run(3)
    before = await cluster.stored("up")
    finish(live)
    await cluster.run(3)
    internals_of(one.tracker).flusher.ends.forget(before.key)
    await cluster.lose("up")
    await cluster.memory.save([before])
    await cluster.run(32)

    shown = await cluster.shown("up", other)
    assert shown.error is not None
    assert (shown.error.code, shown.attempt) == (ErrorCode.WORKER_LOST, 1)


async def test_end_of_an_upload_that_was_received_again_is_not_written(
    cluster: SimulatedCluster,
) -> None:
    """Another worker has its next attempt, which is lost as well, or not."""
    one, other, _ = cluster.workers
    finish(one.begin("up"))
    await cluster.run(2)
    other.begin("up")
    await cluster.run(32)

    shown = await cluster.shown("up", one)
    assert (shown.state, shown.attempt) == (S.RECEIVING, 2)


async def test_end_that_is_refused_is_not_published(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer attempt was stored at the same moment."""
    one, _, _ = cluster.workers
    finish(one.begin("up"))
    await cluster.run(2)
    before = len(cluster.events("up"))
    await cluster.lose("up")

    async def refuse(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        return records

    with monkeypatch.context() as patch:
        patch.setattr(one.store, "save", refuse)
        await internals_of(one.tracker).background.reconciler.check_all()
    await cluster.run(1)

    assert len(cluster.events("up")) == before


async def test_own_part_of_an_upload_that_ended_elsewhere_is_left_alone(
    cluster: SimulatedCluster,
) -> None:
    """The record of a worker may say that it receives an upload which another one has completed."""
    one, other, _ = cluster.workers
    part = record("up", worker=one.tracker.worker, transfer_id="a", protocol="s3")
    whole = evolve(part, worker=None, transfer_id="b", state=S.COMPLETED, finished_at=5.0)
    await cluster.memory.save([part])
    reconciler = internals_of(one.tracker).background.reconciler
    reconciler._absent = {part.key}
    await cluster.memory.save([whole])

    assert reconciler._end_of(part.key, [part, whole]) is None
    ended = reconciler._end_of(part.key, [part, evolve(part, worker=other.tracker.worker)])
    assert ended is not None
    assert ended.state is S.PAUSED
