"""The arithmetic of many uploads and watchers: measured, simulated and derived.

    python -m benchmarks.scaling              print the tables
    python -m benchmarks.scaling --markdown   the same for docs/generated/scaling.md

Measures two real workers that share a real Redis, simulates the same and more uploads in virtual
time with the real flusher, and derives what 1, 3 and 20 workers need. Takes about four minutes on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence

import msgspec

from benchmarks.harness import format_number, restart_with_pinned_allocator, run_child
from benchmarks.load_measurement import Case, Measurements, PassCost, measure
from benchmarks.load_simulation import Load
from upload_progress import ProgressTracker
from upload_progress._tracking.store_budget import LONGEST_INTERVAL_SECONDS

MANY, MANY_WORKERS = 100_000, 20
WORKERS = (1, 3, 20)
WATCHERS = (10_000, 100_000, 1_000_000)
BUDGET = ProgressTracker().config.store_records_per_second
SMALL_BUDGET = 500.0
"""A budget for 5,000 uploads that two processors can carry beside the sender and Redis."""
CASES = (Case(50, BUDGET), Case(500, BUDGET), Case(5000, BUDGET), Case(5000, SMALL_BUDGET))
MAX_WORKER_BYTES = 1 << 30
MAX_SHARE = 0.5

Table = Sequence[Sequence[str]]


def simulate(case: Case, workers: int, cost: PassCost) -> Load:
    """Simulate in a process of its own."""
    output = run_child(
        "benchmarks.load_simulation",
        *(str(case.uploads), str(workers), str(case.budget)),
        *(f"{cost.pass_seconds:.9f}", f"{cost.record_seconds:.9f}"),
    )
    return msgspec.json.decode(output, type=Load)


def number(value: float) -> str:
    """Return *value* with three digits."""
    return format_number(float(f"{value:.3g}"))


def size(size_bytes: float) -> str:
    """Return a number of bytes for people."""
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.1f} GiB"
    if size_bytes >= 1 << 20:
        return f"{size_bytes / (1 << 20):.0f} MiB"
    return f"{size_bytes / 1024:.1f} KiB"


def loads_table(measured: Measurements, simulated: Sequence[Load]) -> Table:
    """Compare what was measured with what was simulated."""
    rows = [
        [
            *("uploads", "workers", "budget of a worker", "", "chunks/s", "records/s", "batches/s"),
            *("p99 age, watched here", "p99 age, watched elsewhere"),
            *("memory of an upload", "CPU of the workers", "CPU of Redis"),
        ]
    ]
    known = {(each.uploads, each.budget): each for each in measured.loads}
    for each in simulated:
        real = known.get((each.uploads, each.budget))
        for name, load in (("measured", real), ("simulated", each)):
            if load is not None:
                case = (f"{load.uploads:,}", str(load.workers), f"{load.budget:,.0f} records/s")
                rows.append([*case, name, *_cells(load)])
        if real is not None:
            rows.append(
                [
                    *("", "", "", "ratio", f"{each.chunks / real.chunks:.2f}"),
                    *(f"{each.records / real.records:.2f}", f"{each.batches / real.batches:.2f}"),
                    f"{each.here_seconds / real.here_seconds:.2f}",
                    f"{each.elsewhere_seconds / real.elsewhere_seconds:.2f}",
                    *("", "", ""),
                ]
            )
    return rows


def _cells(load: Load) -> list[str]:
    return [
        number(load.chunks),
        number(load.records),
        number(load.batches),
        f"{load.here_seconds:.2f} s",
        f"{load.elsewhere_seconds:.2f} s",
        size(load.upload_bytes) if load.upload_bytes >= 1 else "",
        "" if load.cpu_seconds is None else f"{load.cpu_seconds:.2f} CPU s/s",
        "" if load.store_cpu_seconds is None else f"{load.store_cpu_seconds:.3f} CPU s/s",
    ]


def record_cpu_seconds(measured: Measurements) -> float:
    """Return the CPU time of a worker for a record, from the measurement with the most records."""
    load, untracked = max(measured.loads, key=lambda each: each.records), measured.untracked
    assert load.cpu_seconds is not None
    assert untracked.cpu_seconds is not None
    return (load.cpu_seconds - untracked.cpu_seconds) / load.records


def interval_seconds(uploads: int, workers: int) -> float:
    """Return how often each of *uploads* is stored."""
    return min(LONGEST_INTERVAL_SECONDS, max(1.0, uploads / (workers * BUDGET)))


def workers_table(measured: Measurements) -> Table:
    """Derive what the records of 1, 3 and 20 workers need."""
    cpu, store_cpu = record_cpu_seconds(measured), measured.watchers.update_store_cpu_seconds
    rows = [
        [
            *("workers", "records/s", "CPU of a worker for them", "CPU of Redis"),
            *("connections to Redis", "uploads stored every second"),
            *(f"interval with {uploads:,} uploads" for uploads in WATCHERS),
        ]
    ]
    for workers in WORKERS:
        records = workers * BUDGET
        rows.append(
            [
                str(workers),
                f"≤ {records:,.0f}",
                f"{100 * BUDGET * cpu:.0f} %",
                f"{100 * records * store_cpu:.0f} %",
                f"{workers * measured.watchers.connections:.0f}",
                f"{records:,.0f}",
                *(f"{interval_seconds(uploads, workers):.3g} s" for uploads in WATCHERS),
            ]
        )
    return rows


def watchers_table(measured: Measurements) -> Table:
    """Derive what watchers need, each of one upload that another worker receives."""
    cost = measured.watchers
    rows = [
        [
            *("watchers", "workers", "sockets of a worker", "memory of a worker for them"),
            *("updates/s of a worker", "CPU of a worker for them", "CPU of Redis"),
            *("age of what is shown", "store and broker", "last hop"),
        ]
    ]
    for watchers in WATCHERS:
        for workers in WORKERS:
            interval = interval_seconds(watchers, workers)
            sockets, updates = watchers / workers, watchers / workers / interval
            memory, share = sockets * cost.resident_bytes, updates * cost.update_cpu_seconds
            redis = workers * updates * cost.update_store_cpu_seconds
            fits = memory <= MAX_WORKER_BYTES and share <= MAX_SHARE
            rows.append(
                [
                    *(f"{watchers:,}", str(workers), f"{sockets:,.0f}", size(memory)),
                    *(number(updates), f"{100 * share:.0f} %", f"{100 * redis:.0f} %"),
                    f"≤ {interval + cost.p99_seconds:.1f} s",
                    "one Redis" if redis <= MAX_SHARE else "a Redis for each",
                    "Python" if fits else "more workers or a push server",
                ]
            )
    return rows


def costs_table(measured: Measurements) -> Table:
    """List the figures from which the others are derived."""
    cost, flush = measured.watchers, measured.pass_cost
    flush_seconds = flush.pass_seconds + 250 * flush.record_seconds
    return [
        ["figure", "measured"],
        ["records per second of a worker (`store_records_per_second`)", f"{BUDGET:,.0f}"],
        ["CPU of a worker for a record and its event", _us(record_cpu_seconds(measured))],
        ["CPU of Redis for a record, its event and a watcher", _us(cost.update_store_cpu_seconds)],
        ["CPU of a worker from an event to an event stream", _us(cost.update_cpu_seconds)],
        ["memory of an event stream, with its connection", size(cost.resident_bytes)],
        ["memory of an upload, with its connection", size(measured.loads[-1].upload_bytes)],
        ["the same, untracked", size(measured.untracked.upload_bytes)],
        [
            f"p99 from a report to {cost.watchers:,} watchers at another worker",
            f"{1000 * cost.p99_seconds:.0f} ms",
        ],
        ["connections of a worker to Redis", number(cost.connections)],
        ["a pass of the flusher with 250 records", f"{1000 * flush_seconds:.1f} ms"],
    ]


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs"


def text_of(table: Table, *, markdown: bool) -> str:
    """Return a table as text."""
    if not markdown:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        )
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def main() -> None:
    """Measure, simulate, derive, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    arguments = parser.parse_args()
    restart_with_pinned_allocator()
    load_average = os.getloadavg()[0]
    measured = measure(CASES)
    simulated = [simulate(each, 2, measured.pass_cost) for each in CASES]
    simulated.append(simulate(Case(MANY, BUDGET), MANY_WORKERS, measured.pass_cost))
    tables = {
        "Measured and simulated": loads_table(measured, simulated),
        "Costs": costs_table(measured),
        "Uploads": workers_table(measured),
        "Watchers": watchers_table(measured),
    }
    print(
        f"One run on {os.cpu_count()} processors, CPython {platform.python_version()}. "
        f"Other programs of the machine had used {load_average:.1f} processors before it. "
        "A chunk is a part of an upload that was sent.\n"
    )
    for title, table in tables.items():
        heading = f"### {title}\n" if arguments.markdown else f"{title}:"
        print(f"{heading}\n{text_of(table, markdown=arguments.markdown)}\n")


if __name__ == "__main__":
    main()
