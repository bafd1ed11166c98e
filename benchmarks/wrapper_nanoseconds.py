"""Budget 2: nanoseconds that the receive wrapper adds to each message of a body.

Every wrapper costs at least one more coroutine per message. The baseline is therefore a minimal
counting wrapper: compared is the time that each adds to the untracked application, in one run.
"""

from __future__ import annotations

from functools import partial

from benchmarks.harness import Figure, interleave, pin_to_processor, run
from benchmarks.synthetic_requests import minimal, untracked, wrapped

TITLE = "receive wrapper: nanoseconds per message"
MESSAGES = 2000
ROUNDS = 800
BUDGET = 1.25


def measure() -> list[Figure]:
    """Time the variants interleaved; compare what the fastest run of each adds."""
    pin_to_processor(-1)
    variants = {
        "untracked": untracked,
        "minimal": minimal,
        "wrapper": wrapped,
        "again": untracked,
    }
    calls = {name: partial(variant, MESSAGES) for name, variant in variants.items()}
    samples = interleave(calls, rounds=ROUNDS)
    minimum = {name: each.minimum / MESSAGES for name, each in samples.items()}
    added = {
        name: each - min(minimum["untracked"], minimum["again"]) for name, each in minimum.items()
    }
    ratio = added["wrapper"] / added["minimal"]
    return [
        Figure(
            name="added by the receive wrapper, against a minimal wrapper",
            value=added["wrapper"],
            unit="ns",
            baseline=added["minimal"],
            ratio=ratio,
            control=minimum["again"] / minimum["untracked"],
            budget=f"ratio <= {BUDGET}",
            is_met=ratio <= BUDGET,
        ),
        Figure(name="untracked application", value=minimum["untracked"], unit="ns"),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
