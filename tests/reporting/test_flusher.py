"""Reports: how many there are, and the effect of failing backends and overlapping passes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import ANN, Simulation, assert_monotonic, deadline
from upload_progress import (
    EveryBytes,
    ProgressTracker,
    StoreUnavailable,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress._model.state import is_final
from upload_progress._model.version import MAX_UNSTORED_VERSIONS, SKIPPED_VERSIONS
from upload_progress._reporting import flusher as flusher_module
from upload_progress._reporting import outbox as outbox_module
from upload_progress._tracking import outcomes
from upload_progress._tracking.status import Reporting
from upload_progress.protocols import TransferHead, TransferKind, Tus
from upload_progress.testing import Fault, FaultyStore
from upload_progress.throttling import Gate, ThrottlePolicy

T = TypeVar("T")

pytestmark = pytest.mark.anyio

S = UploadState


# --- number of reports ----------------------------------------------------------------------------


async def test_fast_upload_is_one_event_and_one_write(sim: Simulation) -> None:
    """It ends within the flush interval."""
    live = sim.begin("up", total=1000)
    for _ in range(10):
        sim.clock.advance(0.003)
        sim.add(live, 100)
        await sim.internals.flusher.flush()
    live.end_body()
    outcomes.finish(live, 201)
    await sim.run(1)

    [event], [record] = sim.events("up"), sim.writes("up")
    assert event.state is S.COMPLETED
    assert (event.percent, record.sequence) == (100.0, 1)


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("milliseconds", [0, 30, 99, 101, 500, 900, 5000])
async def test_writes_are_few_and_a_flush_interval_apart(
    sim: Simulation, *, is_watched: bool, milliseconds: int
) -> None:
    """An upload without pauses needs 12 writes at most, one shorter than 100 ms needs 3."""
    subscription = sim.subscription() if is_watched else None
    started = sim.clock.monotonic()
    live = sim.begin("up", total=10_000)
    write_times: list[float] = []
    for _ in range(1000):
        sim.add(live, 10)
        sim.clock.advance(milliseconds / 1_000_000)
        await sim.internals.background.ticker.tick()
        before = len(sim.writes("up"))
        await sim.internals.flusher.flush()
        write_times += [sim.clock.monotonic()] * (len(sim.writes("up")) - before)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)

    writes = sim.writes("up")
    assert len(writes) <= (3 if milliseconds < 100 else 12 + milliseconds // 1000)
    gaps = [b - a for a, b in zip([started - 1, *write_times], write_times, strict=False)]
    assert all(gap >= 0.0999 for gap in gaps)
    assert writes[-1].state is S.COMPLETED
    assert_monotonic(sim.events("up"))
    if subscription is not None:
        assert subscription.take()[-1].progress.state is S.COMPLETED


async def test_reports_for_watchers_alone_are_neither_stored_nor_published(
    sim: Simulation,
) -> None:
    """Those of the policy go on as if nobody watched."""
    subscription = sim.subscription()
    live = sim.begin("up", total=1_000_000)
    seen: list[UploadProgress] = []
    for _ in range(100):
        sim.add(live, 10)
        await sim.run(0.1)
        seen += [update.progress for update in subscription.take()]

    stored = [record.sequence for record in sim.writes("up")]
    assert 30 <= len(seen) <= 41
    assert 10 <= len(stored) <= 12
    assert stored == [event.sequence for event in sim.events("up")]
    assert {each.sequence for each in seen} > set(stored)
    assert_monotonic(seen)
    subscription.close()


async def test_change_that_comes_with_a_report_for_watchers_is_stored(sim: Simulation) -> None:
    """The last byte, a tenth, and the end, each right after such a report fell due."""
    subscription = sim.subscription()
    live = sim.begin("up", total=1000)
    await sim.run(0.5)
    sim.add(live, 10)
    assert live.reporting is Reporting.DUE_HERE
    sim.add(live, 90)
    await sim.run(0.1)
    assert sim.writes("up")[-1].received_bytes == 100

    await sim.run(0.5)
    sim.add(live, 10)
    assert live.reporting is Reporting.DUE_HERE
    live.end_body()
    await sim.run(0.1)
    assert sim.writes("up")[-1].state is S.PROCESSING
    subscription.close()


async def test_number_of_versions_that_are_not_stored_is_limited() -> None:
    """However rarely the policy reports."""
    sim = Simulation(policy=EveryBytes(1_000_000))
    subscription = sim.subscription()
    live = sim.begin("up", total=2_000_000)
    for _ in range(1000):
        sim.add(live, 10)
        await sim.run(0.1)

    stored = [record.sequence for record in sim.writes("up")]
    assert len(stored) >= 3
    gaps = [after - before for before, after in pairwise([*stored, live.sequence])]
    assert max(gaps) == MAX_UNSTORED_VERSIONS + 1
    assert MAX_UNSTORED_VERSIONS < SKIPPED_VERSIONS
    subscription.close()


async def test_every_tenth_of_a_slow_upload_is_reported(sim: Simulation) -> None:
    live = sim.begin("up", total=1000)
    for _ in range(100):
        sim.add(live, 10)
        await sim.run(0.2)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(0.3)

    tenths = {int(event.percent or 0) // 10 for event in sim.events("up")}
    assert tenths == set(range(11))
    assert_monotonic(sim.events("up"))


async def test_large_upload_is_reported_every_second(sim: Simulation) -> None:
    """A tenth of 50 GB takes minutes."""
    live = sim.begin("up", total=50_000_000_000)
    for pause_seconds in (0, 3, 12, 0):
        await sim.run(pause_seconds)
        for _ in range(20):
            sim.add(live, 1000)
            before = len(sim.events("up"))
            await sim.run(1.2)
            assert len(sim.events("up")) > before


async def test_upload_of_unknown_size_is_reported_every_eight_mebibytes(
    sim: Simulation,
) -> None:
    live = sim.begin("up")
    await sim.run(0.5)
    first = len(sim.events("up"))
    for _ in range(70):
        sim.add(live, 1024 * 1024)
        await sim.run(0.5)
    events = sim.events("up")[first:]

    assert len(events) == 70 // 8
    assert all(event.percent is None and event.total_bytes is None for event in events)


async def test_small_chunks_are_reported_once_per_gate() -> None:
    sim = Simulation(policy=EveryBytes(1000))
    live = sim.begin("up")
    await sim.run(0.5)
    before = len(sim.writes("up"))
    for _ in range(10):
        for _ in range(1000):
            sim.add(live, 1)
        await sim.run(0.2)

    assert len(sim.writes("up")) - before == 10


async def test_policy_that_raises_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ThrottlePolicy):
        def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
            raise ZeroDivisionError

    sim = Simulation(policy=Broken())
    live = sim.begin("up", total=100)
    for _ in range(10):
        await sim.run(0.5)
        sim.add(live, 10)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(0.5)

    assert len(sim.events("up")) > 5
    assert sim.events("up")[-1].state is S.COMPLETED
    assert len(caplog.records) == 1


# --- failing backends -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["raise", "hang"])
@pytest.mark.usefixtures("short_call_timeout")
async def test_store_outage_delays_writes_only(
    sim: Simulation, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Subscriptions receive all ends, all ends are stored afterwards, and the log stays short."""
    subscription = sim.subscription()
    snapshots = []
    steady = sim.begin("steady", total=1_000_000)
    await sim.run(1)
    sim.store.fault = fault
    for number in range(40):
        live = sim.begin(f"up{number}", total=100)
        sim.add(live, 100)
        sim.add(steady, 1000)
        live.end_body()
        outcomes.finish(live, 200)
        await sim.run(1)
        snapshots += [update.progress for update in subscription.take()]
    ended = {progress.upload_id for progress in snapshots if is_final(progress.state)}
    assert ended == {f"up{number}" for number in range(40)}
    calls = sim.store.calls
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("unknown", owner="ann")
    assert (await sim.tracker.get("steady", owner="ann")).state is S.RECEIVING

    sim.store.fault = None
    await sim.run(10)
    assert sim.store.calls > calls
    for number in range(40):
        stored = await sim.memory.load(UploadKey("ann", f"up{number}"))
        assert [record.state for record in stored] == [S.COMPLETED]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(warnings) <= 2
    assert all("is not available" in record.message for record in warnings)
    assert len(sim.internals.registry) == 1

    repeated = [
        update.progress for update in subscription.take() if is_final(update.progress.state)
    ]
    assert not [progress for progress in repeated if progress.attempt == 1]


async def test_finish_writes_everything_although_the_circuit_is_open(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "PORTION", 3)
    monkeypatch.setattr(outbox_module, "PORTION", 3)
    lives = [sim.begin(f"up{number}") for number in range(7)]
    sim.store.fault = sim.publisher.fault = "raise"
    await sim.run()
    for live in lives:
        live.end_body()
        outcomes.finish(live, 200)
    sim.store.fault = sim.publisher.fault = None

    await sim.internals.flusher.finish()

    assert len(sim.memory) == len(lives)
    assert sim.internals.flusher.is_idle
    last = {event.subject: event.data.state for event in sim.publisher.events}
    assert list(last.values()) == [S.COMPLETED] * len(lives)


@pytest.mark.usefixtures("short_call_timeout")
async def test_backlog_of_failed_backends_is_bounded(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "MAX_UNSAVED", 50)
    monkeypatch.setattr(outbox_module, "MAX_UNPUBLISHED", 50)
    sim.store.fault = sim.publisher.fault = "raise"
    for number in range(300):
        live = sim.begin(f"named{number}" if number % 2 else None, total=100)
        outcomes.client_disconnected(live)
        await sim.run(0.1)

    flusher = sim.internals.flusher
    assert len(flusher._unsaved) + len(flusher._without_prior_state) <= 51
    assert len(flusher.outbox) == 50
    assert len(sim.internals.registry) <= 51
    assert sim.tracker.statistics().ends_dropped >= 249

    sim.store.fault = sim.publisher.fault = None
    await sim.run(40)
    assert sim.is_at_baseline()


# --- passes ---------------------------------------------------------------------------------------


async def test_failed_pass_is_followed_by_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sim = Simulation()
    live = sim.begin("up", total=10)
    with monkeypatch.context() as patch:
        patch.setattr(flusher_module.Flusher, "_report_multi_request", lambda *_: 1 / 0)
        await sim.run(1)
        assert caplog.messages == [
            "a pass of the flusher failed (ZeroDivisionError); uploads are not affected"
        ]
    outcomes.client_disconnected(live)
    await sim.run(1)

    assert sim.events("up")[-1].state is UploadState.FAILED
    assert (await sim.tracker.get("up", owner="ann")).state is UploadState.FAILED
    assert sim.is_at_baseline()


def delay_first_call(
    original: Callable[..., Awaitable[T]], calls: list[object], released: anyio.Event
) -> Callable[..., Awaitable[T]]:
    """Return *original*, whose first call waits until *released* is set."""

    async def call(*arguments: object) -> T:
        calls.append(arguments)
        if len(calls) == 1:
            await released.wait()
        return await original(*arguments)

    return call


async def test_worker_of_the_older_of_two_uploads_publishes_the_end_as_the_next_attempt(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have begun under one id before either was stored, so both are the first attempt."""
    released, saves = anyio.Event(), list[object]()
    monkeypatch.setattr(FaultyStore, "save", delay_first_call(FaultyStore.save, saves, released))
    other = internals_of(ProgressTracker(store=FaultyStore(sim.memory), clock=sim.clock))
    older = sim.begin("up", total=10)
    sim.clock.advance(0.5)
    newer = other.admission.open(requested_id="up", total_bytes=10)
    assert other.admission.admit(newer, ANN)
    newer.begin()
    newer.end_body()
    outcomes.finish(newer, 201)
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(sim.internals.flusher.flush, everything=True))
            while not saves:
                await checkpoint()
            await other.flusher.flush(everything=True)
            released.set()
    await sim.run(1)

    assert older.is_superseded
    end = sim.events("up")[-1]
    assert (end.state, end.attempt) == (S.COMPLETED, 2)


@pytest.mark.parametrize("fault", [None, "raise"])
async def test_overlapping_passes_store_the_newest_version(
    fault: Fault | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without ``lifespan`` the end of each request makes a pass, also while another one waits.

    A version that the second pass could not store must not be dropped by the first.
    """
    sim, released = Simulation(), anyio.Event()
    saves: list[object] = []
    monkeypatch.setattr(FaultyStore, "save", delay_first_call(FaultyStore.save, saves, released))
    live = sim.begin("up", total=10)
    sim.clock.advance(1)
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sim.internals.background.run_once)
            while not saves:
                await checkpoint()
            outcomes.client_disconnected(live)
            sim.store.fault = sim.publisher.fault = fault
            await sim.internals.background.run_once()
            sim.store.fault = sim.publisher.fault = None
            assert len(sim.internals.registry) == (0 if fault is None else 1)
            released.set()
    await sim.run(2)

    assert len(saves) == (2 if fault is None else 3)
    # The first pass publishes no version that the second has made obsolete.
    assert [event.sequence for event in sim.events("up")] == [2]
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    assert stored.state is UploadState.FAILED
    assert sim.is_at_baseline()
    assert not [message for message in caplog.messages if "pass" in message]


# --- ends and events ------------------------------------------------------------------------------


@pytest.mark.parametrize("in_several_requests", [False, True])
async def test_end_is_published_after_it_is_stored(
    sim: Simulation, *, in_several_requests: bool
) -> None:
    """Whoever subscribes after its event reads the store, and must find the end there."""
    if in_several_requests:
        head, admission = TransferHead("tus", TransferKind.CREATE), sim.internals.admission
        live = admission.open_transfer(head, Tus(), requested_id="up", is_proxied=False)
        assert admission.admit(live, ANN)
        live.begin()
    else:
        live = sim.begin("up", total=10)
    await sim.run(0.5)
    sim.store.fault = "raise"
    live.cancel()
    await sim.run(0.5)
    assert S.CANCELLED not in [each.state for each in sim.events("up")]

    sim.store.fault = None
    await sim.run(10)

    assert [each.state for each in sim.events("up")][-1] is S.CANCELLED
    assert sim.is_at_baseline()


async def test_event_of_a_pass_that_is_cancelled_is_published_later(sim: Simulation) -> None:
    sim.begin("up", total=10)
    sim.publisher.fault = "hang"
    with anyio.move_on_after(0.05):
        await sim.internals.flusher.flush(everything=True)

    sim.publisher.fault = None
    await sim.run(1)

    assert [each.state for each in sim.events("up")] == [S.RECEIVING]


async def test_end_that_cannot_be_stored_is_published_when_the_worker_stops(
    sim: Simulation,
) -> None:
    live = sim.begin("up", total=10)
    await sim.run(0.5)
    sim.store.fault = "raise"
    live.cancel()

    await sim.internals.flusher.finish()

    assert [each.state for each in sim.events("up")][-1] is S.CANCELLED
