"""What the benchmarks share: figures and how they are printed, and how noise is kept out.

Absolute figures depend on the machine; a ratio of two variants that ran in turns in one process
hardly does. Where time is measured, a control stands beside the ratio: the ratio of two halves of
the *same* variant, which shows what noise alone amounts to.
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

# glibc gives memory back and takes it again with every large message, or does not, by luck of the
# heap's layout: five times the cost of anything that is measured here.
PINNED_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "PYTHONHASHSEED": "0",
}


class CannotRun(Exception):  # named after what happened
    """Something that this benchmark needs is not here."""


@frozen(kw_only=True)
class Figure:
    """One measured figure, and what it is held against.

    Attributes:
        what: What was measured.
        value: In *unit*.
        baseline: The same of the bare thing, in *unit*; None where there is none.
        ratio: What the budget is about, unless it is about *value*.
        budget: In words, with its number.
        holds: Whether it is kept; None where it is only told.
        control: The ratio of two halves of the baseline, for a timing.
    """

    what: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    control: float | None = None
    budget: str = ""
    holds: bool | None = None

    def line(self) -> str:
        """Return the figure as a line for a person."""
        words = [f"{self.what}: {short(self.value)} {self.unit}"]
        if self.baseline is not None:
            words.append(f"baseline {short(self.baseline)}")
        if self.ratio is not None:
            words.append(f"ratio {self.ratio:.3f}")
        if self.control is not None:
            words.append(f"A/A {self.control:.3f}")
        if self.budget:
            words.append(f"budget {self.budget}")
        if self.holds is not None:
            words.append("kept" if self.holds else "MISSED")
        return ", ".join(words)


def short(value: float) -> str:
    """Return *value* with as many digits as mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def run(claim: str, measure: Callable[[], Sequence[Figure]]) -> None:
    """Measure, print, and exit: 0 whatever the figures, 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(description=claim)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    pin()
    try:
        figures = measure()
    except CannotRun as reason:
        sys.exit(f"{claim}: cannot run: {reason}")
    if arguments.json:
        print(json.dumps({"claim": claim, "figures": [asdict(each) for each in figures]}))
        return
    print(claim)
    for each in figures:
        print(f"  {each.line()}")


def pin() -> None:
    """Start this program anew with a pinned allocator, unless it has one."""
    if any(os.environ.get(name) != value for name, value in PINNED_MALLOC.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], child_environment())  # noqa: S606  # itself


def child_environment() -> dict[str, str]:
    """Return the environment for a child that is measured: pinned, and free of coverage."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return kept | PINNED_MALLOC | {"PYTHONPATH": str(ROOT)}


def child(module: str, *arguments: str, prefix: Sequence[str] = ()) -> str:
    """Run ``python -m module`` in a fresh process, and return what it printed."""
    finished = subprocess.run(
        [*prefix, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise CannotRun(f"{module} {' '.join(arguments)} ended with {finished.returncode}")
    return finished.stdout


def own_cpu(number: int) -> None:
    """Stay on one processor, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        there = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {there[number % len(there)]})


@frozen
class Samples:
    """What each run of one variant took."""

    taken: list[float] = field(factory=list)

    @property
    def least(self) -> float:
        """The run that was disturbed least."""
        return min(self.taken)

    @property
    def control(self) -> float:
        """The ratio of the minima of the odd and the even runs: what noise amounts to."""
        halves = sorted([min(self.taken[::2]), min(self.taken[1::2])])
        return halves[1] / halves[0]


def in_turns(variants: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Samples]:
    """Time each variant once per round, in an order that turns, in nanoseconds."""
    samples = {name: Samples() for name in variants}
    names = list(variants)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name in turned(names, number):
                begun = perf_counter_ns()
                variants[name]()
                samples[name].taken.append(perf_counter_ns() - begun)
    finally:
        gc.enable()
    return samples


def turned(names: list[str], number: int) -> list[str]:
    """Return *names*, beginning elsewhere each time and every other time backwards."""
    place = number % len(names)
    order = names[place:] + names[:place]
    return order[::-1] if number // len(names) % 2 else order


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of all do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
