"""Budget 2: what the middleware adds to each message of a body, in nanoseconds.

The floor is one coroutine more per message, so bare is no fair thing to be divided by: it is held
against the least wrapper that counts, by what each adds to bare, in the same run.
"""

from __future__ import annotations

from functools import partial

from benchmarks.common import Figure, in_turns, own_cpu, run
from benchmarks.requests import bare, trivial, wrapped

CLAIM = "wrapper: nanoseconds per message"
MESSAGES = 2000
ROUNDS = 800
BUDGET = 1.25


def measure() -> list[Figure]:
    """Time the four in turns, and compare what the fastest run of each added."""
    own_cpu(-1)
    variants = {
        "bare": bare,
        "trivial": trivial,
        "wrapper": wrapped,
        "again": bare,
    }
    calls = {name: partial(variant, MESSAGES) for name, variant in variants.items()}
    samples = in_turns(calls, rounds=ROUNDS)
    least = {name: each.least / MESSAGES for name, each in samples.items()}
    added = {name: each - min(least["bare"], least["again"]) for name, each in least.items()}
    ratio = added["wrapper"] / added["trivial"]
    return [
        Figure(
            what="wrapper over bare, against trivial over bare",
            value=added["wrapper"],
            unit="ns",
            baseline=added["trivial"],
            ratio=ratio,
            control=least["again"] / least["bare"],
            budget=f"ratio <= {BUDGET}",
            holds=ratio <= BUDGET,
        ),
        Figure(what="bare", value=least["bare"], unit="ns"),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
