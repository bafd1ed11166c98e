"""Budget 1: what the middleware adds to each message of a body, in processor instructions.

Valgrind counts instructions exactly, so the figure does not depend on the machine's load. Each
variant receives N and then 2N messages, and the difference of the two is divided by N: what comes
once per request or once per process cancels out. ``getppid`` marks the borders: valgrind writes
its count and starts anew at each call, and nobody else calls it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from benchmarks.common import CannotRun, Figure, child, run
from benchmarks.requests import bare, through_middleware, trivial, wrapped
from upload_progress import ProgressTracker

CLAIM = "wrapper: instructions per message"
MESSAGES = 1000
BUDGET = 3000
VARIANTS = ("bare", "trivial", "wrapper", "middleware")


def count() -> dict[str, float]:
    """Return the instructions that each variant takes per message."""
    if not shutil.which("valgrind"):
        raise CannotRun("valgrind is not installed")
    with TemporaryDirectory() as folder:
        valgrind = [
            *("valgrind", "--tool=callgrind", "--quiet", "--dump-before=getppid"),
            f"--callgrind-out-file={folder}/out",
        ]
        child("benchmarks.wrapper_instructions", "--child", prefix=valgrind)
        totals = [
            int(
                re.findall(
                    r"^totals: (\d+)", Path(folder, f"out.{part}").read_text(), re.MULTILINE
                )[0]
            )
            for part in range(1, 3 * len(VARIANTS) + 1)
        ]
    return {
        name: (totals[3 * place + 2] - totals[3 * place + 1]) / MESSAGES
        for place, name in enumerate(VARIANTS)
    }


def measure() -> list[Figure]:
    """Count, and hold against bare."""
    counts = count()
    return [
        Figure(
            what=f"{name} over bare",
            value=counts[name] - counts["bare"],
            unit="instructions",
            baseline=counts["bare"],
            ratio=counts[name] / counts["bare"],
            budget=f"<= {BUDGET}" if name in VARIANTS[2:] else "",
            holds=counts[name] - counts["bare"] <= BUDGET if name in VARIANTS[2:] else None,
        )
        for name in VARIANTS[1:]
    ]


async def be_counted() -> None:
    """Run each variant between marks; the middleware asks which event loop it is on."""
    tracker = ProgressTracker()
    async with tracker.lifespan():
        for variant in (bare, trivial, wrapped, through_middleware(tracker)):
            for messages in (50, 50):
                variant(messages)
            for messages in (MESSAGES, 2 * MESSAGES):
                os.getppid()
                variant(messages)
            os.getppid()


if __name__ == "__main__":
    if "--child" in sys.argv:
        anyio.run(be_counted)
    else:
        run(CLAIM, measure)
