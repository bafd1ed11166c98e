"""Budgets that do not depend on the machine: instructions, bytes, writes, encodings.

The modules in ``benchmarks`` measure and print them; these tests compare them with the budgets.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from attrs import evolve

from benchmarks import __main__ as runner
from benchmarks import (
    fixed_cost,
    parallel_parts,
    stalled_subscriber,
    store_writes,
    two_workers,
    upload_memory,
    wrapper_instructions,
)
from benchmarks.harness import ROOT, child_environment
from benchmarks.sample_snapshot import sample_snapshot
from tests._support.updates import hub_without_tasks
from tests.conftest import RequireProgram
from upload_progress._fanout.update import Update
from upload_progress._model import codec


@pytest.fixture(scope="module")
def counts(require_program: RequireProgram) -> dict[str, float]:
    require_program("valgrind", install="on Debian: apt-get install valgrind")
    return wrapper_instructions.count()


@pytest.mark.parametrize("variant", wrapper_instructions.BUDGETED)
def test_instructions_per_message_are_within_budget(counts: dict[str, float], variant: str) -> None:
    assert 0 < counts[variant] - counts["untracked"] <= wrapper_instructions.BUDGET


def test_instruction_count_distinguishes_the_variants(counts: dict[str, float]) -> None:
    """A minimal wrapper is one more coroutine, and the receive wrapper does more than that."""
    assert counts["untracked"] < counts["minimal wrapper"] < counts["receive wrapper"]


def test_python_calls_of_an_upload_and_of_a_poll_are_within_budget() -> None:
    calls = fixed_cost.count()

    assert {
        name: limit for name, limit in fixed_cost.MAX_CALLS.items() if calls[name] > limit
    } == {}, calls
    assert 0 < calls["bare upload"] < calls["upload"] < calls["upload, awaited owner"]


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.09, 0.5, 1, 3, 10, 60])
def test_store_writes_per_upload_are_within_budget(seconds: float, is_watched: bool) -> None:
    writes = store_writes.count(seconds=seconds, is_watched=is_watched)

    assert 1 <= writes.count <= store_writes.max_writes(seconds)
    assert writes.min_gap_seconds >= store_writes.GAP_SECONDS - 1e-9


@pytest.mark.parametrize("gap_seconds", [0, 0.001, 0.03, 0.0501, 0.0999, 0.1, 0.13, 1])
def test_new_upload_is_written_within_one_flush_interval(gap_seconds: float) -> None:
    """Also directly after another flush: the upload is part of the next one."""
    delays = store_writes.first_write_delays([number * gap_seconds for number in range(50)])

    assert delays[0] == pytest.approx(store_writes.GAP_SECONDS)
    assert max(delays) <= store_writes.GAP_SECONDS + 1e-9


@pytest.mark.parametrize("kind", upload_memory.IDLE)
def test_memory_of_an_idle_upload_is_within_budget(kind: str) -> None:
    """Measured in a new process, without allocations of coverage and other tests.

    With fewer uploads than the benchmark, the bytes of each are the same but for a thousandth.
    """
    measure = f"from benchmarks.upload_memory import *; print(allocated({kind!r}, UPLOADS // 4))"
    finished = subprocess.run(
        [sys.executable, "-c", measure],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert 100 < float(finished.stdout) <= upload_memory.BUDGET_BYTES


def test_stalled_subscriber_holds_one_snapshot_per_upload() -> None:
    snapshots, _ = stalled_subscriber.memory_held(20)

    assert snapshots == stalled_subscriber.UPLOADS


def test_parallel_parts_need_no_more_round_trips_than_single_parts() -> None:
    """The number depends on the flush interval of the workers, not on the parts."""
    few, many = parallel_parts.count(2), parallel_parts.count(parallel_parts.PARTS)

    assert (few.parts, many.parts) == (2, parallel_parts.PARTS)
    assert few.bytes_transferred == many.bytes_transferred
    assert few.round_trips / 2 < many.round_trips <= few.round_trips


def test_round_trips_do_not_grow_with_the_number_of_uploads() -> None:
    """The number depends on the flush interval, once there are updates in each."""
    few, many = two_workers.count_round_trips(50), two_workers.count_round_trips(500)

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
    monkeypatch.setattr(codec, "_encoder", counting)
    return counting


def test_event_is_encoded_once_for_all_subscribers(encoder: CountingEncoder) -> None:
    hub = hub_without_tasks()
    subscriptions = [hub.subscribe(now=0) for _ in range(100)]
    for subscription in subscriptions:
        subscription.add_owner("ann")
    for sequence in (1, 2):
        hub.deliver(Update("ann", evolve(sample_snapshot(), sequence=sequence)))
        received = [update for subscription in subscriptions for update in subscription.take()]
        texts = {text for update in received for text in (update.websocket_text, update.sse)}

        assert len(received) == 100
        assert len(texts) == 2
        assert encoder.encoded == sequence


def test_every_benchmark_is_listed() -> None:
    benchmarks = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "\n    run(TITLE" in path.read_text() or "\n        run(TITLE" in path.read_text()
    }

    assert benchmarks == set(runner.BUDGET_NUMBERS)
