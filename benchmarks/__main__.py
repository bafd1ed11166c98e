"""Run the benchmarks, each in a separate process: ``python -m benchmarks [--markdown] [NAME…]``.

``--markdown`` prints the table for ``docs/figures.md``, ``--json`` one line per benchmark. The exit
code is 1 if a benchmark is unavailable. A missed budget does not change it, because it may be noise
of a busy machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from benchmarks.harness import ROOT, Figure, child_environment, format_number

BUDGET_NUMBERS = {
    "wrapper_instructions": 1,
    "wrapper_nanoseconds": 2,
    "upload_cpu": 3,
    "store_overhead": 4,
    "slow_store": 5,
    "store_writes": 6,
    "upload_memory": 7,
    "expiry_pause": 8,
    "concurrent_uploads": 9,
    "redis_throughput": 10,
    "postgres_throughput": 11,
    "websocket_fanout": 12,
    "sse_fanout": 13,
    "cross_worker_latency": 14,
    "poll_latency": 15,
    "stalled_subscriber": 16,
    "put_vs_curl": 17,
    "cli_startup": 18,
    "web_page": 19,
    "protocol_detection": 20,
    "parallel_parts": 21,
    "two_workers": 22,
    "commit_latency": 23,
    "one_client": 24,
    "long_lists": 25,
    "poll_storm": 26,
    "fixed_cost": 27,
    "open_lists": 28,
}
"""The benchmark modules, and the number of the budget that each of them measures."""


class Result(TypedDict):
    """The output of a benchmark with ``--json``."""

    title: str
    figures: list[dict[str, object]]


def run_benchmark(name: str) -> Result | None:
    """Run a benchmark; return its result, None if it is unavailable."""
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


def table_rows(number: int, result: Result) -> list[str]:
    """Return the figures of a benchmark as table rows."""
    lines = []
    for values in result["figures"]:
        figure = Figure(**values)  # type: ignore[arg-type]  # the fields of Figure, written by ``run``
        cells = [
            str(number),
            f"{result['title']}: {figure.name}",
            f"{format_number(figure.value)} {figure.unit}",
            "" if figure.baseline is None else format_number(figure.baseline),
            "" if figure.ratio is None else f"{figure.ratio:.3f}",
            "" if figure.control is None else f"{figure.control:.3f}",
            figure.budget,
            {True: "met", False: "**missed**", None: ""}[figure.is_met],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run benchmarks and compare their figures with the performance budgets.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print one line of JSON per benchmark")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"benchmarks to run; default: all. Available: {', '.join(BUDGET_NUMBERS)}",
    )
    arguments = parser.parse_args()
    names = [Path(name).stem for name in arguments.names] or list(BUDGET_NUMBERS)
    if unknown := set(names) - set(BUDGET_NUMBERS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if arguments.markdown:
        print("| budget | benchmark | figure | baseline | ratio | A/A | allowed | |")
        print("|---:|---|---:|---:|---:|---:|---|---|")
    failed = 0
    for name in names:
        result = run_benchmark(name)
        if result is None:
            failed += 1
        elif arguments.json:
            print(json.dumps(result), flush=True)
        elif arguments.markdown:
            print("\n".join(table_rows(BUDGET_NUMBERS[name], result)), flush=True)
        else:
            print(f"{BUDGET_NUMBERS[name]}. {result['title']}")
            for values in result["figures"]:
                print(f"   {Figure(**values).line()}", flush=True)  # type: ignore[arg-type]  # as above
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
