"""The law of load: how many records per second a process writes, and who waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import ANN, STEP_SECONDS, Simulation, end_upload
from upload_progress import ProgressTracker, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.store_budget import (
    BURST_SECONDS,
    LONGEST_INTERVAL_SECONDS,
    WATCHED_SHARE,
    StoreBudget,
)
from upload_progress.protocols import TransferHead, TransferKind, Tus

anyio = pytest.mark.anyio

S = UploadState
TOTAL = 1 << 40


async def receive(sim: Simulation, seconds: float, lives: Sequence[LiveUpload]) -> None:
    """Let bytes of all *lives* arrive in each step."""
    for _ in range(round(seconds / STEP_SECONDS)):
        for live in lives:
            live.opened_by.meter.add(1000)
        await sim.run()


def records_of(sim: Simulation) -> Counter[str]:
    """Return how many records of each upload were stored."""
    return Counter(record.upload_id for batch in sim.store.saved for record in batch)


def longest_interval(sim: Simulation, upload_id: str) -> float:
    """Return the longest time between two stored versions of an upload."""
    times = [record.updated_at for record in sim.writes(upload_id)]
    return max(after - before for before, after in pairwise([*times, sim.clock.time()]))


def begin_part(sim: Simulation, upload_id: str) -> LiveUpload:
    """Admit and begin an upload in several requests."""
    admission = sim.internals.admission
    head = TransferHead("tus", TransferKind.BYTES, f"/{upload_id}", total_bytes=TOTAL)
    live = admission.open_transfer(
        head, Tus(), requested_id=upload_id, is_proxied=False, total_bytes=TOTAL, filename=None
    )
    assert admission.admit(live, ANN)
    live.begin()
    return live


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=200), st.integers(1, 50))
def test_no_upload_waits_longer_than_the_bound(
    steps: list[tuple[float, bool]], records_per_second: int
) -> None:
    budget, now = StoreBudget(records_per_second), 100.0
    for seconds, is_watched in steps:
        now += seconds
        wait = budget.reserve(now, is_watched=is_watched)
        interval = budget.interval_seconds(now)
        assert 0 <= wait <= interval <= LONGEST_INTERVAL_SECONDS
        assert is_watched or wait == interval


def test_watched_uploads_wait_for_each_other_and_leave_a_share() -> None:
    budget = StoreBudget(records_per_second=10)
    for _ in range(20):
        budget.reserve(0.0, is_watched=False)
    assert budget.interval_seconds(0.0) == 2 - BURST_SECONDS

    waits = [budget.reserve(0.0, is_watched=True) for _ in range(15)]
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(15 / (10 * WATCHED_SHARE) - BURST_SECONDS)
    assert budget.interval_seconds(0.0) == 3.5 - BURST_SECONDS


@anyio
async def test_within_the_budget_only_the_policy_counts() -> None:
    few, many = Simulation(), Simulation(store_records_per_second=30)
    for sim in (few, many):
        lives = [sim.begin(f"up{number}", TOTAL) for number in range(20)]
        await receive(sim, 10, lives)
        assert sim.tracker.statistics().store_interval_seconds == 0

    assert records_of(few) == records_of(many)


@anyio
async def test_beyond_the_budget_all_uploads_are_stored_in_turn() -> None:
    sim = Simulation(store_records_per_second=20)
    lives = [sim.begin(f"up{number}", TOTAL) for number in range(100)]
    await receive(sim, 10, lives)
    before, batches = records_of(sim), len(sim.store.saved)
    await receive(sim, 30, lives)
    counts = records_of(sim) - before

    assert 0.9 * 20 * 30 <= counts.total() <= 1.02 * 20 * 30
    assert len(sim.store.saved) - batches <= 30 / STEP_SECONDS
    # Each is stored every 5 s, not one more often than another.
    assert max(counts.values()) - min(counts[live.upload_id] for live in lives) <= 2
    assert sim.tracker.statistics().store_interval_seconds == pytest.approx(5, abs=0.5)
    assert len(sim.publisher.events) == records_of(sim).total()


@anyio
async def test_starts_ends_and_changes_of_state_do_not_wait() -> None:
    sim = Simulation(store_records_per_second=5)
    lives = [sim.begin(f"up{number}", TOTAL) for number in range(100)]
    await receive(sim, 5, lives)
    started, processing, ended = sim.begin("started", 5), lives[0], lives[1]
    processing.end_body()
    end_upload(ended, "completed")
    await sim.run(2 * STEP_SECONDS)

    assert sim.tracker.statistics().store_interval_seconds > 5
    assert [sim.writes(live.upload_id)[-1].state for live in (started, processing, ended)] == [
        S.RECEIVING,
        S.PROCESSING,
        S.COMPLETED,
    ]


@anyio
async def test_each_upload_is_stored_within_a_bound_whatever_the_load() -> None:
    sim = Simulation(store_records_per_second=0.1)
    lives = [sim.begin(f"up{number}", TOTAL) for number in range(20)]
    await receive(sim, 100, lives)

    longest = max(longest_interval(sim, live.upload_id) for live in lives)
    assert 20 < longest <= LONGEST_INTERVAL_SECONDS + OBSERVE_SECONDS + STEP_SECONDS


@anyio
async def test_lease_does_not_depend_on_the_budget() -> None:
    sim = Simulation(store_records_per_second=0.01)
    other = ProgressTracker(store=sim.memory, clock=sim.clock)
    live = sim.begin("up", TOTAL)
    for _ in range(60):
        await receive(sim, 1, [live])
        await internals_of(other).reaper.run_once()

    assert (await other.get("up", owner="ann")).state is S.RECEIVING
    assert other.statistics().reaped == 0


@anyio
async def test_watched_uploads_keep_short_intervals_the_longest() -> None:
    sim = Simulation(store_records_per_second=20)
    lives = [sim.begin(f"up{number}", TOTAL) for number in range(100)]
    watched, parts = lives[0], [begin_part(sim, f"part{number}") for number in range(2)]
    subscription = sim.subscription("up0", "part0")
    await receive(sim, 10, [*lives, *parts])
    before, sequence = records_of(sim), watched.sequence
    await receive(sim, 30, [*lives, *parts])
    counts = records_of(sim) - before

    # Its watchers here see it four times a second; such reports are not stored.
    assert watched.sequence - sequence in range(75, 125)
    assert counts["up0"] in range(25, 33)
    assert counts["part0"] in range(75, 125)
    assert counts["part1"] in range(3, 8)
    assert counts["up1"] in range(3, 8)
    subscription.close()


@anyio
async def test_too_many_watched_uploads_wait_too_and_do_not_starve_the_others() -> None:
    sim = Simulation(store_records_per_second=20)
    lives = [begin_part(sim, f"part{number}") for number in range(30)]
    subscription = sim.subscription(*(f"part{number}" for number in range(25)))
    await receive(sim, 10, lives)
    before = records_of(sim)
    await receive(sim, 30, lives)
    counts = records_of(sim) - before
    watched = sum(counts[f"part{number}"] for number in range(25))

    assert counts.total() <= 1.05 * 20 * 30
    assert watched == pytest.approx(WATCHED_SHARE * counts.total(), rel=0.15)
    subscription.close()


@anyio
async def test_silence_and_the_byte_after_it_are_reported_beyond_the_budget() -> None:
    sim = Simulation(store_records_per_second=2)
    lives = [sim.begin(f"up{number}", TOTAL) for number in range(20)]
    await receive(sim, 5, lives)
    await receive(sim, 4, lives[1:])
    silent = sim.writes("up0")[-1]
    await receive(sim, 12, lives)

    assert silent.bytes_per_second is None
    assert silent.received_bytes == 50 * 1000
    assert sim.writes("up0")[-1].received_bytes > silent.received_bytes
