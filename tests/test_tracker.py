"""``ProgressTracker`` as an application uses it, with and without ``lifespan``."""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests._support.simulation import ANN, Simulation, assert_monotonic, deadline
from upload_progress import (
    InvalidValue,
    Limits,
    ProgressTracker,
    QuotaExceeded,
    Stage,
    StoreUnavailable,
    TrackerInUse,
    Upload,
    UploadEnded,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._fanout.subscription import HEARTBEAT_SECONDS
from upload_progress._model.models import new_upload_id
from upload_progress._runtime import circuit_breaker as backend_module
from upload_progress._tracking import reader as reading
from upload_progress.identity import CapabilityIdentity, Identity
from upload_progress.testing import RecordingPublisher
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


@pytest.fixture(params=["lifespan", "bare"])
def is_running(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "lifespan")


async def until(condition: Callable[[], object]) -> None:
    """Let others run until *condition* holds."""
    with deadline():
        while not condition():
            await checkpoint()


# --- running --------------------------------------------------------------------------------------


async def collect_snapshots(
    tracker: ProgressTracker, seen: list[UploadProgress], upload_id: str
) -> None:
    async for snapshot in tracker.watch(upload_id, owner="ann"):
        seen.append(snapshot)  # noqa: PERF401  # others look at it meanwhile


async def carry(tracker: ProgressTracker, seen: list[UploadProgress], subscriptions: int) -> None:
    async with (
        anyio.create_task_group() as tasks,
        tracker.track(owner="ann", upload_id="up", total_bytes=100) as upload,
    ):
        for _ in range(subscriptions):
            tasks.start_soon(collect_snapshots, tracker, seen, "up")
        await until(lambda: len(seen) >= subscriptions)
        for _ in range(10):
            upload.advance(10)
        await until(lambda: len(seen) >= 2 * subscriptions)
        async with upload.stage("hashing", total=2) as stage:
            stage.advance()


async def test_an_upload_is_followed_to_its_end(*, is_running: bool) -> None:
    tracker, seen = ProgressTracker(), list[UploadProgress]()
    with deadline():
        if is_running:
            async with tracker.lifespan():
                assert tracker.is_running
                await carry(tracker, seen, 3)
        else:
            await carry(tracker, seen, 3)

    assert [each.state for each in seen].count(S.COMPLETED) == 3
    assert len(internals_of(tracker).hub) == 0
    assert tracker.statistics().live_uploads == 0
    assert not tracker.is_running


async def test_the_seat_is_handed_over_to_lifespan_and_back() -> None:
    """A watcher that hosts the work makes room, and takes over again."""
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


async def test_a_wait_that_is_given_up_loses_nothing(*, is_running: bool) -> None:
    tracker = ProgressTracker()
    subscription = internals_of(tracker).subscribe()
    subscription.add_owner("ann")

    async def lose() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await internals_of(tracker).wait(subscription)
        await tracker.announce(owner="ann")
        assert len(await internals_of(tracker).wait(subscription)) == 1

    with deadline():
        if is_running:
            async with tracker.lifespan():
                await lose()
        else:
            await lose()


async def test_a_stop_tells_the_last_and_ends_every_watch() -> None:
    tracker, seen = ProgressTracker(), list[UploadProgress]()
    with deadline():
        async with anyio.create_task_group() as tasks, tracker.lifespan():
            live = internals_of(tracker).admission.open(requested_id="up")
            internals_of(tracker).admission.admit(live, ANN)
            live.begin()
            tasks.start_soon(collect_snapshots, tracker, seen, "up")
            await until(lambda: seen)
            live.client_disconnected()
    assert seen[-1].state is S.FAILED
    assert (await tracker.get("up", owner="ann")).state is S.FAILED


async def test_a_tracker_is_entered_once() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        with pytest.raises(TrackerInUse):
            await tracker.lifespan().__aenter__()
    async with tracker.lifespan():
        pass


async def test_the_failure_of_an_application_is_its_own() -> None:
    tracker = ProgressTracker()

    async def run() -> None:
        async with tracker.lifespan():
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await run()
    assert not tracker.is_running


async def test_background_work_that_fails_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = ProgressTracker()
    done = anyio.Event()

    async def fail() -> None:
        raise OSError

    async def work() -> None:
        done.set()

    assert not internals_of(tracker).tasks.spawn(work)
    with deadline():
        async with tracker.lifespan():
            for _ in range(5):
                assert internals_of(tracker).tasks.spawn(fail)
            assert internals_of(tracker).tasks.spawn(work)
            await done.wait()
    assert len(caplog.records) == 1


async def test_a_fork_is_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = ProgressTracker()
    name = tracker.worker
    assert tracker.worker == name
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert tracker.worker != name


# --- track and the handle -------------------------------------------------------------------------


async def test_a_block_that_raises_is_an_upload_that_failed() -> None:
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


async def test_a_block_whose_task_is_cancelled_is_cancelled() -> None:
    tracker = ProgressTracker()
    with anyio.CancelScope() as scope:
        async with tracker.track(owner="ann", upload_id="up"):
            scope.cancel()
            await checkpoint()

    assert (await tracker.get("up", owner="ann")).state is S.CANCELLED


async def test_what_an_application_says_is_kept_and_fit(sim: Simulation) -> None:
    """A20: cut, mended, or refused; nothing that a store could choke on."""
    tracker = sim.tracker
    async with tracker.track(owner="ann", upload_id="up", filename="a\ud800" + "x" * 999) as upload:
        upload.set(
            filename="b\udcff.bin",
            content_type="y" * 999,
            metadata={"k": 1},
            group="g",
            total_bytes=7,
        )
        upload.set()
        async with upload.stage("s\ud800" * 100, total=3) as stage:
            stage.advance(2)
            snapshot = upload.snapshot()
        for bad in (
            {"metadata": {"k": object()}},
            {"metadata": {"k": "x" * 5000}},
            {"total_bytes": -1},
            {"total_bytes": 2**53},
            {"total_bytes": 1.5},
            {"filename": 5},
            {"group": "x" * 129},
            {"group": ""},
            {"group": "\ud800"},
        ):
            with pytest.raises(InvalidValue, match=r"set\."):
                upload.set(**bad)
        for size in (-1, 1.5, "1", 2**53):
            with pytest.raises(InvalidValue, match="advance"):
                upload.advance(size)  # type: ignore[arg-type]  # what is to be refused
            with pytest.raises(InvalidValue, match="steps"):
                stage.advance(size)  # type: ignore[arg-type]  # what is to be refused
        assert "up" in repr(upload)
        assert (upload.received_bytes, upload.is_tracked) == (0, True)

    assert snapshot.filename == "b?.bin"
    stored = await tracker.get("up", owner="ann")
    assert (stored.filename, stored.group, stored.total_bytes) == ("b?.bin", "g", 7)
    assert stored.metadata == {"k": 1}
    assert sim.memory._owners


async def test_stages_are_shown_while_processing_and_throttled(sim: Simulation) -> None:
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    live.end_body()
    upload = Upload(live)
    async with upload.stage("hashing", total=1000) as stage:
        await sim.run(0.5)
        before = len(sim.events("up"))
        for _ in range(1000):
            stage.advance()
            await sim.run(0.1) if stage.stage.done % 50 == 0 else None
        async with upload.stage("scanning"):
            await sim.run(0.2)
            assert upload.snapshot().stage == Stage("scanning", 0, None)
        await sim.run(0.2)
        assert upload.snapshot().stage == Stage("hashing", 1000, 1000)
        live.finish(200)
    await sim.run(0.5)
    upload.set(filename="late")
    upload.fail("late")
    upload.advance(5)
    assert not upload.claim("bob")
    assert upload.claim(ANN)
    await sim.run(0.5)

    events = sim.events("up")
    assert 10 <= len(events) - before <= 20
    assert events[-1].state is S.COMPLETED
    assert (events[-1].stage, events[-1].filename) == (None, None)


async def test_a_stage_of_unknown_length_is_shown_each_second(sim: Simulation) -> None:
    live = sim.begin("up")
    live.end_body()

    async with Upload(live).stage("scanning") as stage:
        await sim.run(1)
        for _ in range(5):
            stage.advance(3)
            await sim.run(1.3)
    done = [event.stage.done for event in sim.events("up") if event.stage]
    assert done == [0, 3, 6, 9, 12, 15]


async def test_claims(sim: Simulation) -> None:
    """I5: the first owner keeps it; nobody is not somebody."""

    live = internals_of(sim.tracker).admission.open(requested_id="up")
    upload = Upload(live)
    assert [upload.is_tracked] == [False]
    assert upload.claim("ann")
    assert not upload.claim("bob")
    live.begin()
    assert [upload.is_tracked] == [True]
    assert upload.claim("ann")
    assert not upload.claim("bob")
    late = internals_of(sim.tracker).admission.open()
    late.begin()
    assert Upload(late).claim("bob")
    late.client_disconnected()
    never = internals_of(sim.tracker).admission.open()
    never.begin()
    never.client_disconnected()
    assert not Upload(never).claim("bob")
    await sim.run(1)

    for wrong in ("bob", "None", "x"):
        with pytest.raises(UploadNotFound):
            await sim.tracker.get("up", owner=wrong)


async def test_a_capability_is_held_by_its_id(sim: Simulation) -> None:
    anybody = CapabilityIdentity()
    guessable, good = (
        internals_of(sim.tracker).admission.open(requested_id="me"),
        internals_of(sim.tracker).admission.open(requested_id="A1" * 64),
    )
    named = internals_of(sim.tracker).admission.open(requested_id="me")
    named.id_is_sent = True
    strong = new_upload_id()
    held = internals_of(sim.tracker).admission.open(requested_id=strong)

    assert internals_of(sim.tracker).admission.admit(guessable, anybody)
    assert guessable.upload_id != "me"
    assert internals_of(sim.tracker).admission.admit(good, anybody)
    assert not internals_of(sim.tracker).admission.admit(named, anybody)
    assert internals_of(sim.tracker).admission.admit(held, anybody)
    assert held.upload_id == strong
    assert (await sim.tracker.get(strong, owner=anybody)).upload_id == strong
    with pytest.raises(UploadNotFound):
        await sim.tracker.get("me", owner=anybody)
    anonymous = internals_of(sim.tracker).admission.open()
    internals_of(sim.tracker).admission.admit(anonymous, Identity("anonymous"))
    assert (await sim.tracker.list(owner=anybody)).uploads == ()
    assert len((await sim.tracker.list(owner="anonymous")).uploads) == 1


# --- asking ---------------------------------------------------------------------------------------


async def test_what_was_announced_is_what_comes(sim: Simulation) -> None:
    announced = await sim.tracker.announce(
        owner="ann",
        filename="a.bin",
        total_bytes=10,
        content_type="x/y",
        group="g",
        metadata={"k": 1},
    )
    assert announced.state is S.PENDING
    await sim.run(5)
    live = sim.begin(announced.upload_id)
    sim.add(live, 5)
    early = await sim.tracker.get(announced.upload_id, owner="ann")
    live.end_body()
    live.finish(200)
    await sim.run(1)
    final = await sim.tracker.get(announced.upload_id, owner="ann")

    for each in (early, final):
        assert (each.filename, each.total_bytes, each.group) == ("a.bin", 10, "g")
        assert (each.content_type, each.metadata, each.attempt) == ("x/y", {"k": 1}, 1)
        assert each.created_at == announced.created_at
        assert each.sequence > announced.sequence
    assert (final.state, final.percent) == (S.COMPLETED, 50.0)


async def test_announcements_are_limited_and_checked() -> None:
    sim = Simulation(limits=Limits(announced_per_owner=3))
    for _ in range(3):
        await sim.tracker.announce(owner="ann")
    with pytest.raises(QuotaExceeded, match="announced_per_owner") as caught:
        await sim.tracker.announce(owner="ann")
    assert caught.value.retry_after_seconds > 0
    await sim.tracker.announce(owner="bob")
    for bad in ({"total_bytes": -1}, {"metadata": {"k": "x" * 5000}}, {"group": "x" * 999}):
        with pytest.raises(InvalidValue, match=r"body\."):
            await sim.tracker.announce(owner="bob", **bad)
    with pytest.raises(InvalidValue):
        await sim.tracker.announce(owner="")


async def test_lists(sim: Simulation) -> None:
    for number in range(5):
        await sim.tracker.announce(owner="ann", total_bytes=10, group="g" if number else None)
        await sim.run(1)
    live = sim.begin("live", total=50)
    sim.add(live, 25)
    done = sim.begin("done", total=1)
    done.end_body()
    done.finish(200)
    await sim.run(1)

    everything = await sim.tracker.list(owner="ann")
    assert len(everything.uploads) == 7
    assert (everything.total.uploads, everything.total.total_bytes) == (7, 101)
    moments = [each.created_at for each in everything.uploads]
    assert moments == sorted(moments, reverse=True)

    seen: list[UploadProgress] = []
    cursor: str | None = None
    while True:
        page = await sim.tracker.list(owner="ann", limit=3, cursor=cursor)
        assert page.total == everything.total
        seen += page.uploads
        cursor = page.next
        if cursor is None:
            break
    assert [each.upload_id for each in seen] == [each.upload_id for each in everything.uploads]

    grouped = await sim.tracker.list(owner="ann", group="g")
    assert len(grouped.uploads) == 4
    completed = await sim.tracker.list(owner="ann", states=[S.COMPLETED])
    assert [each.upload_id for each in completed.uploads] == ["done"]
    await sim.run(400)
    assert len((await sim.tracker.list(owner="ann")).uploads) == 6
    assert len((await sim.tracker.list(owner="ann", states=set(S))).uploads) == 7
    assert (await sim.tracker.list(owner="bob")).uploads == ()


async def test_long_lists_are_read_in_pages(sim: Simulation) -> None:
    for _ in range(60):
        await sim.tracker.announce(owner="ann")
    for _ in range(60):
        sim.begin().client_disconnected()
    await sim.run(1)

    page = await sim.tracker.list(owner="ann", limit=500)

    assert len(page.uploads) == 120
    assert page.next is None


async def test_longer_lists_than_anybody_reads_are_cut(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one call reads of the store is bounded; the newest come first."""
    monkeypatch.setattr(reading, "MAX_LISTED", 2 * reading.STORE_PAGE)
    for _ in range(2 * reading.STORE_PAGE + 1):
        sim.begin().client_disconnected()
        await sim.run(0.2)

    page = await sim.tracker.list(owner="ann", limit=500)

    assert len(page.uploads) == page.total.uploads == 2 * reading.STORE_PAGE
    assert min(each.created_at for each in page.uploads).timestamp() > 1_800_000_000.1


@pytest.mark.parametrize("bad", [{"cursor": "x"}, {"cursor": ""}, {"limit": 0}, {"limit": -5}])
async def test_bad_pages_are_refused(sim: Simulation, bad: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=r"query\."):
        await sim.tracker.list(owner="ann", **bad)  # type: ignore[arg-type]  # refused
    assert (await sim.tracker.list(owner="ann", cursor="nan~x")).uploads == ()


async def test_a_dead_store_is_said_to_be_dead(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "CALL_SECONDS", 0.01)
    live = sim.begin("up", total=10)
    sim.store.fault = "hang"

    assert (await sim.tracker.get("up", owner="ann")).state is S.RECEIVING
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("other", owner="ann")
    with pytest.raises(StoreUnavailable):
        await sim.tracker.announce(owner="ann")
    with pytest.raises(StoreUnavailable):
        await sim.tracker.watch("other", owner="ann").__anext__()
    await sim.tracker.cancel("up", owner="ann")
    assert live.state is S.CANCELLED
    assert len(internals_of(sim.tracker).hub) == 0


async def test_track_refuses_what_is_malformed_or_too_much() -> None:
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


async def test_a_watch_that_is_entered_ends_with_its_block(sim: Simulation) -> None:
    sim.begin("up")
    async with sim.tracker.watch("up", owner="ann") as watch:
        assert (await anext(watch)).state is S.RECEIVING
        assert len(internals_of(sim.tracker).hub) == 1
    assert len(internals_of(sim.tracker).hub) == 0
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    unused = sim.tracker.watch("up", owner="ann")
    await unused.aclose()
    with pytest.raises(UploadNotFound):
        await anext(sim.tracker.watch("none", owner="ann"))


async def test_a_watch_sleeps_through_heartbeats(sim: Simulation) -> None:
    live = sim.begin("up", total=100)
    seen: list[UploadProgress] = []
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect_snapshots, sim.tracker, seen, "up")
            await until(lambda: len(seen) == 1)
            [subscription] = internals_of(sim.tracker).hub._index.everything()
            for _ in range(3):
                sim.clock.advance(HEARTBEAT_SECONDS + 1)
                internals_of(sim.tracker).hub.wake_for_heartbeats(sim.clock.monotonic(), 1)
                assert subscription.is_ready
                await until(lambda: not subscription.is_ready)
            live.client_disconnected()
            # A stall may have been told a moment ago: what follows waits for the next interval.
            sim.clock.advance(1)

    assert_monotonic(seen)
    assert seen[-1].state is S.FAILED


async def test_a_drained_watch_ends(sim: Simulation) -> None:
    sim.begin("up")
    watch = sim.tracker.watch("up", owner="ann")
    await anext(watch)
    sim.tracker.drain()

    assert [each async for each in watch] == []


async def test_who_comes_late_learns_the_end(sim: Simulation) -> None:
    sim.begin("up").client_disconnected()
    await sim.run(1)

    assert [each.state async for each in sim.tracker.watch("up", owner="ann")] == [S.FAILED]
    with pytest.raises(UploadEnded):
        await sim.tracker.cancel("up", owner="ann")


@pytest.mark.parametrize("path", ["uploads", "/uploads/", "/", ""])
def test_a_mount_path_is_absolute(path: str) -> None:
    with pytest.raises(InvalidValue, match="mount_path"):
        ProgressTracker(mount_path=path)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_stall_takes_time(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="stall_after_seconds"):
        ProgressTracker(stall_after_seconds=seconds)


def test_a_tracker_shows_no_secrets() -> None:
    assert repr(ProgressTracker()) == "<ProgressTracker /uploads 0 live uploads>"
