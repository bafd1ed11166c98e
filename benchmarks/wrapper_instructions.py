"""Budget 1: processor instructions that the middleware adds to each message of a body.

Valgrind counts instructions exactly, independent of the load of the machine. Each variant receives
N and then 2N messages, and the difference is divided by N, so that costs per request and per
process cancel out. ``getppid`` separates the counts: valgrind writes and resets its count at each
call, and nothing else calls it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from benchmarks.harness import BenchmarkUnavailable, Figure, run, run_child
from benchmarks.synthetic_requests import minimal, through_middleware, untracked, wrapped
from upload_progress import ProgressTracker
from upload_progress.instrumentation.opentelemetry import instrument
from upload_progress.instrumentation.prometheus import ProgressCollector

TITLE = "receive wrapper: instructions per message"
MESSAGES = 1000
BUDGET = 3000
BUDGETED = ("receive wrapper", "middleware", "middleware with metrics and traces")
VARIANTS = ("untracked", "minimal wrapper", *BUDGETED)


def count() -> dict[str, float]:
    """Return the instructions per message of each variant."""
    if not shutil.which("valgrind"):
        raise BenchmarkUnavailable("valgrind is not installed")
    with TemporaryDirectory() as folder:
        valgrind = [
            *("valgrind", "--tool=callgrind", "--quiet", "--dump-before=getppid"),
            f"--callgrind-out-file={folder}/out",
        ]
        run_child("benchmarks.wrapper_instructions", "--child", prefix=valgrind)
        totals = [
            int(
                re.findall(
                    r"^totals: (\d+)", Path(folder, f"out.{part}").read_text(), re.MULTILINE
                )[0]
            )
            for part in range(1, 3 * len(VARIANTS) + 1)
        ]
    return {
        name: (totals[3 * position + 2] - totals[3 * position + 1]) / MESSAGES
        for position, name in enumerate(VARIANTS)
    }


def measure() -> list[Figure]:
    """Count, and compare with the untracked application."""
    counts = count()
    return [
        Figure(
            name=f"{name}: added to the untracked application",
            value=counts[name] - counts["untracked"],
            unit="instructions",
            baseline=counts["untracked"],
            ratio=counts[name] / counts["untracked"],
            budget=f"<= {BUDGET}" if name in BUDGETED else "",
            is_met=counts[name] - counts["untracked"] <= BUDGET if name in BUDGETED else None,
        )
        for name in VARIANTS[1:]
    ]


def instrumented_tracker() -> ProgressTracker:
    """Return a tracker whose metrics and traces are collected."""
    tracker = ProgressTracker()
    CollectorRegistry().register(ProgressCollector(tracker))
    meters, tracers = MeterProvider([InMemoryMetricReader()]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    instrument(tracker, meter_provider=meters, tracer_provider=tracers)
    return tracker


async def run_counted() -> None:
    """Run each variant between marks, in an event loop because the middleware detects its type."""
    plain, instrumented = ProgressTracker(), instrumented_tracker()
    middlewares = (through_middleware(plain), through_middleware(instrumented))
    async with plain.lifespan(), instrumented.lifespan():
        for variant in (untracked, minimal, wrapped, *middlewares):
            for messages in (50, 50):
                variant(messages)
            for messages in (MESSAGES, 2 * MESSAGES):
                os.getppid()
                variant(messages)
            os.getppid()


if __name__ == "__main__":
    if "--child" in sys.argv:
        anyio.run(run_counted)
    else:
        run(TITLE, measure)
