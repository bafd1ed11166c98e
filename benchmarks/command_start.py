"""Budget 18: how long the command line takes to answer.

Help and the refusal of a wrong command load no driver; what asks a server loads its client. A
bare interpreter is the baseline. Seconds depend on the machine, so they are told beside it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.common import Figure, child_environment, in_turns, run

CLAIM = "start of the command line"
ROUNDS = 15
BUDGET_SECONDS = 0.4
URL = "http://127.0.0.1:9/"
ARGUMENTS = {
    "bare": ("-c", ""),
    "--help": ("-m", "upload_progress.cli", "--help"),
    "put, of a file that is not there": ("-m", "upload_progress.cli", "put", "/nonexistent", URL),
}


def start(arguments: tuple[str, ...]) -> None:
    """Run Python with *arguments* to its end."""
    subprocess.run(
        [sys.executable, *arguments],
        env=child_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def measure() -> list[Figure]:
    """Start each in turns; of each the round that was disturbed least counts."""
    taken = in_turns(
        {name: partial(start, arguments) for name, arguments in ARGUMENTS.items()}, rounds=ROUNDS
    )
    bare = taken.pop("bare")
    return [
        Figure(
            what=name,
            value=samples.least / 1e9,
            unit="s",
            baseline=bare.least / 1e9,
            control=bare.control,
            budget=f"<= {BUDGET_SECONDS} s",
            holds=samples.least / 1e9 <= BUDGET_SECONDS,
        )
        for name, samples in taken.items()
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
