"""``ProgressTracker`` as an application uses it, with and without ``lifespan``."""

from __future__ import annotations

import gc
import os
import random
import weakref
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import (
    ANN,
    ENDINGS,
    Simulation,
    collect_snapshots,
    deadline,
    end_upload,
    until,
)
from upload_progress import (
    ErrorCode,
    InvalidValue,
    Limits,
    ProgressTracker,
    QuotaExceeded,
    Retention,
    TrackerInUse,
    UploadCancelled,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress._tracking import outcomes
from upload_progress.testing import RecordingPublisher

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture(params=["with lifespan", "without lifespan"])
def is_running(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "with lifespan")


def test_repr_shows_no_secrets() -> None:
    assert repr(ProgressTracker()) == "<ProgressTracker /uploads 0 live uploads>"


# --- lifespan -------------------------------------------------------------------------------------


async def track_and_watch(
    tracker: ProgressTracker, snapshots: list[UploadProgress], subscriptions: int
) -> None:
    """Track an upload in three steps, while *subscriptions* watch it."""
    async with (
        anyio.create_task_group() as tasks,
        tracker.track(owner="ann", upload_id="up", total_bytes=100) as upload,
    ):
        for _ in range(subscriptions):
            tasks.start_soon(collect_snapshots, tracker, snapshots, "up")
        await until(lambda: len(snapshots) >= subscriptions)
        for _ in range(10):
            upload.advance(10)
        await until(lambda: len(snapshots) >= 2 * subscriptions)
        async with upload.stage("hashing", total=2) as stage:
            stage.advance()


async def test_watchers_receive_the_end_of_an_upload(*, is_running: bool) -> None:
    tracker, snapshots = ProgressTracker(), list[UploadProgress]()
    with deadline():
        if is_running:
            async with tracker.lifespan():
                assert tracker.is_running
                await track_and_watch(tracker, snapshots, 3)
        else:
            await track_and_watch(tracker, snapshots, 3)

    assert [each.state for each in snapshots].count(S.COMPLETED) == 3
    assert len(internals_of(tracker).hub) == 0
    assert tracker.statistics().live_uploads == 0
    assert not tracker.is_running


async def test_background_work_moves_to_lifespan_and_back() -> None:
    """A task that waits does the work before and after."""
    tracker = ProgressTracker()
    subscription = internals_of(tracker).subscribe()
    subscription.add_owner("ann")
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(internals_of(tracker).wait, subscription)
            await until(internals_of(tracker).background._work_lock.locked)
            async with tracker.lifespan():
                other = internals_of(tracker).subscribe()
                other.add_owner("ann")
                await tracker.announce(owner="ann")
                assert await internals_of(tracker).wait(other)
            last = internals_of(tracker).subscribe()
            last.add_owner("ann")
            await tracker.announce(owner="ann")
            assert await internals_of(tracker).wait(last)


async def test_cancelled_wait_loses_no_update(*, is_running: bool) -> None:
    tracker = ProgressTracker()
    subscription = internals_of(tracker).subscribe()
    subscription.add_owner("ann")

    async def cancel_and_wait() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await internals_of(tracker).wait(subscription)
        await tracker.announce(owner="ann")
        assert len(await internals_of(tracker).wait(subscription)) == 1

    with deadline():
        if is_running:
            async with tracker.lifespan():
                await cancel_and_wait()
        else:
            await cancel_and_wait()


async def test_stop_delivers_the_last_snapshot_and_ends_watches() -> None:
    tracker, snapshots = ProgressTracker(), list[UploadProgress]()
    with deadline():
        async with anyio.create_task_group() as tasks, tracker.lifespan():
            live = internals_of(tracker).admission.open(requested_id="up")
            internals_of(tracker).admission.admit(live, ANN)
            live.begin()
            tasks.start_soon(collect_snapshots, tracker, snapshots, "up")
            await until(lambda: snapshots)
            outcomes.client_disconnected(live)
    assert snapshots[-1].state is S.FAILED
    assert (await tracker.get("up", owner="ann")).state is S.FAILED


async def test_tracker_cannot_be_entered_twice_at_once() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        with pytest.raises(TrackerInUse):
            await tracker.lifespan().__aenter__()
    async with tracker.lifespan():
        pass


async def test_error_of_the_application_is_raised_unchanged() -> None:
    tracker = ProgressTracker()

    async def run() -> None:
        async with tracker.lifespan():
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await run()
    assert not tracker.is_running


async def test_forked_process_is_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = ProgressTracker()
    name = tracker.worker
    assert tracker.worker == name
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert tracker.worker != name


# --- track ----------------------------------------------------------------------------------------


async def test_block_that_raises_fails_the_upload() -> None:
    tracker = ProgressTracker(publisher=RecordingPublisher())

    async def run() -> None:
        async with tracker.track(owner="ann", upload_id="up"):
            raise KeyError

    with pytest.raises(KeyError):
        await run()
    progress = await tracker.get("up", owner="ann")
    assert progress.error is not None
    assert progress.error.code == "app_error"
    assert "KeyError" not in progress.error.message


async def test_cancelled_block_cancels_the_upload() -> None:
    tracker = ProgressTracker()
    with anyio.CancelScope() as scope:
        async with tracker.track(owner="ann", upload_id="up"):
            scope.cancel()
            await checkpoint()

    assert (await tracker.get("up", owner="ann")).state is S.CANCELLED


async def test_cancel_by_the_owner_cancels_the_block() -> None:
    tracker = ProgressTracker()
    uploads = []

    async def work() -> None:
        async with tracker.track(owner="ann", upload_id="up") as upload:
            uploads.append(upload)
            await tracker.cancel("up", owner="ann")
            await anyio.sleep_forever()

    with deadline(), pytest.raises(UploadCancelled):
        await work()

    assert uploads[0].state is S.CANCELLED
    assert (await tracker.get("up", owner="ann")).state is S.CANCELLED
    assert tracker.statistics().live_uploads == 0


async def test_track_raises_if_it_is_cancelled_in_its_last_step(*, is_running: bool) -> None:
    """Nothing is awaited after the cancel: the block itself is not cancelled."""
    tracker = ProgressTracker()

    async def work() -> None:
        async with tracker.track(owner="ann", upload_id="up", total_bytes=10) as upload:
            upload.advance(10)
            internals_of(tracker).commands._cancel_here(UploadKey("ann", "up"))

    async with AsyncExitStack() as stack:
        if is_running:
            await stack.enter_async_context(tracker.lifespan())
        with deadline(), pytest.raises(UploadCancelled):
            await work()

        assert (await tracker.get("up", owner="ann")).state is S.CANCELLED


@pytest.mark.parametrize(
    ("error", "size_bytes", "code"),
    [
        (ConnectionResetError(), 4, ErrorCode.CLIENT_DISCONNECTED),
        (ConnectionResetError(), 10, ErrorCode.APP_ERROR),
        (ConnectionAbortedError(), 4, ErrorCode.APP_ERROR),
    ],
    ids=["before the last byte", "after the last byte", "other error"],
)
async def test_disconnect_error_of_a_block_means_that_the_client_has_left(
    error: Exception, size_bytes: int, code: ErrorCode
) -> None:
    tracker = ProgressTracker()
    errors = (ConnectionResetError,)

    async def work() -> None:
        async with tracker.track(
            owner="ann", upload_id="up", total_bytes=10, disconnect_errors=errors
        ) as upload:
            upload.advance(size_bytes)
            raise error

    with pytest.raises(type(error)):
        await work()

    snapshot = await tracker.get("up", owner="ann")
    assert snapshot.error is not None
    assert (snapshot.state, snapshot.error.code) == (S.FAILED, code)


async def test_track_rejects_invalid_values_and_excess_uploads() -> None:
    tracker = ProgressTracker(limits=Limits(tracked_per_owner=1))
    async with tracker.track(owner="ann"):
        for refused, more in (
            (QuotaExceeded, {}),
            (InvalidValue, {"upload_id": "a/b"}),
            (InvalidValue, {"total_bytes": -1}),
        ):
            with pytest.raises(refused):
                await tracker.track(owner="ann", **more).__aenter__()
    with pytest.raises(UploadNotFound):
        await tracker.cancel("none", owner="ann")


# --- memory ---------------------------------------------------------------------------------------


async def test_ten_thousand_uploads_leave_nothing_in_memory() -> None:
    """In sequence and at the same time, with every ending, watched and not watched."""
    sim = Simulation(retention=Retention(ended_seconds=60, waiting_seconds=60))
    generator = random.Random(7)  # noqa: S311  # deterministic, not secret
    endings = list(ENDINGS)
    for _ in range(100):
        subscriptions = [sim.subscription() for _ in range(3)]
        lives = [
            sim.begin(
                f"id{generator.randrange(10**6)}" if generator.random() < 0.5 else None, total=100
            )
            for _ in range(100)
        ]
        if generator.random() < 0.3:
            await sim.run(0.3)
        for live in lives:
            sim.add(live, generator.randrange(100))
        if generator.random() < 0.2:
            await sim.run(1.2)
        for live in lives:
            end_upload(live, generator.choice(endings))
        await sim.run(0.2)
        for subscription in subscriptions:
            subscription.close()
        sim.store.saved.clear()
        sim.publisher.events.clear()
    last_upload = weakref.ref(lives[0])
    del lives, live, subscriptions, subscription

    await sim.run(150)
    gc.collect()

    assert sim.is_at_baseline()
    assert len(sim.memory) == 0
    assert not sim.memory._buckets
    assert not sim.internals.hub._index._heartbeats._buckets
    assert last_upload() is None
