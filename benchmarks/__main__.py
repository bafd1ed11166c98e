"""Run the benchmarks, each in a process of its own: ``python -m benchmarks [--markdown] [NAME…]``.

With ``--markdown`` the result is a table, for the page about performance; with ``--json`` a line
for each claim. The exit code is 0 unless a benchmark could not run: a missed budget is a finding,
and on a busy machine maybe none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from benchmarks.common import ROOT, Figure, child_environment, short

CLAIMS = {
    "wrapper_instructions": 1,
    "wrapper_nanoseconds": 2,
    "upload_cpu": 3,
    "stored_uploads": 4,
    "slow_store": 5,
    "store_writes": 6,
    "session_memory": 7,
    "expiry_stall": 8,
    "live_uploads": 9,
    "redis_updates": 10,
    "postgres_updates": 11,
    "websocket_fanout": 12,
    "sse_fanout": 13,
    "across_workers": 14,
    "poll_latency": 15,
    "stuck_watcher": 16,
    "put_curl": 17,
    "command_start": 18,
    "web_page": 19,
    "recognition": 20,
    "parallel_parts": 21,
    "many_workers": 22,
    "commits_beside": 23,
}
"""The files that measure, and the number of the budget that each of them is about."""


class Result(TypedDict):
    """What a benchmark prints with ``--json``."""

    claim: str
    figures: list[dict[str, object]]


def measured(name: str) -> Result | None:
    """Run a benchmark; return what it found, or None when it could not run."""
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--json"],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        return None
    result: Result = json.loads(finished.stdout)
    return result


def rows(number: int, result: Result) -> list[str]:
    """Return a benchmark's figures as rows of a table."""
    lines = []
    for values in result["figures"]:
        figure = Figure(**values)  # type: ignore[arg-type]  # as written by ``run``
        cells = [
            str(number),
            f"{result['claim']}: {figure.what}",
            f"{short(figure.value)} {figure.unit}",
            "" if figure.baseline is None else short(figure.baseline),
            "" if figure.ratio is None else f"{figure.ratio:.3f}",
            "" if figure.control is None else f"{figure.control:.3f}",
            figure.budget,
            {True: "kept", False: "**missed**", None: ""}[figure.holds],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print one table")
    form.add_argument("--json", action="store_true", help="print a line of JSON for each claim")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLAIMS))
    arguments = parser.parse_args()
    names = [Path(name).stem for name in arguments.names] or list(CLAIMS)
    if unknown := set(names) - set(CLAIMS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if arguments.markdown:
        print("| budget | what | figure | baseline | ratio | A/A | allowed | |")
        print("|---:|---|---:|---:|---:|---:|---|---|")
    failed = 0
    for name in names:
        result = measured(name)
        if result is None:
            failed += 1
        elif arguments.json:
            print(json.dumps(result), flush=True)
        elif arguments.markdown:
            print("\n".join(rows(CLAIMS[name], result)), flush=True)
        else:
            print(f"{CLAIMS[name]}. {result['claim']}")
            for values in result["figures"]:
                print(f"   {Figure(**values).line()}", flush=True)  # type: ignore[arg-type]  # as above
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
