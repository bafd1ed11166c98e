"""Budget 18: start-up time of the command line.

Help is stored as text; a usage error imports the parser of arguments, and a command that sends
requests imports the HTTP client, too, with what it needs to connect. The baseline is the start of
the interpreter. As after an installation with pip, all modules are compiled: the first round does
it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.harness import Figure, child_environment, interleave, run

TITLE = "start-up of the command line"
ROUNDS = 15
BUDGET_SECONDS = 0.25
URL = "http://127.0.0.1:9/"
ARGUMENTS = {
    "python": ("-c", ""),
    "--help": ("-m", "upload_progress.cli", "--help"),
    "put of a missing file": ("-m", "upload_progress.cli", "put", "/nonexistent", URL),
    "put to a closed port": ("-m", "upload_progress.cli", "put", __file__, URL, "--retries=0"),
}


def start(arguments: tuple[str, ...]) -> None:
    """Run Python with *arguments* to its end."""
    subprocess.run(
        [sys.executable, *arguments],
        env=child_environment() | {"PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def measure() -> list[Figure]:
    """Start the commands interleaved; use the fastest round of each."""
    durations = interleave(
        {name: partial(start, arguments) for name, arguments in ARGUMENTS.items()}, rounds=ROUNDS
    )
    untracked = durations.pop("python")
    return [
        Figure(
            name=name,
            value=samples.minimum / 1e9,
            unit="s",
            baseline=untracked.minimum / 1e9,
            control=untracked.control,
            budget=f"<= {BUDGET_SECONDS} s",
            is_met=samples.minimum / 1e9 <= BUDGET_SECONDS,
        )
        for name, samples in durations.items()
    ]


if __name__ == "__main__":
    run(TITLE, measure)
