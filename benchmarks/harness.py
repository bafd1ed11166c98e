"""Benchmark harness: figures, interleaved timing, and measures against noise.

Absolute figures depend on the machine; the ratio of two variants that ran interleaved in one
process hardly does. A timing has a control (A/A): the ratio of two halves of the *same* variant,
which shows the effect of noise alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns

from attrs import asdict, field, frozen

ROOT = Path(__file__).parent.parent

# Depending on the layout of the heap, glibc returns and requests memory with every large message,
# which costs five times more than anything measured here.
PINNED_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "PYTHONHASHSEED": "0",
}


class BenchmarkUnavailable(Exception):
    """A requirement of the benchmark is missing."""


@frozen(kw_only=True)
class Figure:
    """One measured figure, with its baseline and budget.

    Attributes:
        name: What was measured.
        value: The figure, in *unit*.
        unit: The unit.
        baseline: The figure of the variant for comparison, in *unit*; None if there is none.
        ratio: The figure divided by the baseline; None if there is no baseline.
        control: The ratio of two halves of the baseline (A/A), for timings.
        budget: The limit of the ratio, else of the value, as text; empty if there is none.
        is_met: Whether the budget is met; None without a budget.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    control: float | None = None
    budget: str = ""
    is_met: bool | None = None

    def line(self) -> str:
        """Return the figure as a line of text."""
        words = [f"{self.name}: {format_number(self.value)} {self.unit}"]
        if self.baseline is not None:
            words.append(f"baseline {format_number(self.baseline)}")
        if self.ratio is not None:
            words.append(f"ratio {self.ratio:.3f}")
        if self.control is not None:
            words.append(f"A/A {self.control:.3f}")
        if self.budget:
            words.append(f"budget {self.budget}")
        if self.is_met is not None:
            words.append("met" if self.is_met else "MISSED")
        return ", ".join(words)


def format_number(value: float) -> str:
    """Return *value* with its significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def run(title: str, measure: Callable[[], Sequence[Figure]]) -> None:
    """Run a benchmark as a program; exit with 1 if it is unavailable."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    restart_with_pinned_allocator()
    try:
        figures = measure()
    except BenchmarkUnavailable as reason:
        sys.exit(f"{title}: unavailable: {reason}")
    if arguments.json:
        print(json.dumps({"title": title, "figures": [asdict(each) for each in figures]}))
        return
    print(title)
    for each in figures:
        print(f"  {each.line()}")


def restart_with_pinned_allocator() -> None:
    """Restart this program with a pinned allocator, unless it has one."""
    if any(os.environ.get(name) != value for name, value in PINNED_MALLOC.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], child_environment())  # noqa: S606  # this program


def child_environment() -> dict[str, str]:
    """Return the environment of a measured process: pinned allocator, no coverage."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | PINNED_MALLOC | {"PYTHONPATH": path}


def run_child(module: str, *arguments: str, prefix: Sequence[str] = ()) -> str:
    """Run ``python -m module`` in a new process; return its output."""
    finished = subprocess.run(
        [*prefix, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise BenchmarkUnavailable(
            f"{module} {' '.join(arguments)} exited with {finished.returncode}"
        )
    return finished.stdout


def pin_to_processor(number: int) -> None:
    """Run this process on one processor only, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {available[number % len(available)]})


@frozen
class Samples:
    """The duration of each run of one variant."""

    durations: list[float] = field(factory=list)

    @property
    def minimum(self) -> float:
        """The fastest run, which was disturbed least."""
        return min(self.durations)

    @property
    def control(self) -> float:
        """The ratio of the minima of the odd and the even runs: the effect of noise."""
        halves = sorted([min(self.durations[::2]), min(self.durations[1::2])])
        return halves[1] / halves[0]


def interleave(variants: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Samples]:
    """Time each variant once per round, in rotating order, in nanoseconds."""
    samples = {name: Samples() for name in variants}
    names = list(variants)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name in rotate(names, number):
                started = perf_counter_ns()
                variants[name]()
                samples[name].durations.append(perf_counter_ns() - started)
    finally:
        gc.enable()
    return samples


def rotate(names: list[str], number: int) -> list[str]:
    """Return *names* rotated by *number*, and reversed in every other rotation."""
    position = number % len(names)
    order = names[position:] + names[:position]
    return order[::-1] if number // len(names) % 2 else order


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
