"""What is measured of uploads: their ends, their bytes, and how long reports take."""

from __future__ import annotations

import pytest
from attrs import define, field

from tests._support.simulation import ANN, ENDINGS, Simulation, deadline, end_upload
from upload_progress import Arrival, ErrorCode, MemoryStore, ProgressTracker, Upload, UploadState
from upload_progress._internals import internals_of
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.measurements import (
    Distribution,
    Histogram,
    UploadObserver,
)
from upload_progress._tracking.status import PriorState
from upload_progress.backends import MemoryPublisher
from upload_progress.protocols import RequestHead

pytestmark = pytest.mark.anyio

S = UploadState


def counts_of(sim: Simulation, distribution: Distribution) -> int:
    """Return how many values of a distribution were measured."""
    return sum(sim.internals.measurements.histograms[distribution].counts)


@define(eq=False)
class Recorder(UploadObserver):
    """Records what it is notified of."""

    calls: list[str] = field(factory=list)

    def on_tracked(self, upload: LiveUpload) -> None:
        self.calls.append(f"tracked {upload.upload_id}")

    def on_end(self, upload: LiveUpload) -> None:
        self.calls.append(f"end {upload.state}")

    def on_removed(self, upload: LiveUpload) -> None:
        self.calls.append(f"removed {upload.upload_id}")


class Failing(UploadObserver):
    def on_tracked(self, upload: LiveUpload) -> None:
        raise ZeroDivisionError


def test_bound_of_a_bucket_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 2.5):
        histogram.add(value)

    assert histogram.counts == [2, 1, 1]
    assert histogram.total == 5.5


@pytest.mark.parametrize("ending", ENDINGS)
async def test_end_is_counted_by_state_and_error_code(ending: str) -> None:
    sim = Simulation()
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    sim.clock.advance(4)
    end_upload(live, ending)
    during = sim.tracker.statistics()
    await sim.run(1)
    after = sim.tracker.statistics()

    assert during.uploads_ended == after.uploads_ended == {ENDINGS[ending]: 1}
    assert during.received_bytes == after.received_bytes == 10
    assert after.accepted_bytes == (10 if ending == "completed" else 0)
    assert during.open_uploads == dict.fromkeys((S.PENDING, S.RECEIVING, S.PAUSED, S.PROCESSING), 0)
    assert (during.live_uploads, after.live_uploads) == (1, 0)
    histograms = sim.internals.measurements.histograms
    assert histograms[Distribution.DURATION].total == 4
    assert histograms[Distribution.RATE].total == 2.5


async def test_open_uploads_are_counted_by_state() -> None:
    sim = Simulation()
    first, second = sim.begin("first", total=100), sim.begin("second", total=7)
    sim.add(first, 30)
    sim.add(second, 7)
    second.end_body()
    await sim.run(31)
    statistics = sim.tracker.statistics()

    assert (statistics.open_uploads[S.RECEIVING], statistics.open_uploads[S.PROCESSING]) == (1, 1)
    assert (statistics.open_bytes, statistics.received_bytes) == (37, 37)
    assert statistics.stalled_uploads == 1


async def test_upload_without_duration_has_no_rate() -> None:
    sim = Simulation()
    end_upload(sim.begin("up"), "completed")

    assert counts_of(sim, Distribution.DURATION) == 1
    assert counts_of(sim, Distribution.RATE) == 0


async def test_upload_that_has_ended_elsewhere_is_not_counted() -> None:
    sim = Simulation()
    live = sim.begin("up")
    live.prior_state = PriorState.ENDED
    outcomes.client_disconnected(live)

    assert sim.tracker.statistics().uploads_ended == {}


async def test_upload_that_ends_before_its_owner_is_known_is_counted() -> None:
    sim = Simulation()
    admission = sim.internals.admission
    live = admission.open(requested_id="up")
    live.begin()
    sim.add(live, 5)
    end_upload(live, "completed")
    before = sim.tracker.statistics()
    assert admission.admit(live, ANN)
    after = sim.tracker.statistics()

    assert before.uploads_ended == {}
    assert after.uploads_ended == {(S.COMPLETED, None): 1}
    assert (before.received_bytes, after.received_bytes) == (0, 5)


async def test_upload_that_a_proxy_has_held_back_is_counted() -> None:
    sim = Simulation()
    live = sim.internals.admission.open_request(RequestHead(requested_id="up", is_proxied=True))
    assert sim.internals.admission.admit(live, ANN)
    live.begin()
    sim.add(live, 2**20)
    end_upload(live, "completed")

    assert sim.tracker.statistics().arrivals == {Arrival.BUFFERED: 1}


async def test_redirected_upload_keeps_its_received_bytes() -> None:
    sim = Simulation()
    first = sim.begin("up", total=10)
    sim.add(first, 10)
    first.end_body()
    outcomes.finish(first, 307)
    await sim.run(1)
    second = sim.begin("up", total=10)
    sim.add(second, 10)
    end_upload(second, "completed")
    await sim.run(1)
    statistics = sim.tracker.statistics()

    assert (statistics.received_bytes, statistics.accepted_bytes) == (20, 10)
    assert statistics.uploads_ended == {(S.COMPLETED, None): 1}


async def test_upload_that_is_handed_over_ends_with_its_task() -> None:
    sim = Simulation()
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    token = await Upload(live).hand_over()
    live.end_body()
    outcomes.finish(live, 202)
    await sim.run(1)
    handed_over = sim.tracker.statistics()
    async with sim.tracker.resume(token):
        resumed = sim.tracker.statistics()
    done = sim.tracker.statistics()

    assert handed_over.uploads_ended == {}
    assert resumed.open_uploads[S.PROCESSING] == 1
    assert done.uploads_ended == {(S.COMPLETED, None): 1}
    assert [each.received_bytes for each in (handed_over, resumed, done)] == [10, 10, 10]
    assert done.accepted_bytes == 10


async def test_uploads_that_end_in_the_store_are_counted() -> None:
    sim = Simulation()
    cancelled = await sim.tracker.announce(owner="ann")
    await sim.tracker.announce(owner="ann")
    await sim.tracker.cancel(cancelled.upload_id, owner="ann")
    sim.clock.advance(25 * 3600)
    await sim.run(1)

    assert sim.tracker.statistics().uploads_ended == {
        (S.CANCELLED, ErrorCode.CANCELLED_BY_OWNER): 1,
        (S.FAILED, ErrorCode.EXPIRED): 1,
    }
    assert sim.tracker.statistics().reaped == 1


async def test_lag_of_a_watched_upload_is_the_time_until_its_report() -> None:
    sim = Simulation()
    sim.begin("unwatched")
    subscription = sim.subscription("up")
    sim.begin("up")
    sim.clock.advance(0.2)
    await sim.internals.flusher.flush()
    subscription.close()

    histograms = sim.internals.measurements.histograms
    assert histograms[Distribution.LAG].total == pytest.approx(0.2)
    assert counts_of(sim, Distribution.LAG) == 1
    assert counts_of(sim, Distribution.FLUSH) == 1


async def test_lag_of_updates_from_other_workers_is_measured() -> None:
    memory, broker = MemoryStore(), MemoryPublisher()
    here, there = (ProgressTracker(store=memory, publisher=broker) for _ in range(2))
    with deadline():
        async with here.lifespan(), there.lifespan():
            announced = await there.announce(owner="ann")
            async with here.watch(announced.upload_id, owner="ann") as watch:
                await anext(watch)
                async with there.track(owner="ann", upload_id=announced.upload_id):
                    assert (await anext(watch)).state is S.RECEIVING

    assert sum(internals_of(here).measurements.histograms[Distribution.LAG].counts) > 0


async def test_subscriptions_are_counted_by_transport() -> None:
    sim = Simulation()
    subscription = sim.subscription("up")
    before = sim.tracker.statistics().subscriptions_by_transport
    subscription.close()

    assert before == {"iterator": 1}
    assert sim.tracker.statistics().subscriptions_by_transport == {}


async def test_observer_that_fails_affects_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sim, recorder = Simulation(), Recorder()
    sim.internals.measurements.observers += [Failing(), recorder]
    end_upload(sim.begin("up"), "completed")
    await sim.run(1)

    assert recorder.calls == ["tracked up", "end completed", "removed up"]
    assert caplog.messages == [
        "measuring an upload failed (ZeroDivisionError); uploads are not affected"
    ]


def test_observers_stay_after_a_fork_and_counts_do_not() -> None:
    tracker, recorder = ProgressTracker(), Recorder()
    internals = internals_of(tracker)
    internals.measurements.observers.append(recorder)
    internals.measurements.count_end(S.COMPLETED, None)
    internals.start_again()

    assert internals.measurements.observers == [recorder]
    assert tracker.statistics().uploads_ended == {}


async def test_backend_with_several_roles_has_one_circuit() -> None:
    statistics = ProgressTracker(publisher=MemoryPublisher()).statistics()

    assert statistics.open_circuits == {"store": False, "publisher": False}
    assert statistics.backend_failures == {"store": 0, "publisher": 0}
    assert ProgressTracker().statistics().open_circuits == {"store": False}
