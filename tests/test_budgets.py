"""The budgets that do not depend on the machine's mood: instructions, bytes, writes, encodings.

Each is measured by the file under ``benchmarks/`` that prints it; here it is judged.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from attrs import evolve

from benchmarks import (
    __main__ as runner,
)
from benchmarks import (
    many_workers,
    parallel_parts,
    session_memory,
    store_writes,
    stuck_watcher,
    wrapper_instructions,
)
from benchmarks.common import ROOT, child_environment
from benchmarks.snapshots import snapshot
from tests.conftest import RequireProgram
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.update import Update
from upload_progress._model import codec as wire
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.interfaces import SystemClock


@pytest.fixture(scope="module")
def counts(require_program: RequireProgram) -> dict[str, float]:
    require_program("valgrind", install="on Debian: apt-get install valgrind")
    return wrapper_instructions.count()


@pytest.mark.parametrize("variant", ["wrapper", "middleware"])
def test_a_message_costs_few_instructions(counts: dict[str, float], variant: str) -> None:
    assert 0 < counts[variant] - counts["bare"] <= wrapper_instructions.BUDGET


def test_the_count_sees_what_it_should(counts: dict[str, float]) -> None:
    """Even the least wrapper is one more coroutine, and ours does more than the least."""
    assert counts["bare"] < counts["trivial"] < counts["wrapper"]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.09, 0.5, 1, 3, 10, 60])
def test_an_upload_is_written_seldom(seconds: float, watched: bool) -> None:
    writes = store_writes.count(seconds=seconds, watched=watched)

    assert 1 <= writes.count <= store_writes.allowed(seconds)
    assert writes.least_gap_seconds >= store_writes.GAP_SECONDS - 1e-9


@pytest.mark.parametrize("gap_seconds", [0, 0.001, 0.03, 0.0501, 0.0999, 0.1, 0.13, 1])
def test_a_new_upload_waits_for_one_flush_interval_whenever_it_begins(gap_seconds: float) -> None:
    """Also where something else was told just before: it goes along with the next report."""
    waits = store_writes.first_waits([number * gap_seconds for number in range(50)])

    assert waits[0] == pytest.approx(store_writes.GAP_SECONDS)
    assert max(waits) <= store_writes.GAP_SECONDS + 1e-9


@pytest.mark.parametrize("kind", session_memory.IDLE)
def test_an_idle_session_is_small(kind: str) -> None:
    """In a process of its own: neither coverage nor other tests have allocated anything there."""
    measure = f"from benchmarks.session_memory import *; print(allocated({kind!r}, SESSIONS))"
    finished = subprocess.run(
        [sys.executable, "-c", measure],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert 100 < float(finished.stdout) <= session_memory.BUDGET_BYTES


def test_a_stuck_watcher_holds_one_snapshot_of_each_upload() -> None:
    held, _ = stuck_watcher.held(20)

    assert held == stuck_watcher.UPLOADS


def test_parallel_parts_cost_no_more_round_trips_than_one() -> None:
    """Those of the interval at which each worker writes, not those of the parts."""
    few, many = parallel_parts.count(2), parallel_parts.count(parallel_parts.PARTS)

    assert (few.parts, many.parts) == (2, parallel_parts.PARTS)
    assert few.bytes_transferred == many.bytes_transferred
    assert few.count / 2 < many.count <= few.count


def test_many_uploads_cost_no_more_round_trips_than_some() -> None:
    """Those of the flush interval, as soon as there is something to tell in each."""
    few, many = many_workers.trips(50), many_workers.trips(500)

    assert 200 < many <= 1.1 * few


class CountingEncoder:
    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, _value: object) -> bytes:
        self.encoded += 1
        return b"{}"


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    counting = CountingEncoder()
    monkeypatch.setattr(wire, "_encoder", counting)
    return counting


def test_an_event_is_encoded_once_for_everybody(encoder: CountingEncoder) -> None:
    hub = Hub(TaskSpawner(LogLimiter(SystemClock())))
    subscriptions = [hub.subscribe(now=0) for _ in range(100)]
    for subscription in subscriptions:
        subscription.add_owner("ann")
    for sequence in (1, 2):
        hub.deliver(Update("ann", evolve(snapshot(), sequence=sequence)))
        taken = [update for subscription in subscriptions for update in subscription.take()]
        texts = {text for update in taken for text in (update.websocket_text, update.sse)}

        assert len(taken) == 100
        assert len(texts) == 2
        assert encoder.encoded == sequence


def test_every_benchmark_is_run_and_listed() -> None:
    measuring = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "\n    run(CLAIM" in path.read_text() or "\n        run(CLAIM" in path.read_text()
    }

    assert measuring == set(runner.CLAIMS)
