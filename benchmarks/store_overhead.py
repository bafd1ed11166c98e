"""Budget 4: cost of an upload with Redis or PostgreSQL as store and with a subscriber.

Measured are the CPU time of the server for 1 GiB, as in ``upload_cpu``, and the time of a client
for 4 MiB, which must not depend on the store. Each store has a separate server, on which tracked
and untracked uploads are interleaved. The CPU time of the store is not counted, but the store
competes for the processors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from statistics import median

from benchmarks import upload_cpu
from benchmarks.client import ConnectionGroup, Server, open_stream, running_server
from benchmarks.harness import Figure, Samples, rotate, run
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import postgres, redis
from tests._support.server_processes import ServerProcess
from upload_progress.backends.postgres.schema import migrate

TITLE = "upload with a store"
SMALL_BYTES = 4 << 20
SMALL_ROUNDS = 300
BUDGET_CPU, BUDGET_WALL = 1.03, 1.10
STORES: dict[str, Callable[..., ServerProcess]] = {"Redis": redis, "PostgreSQL": postgres}


def measure_client(server: Server) -> dict[str, Samples]:
    """Interleave small uploads; return the milliseconds of each."""
    samples = {"/untracked": Samples(), "/tracked": Samples()}
    for number in range(SMALL_ROUNDS):
        for path in rotate(list(samples), number):
            samples[path].durations.append(server.put(path, SMALL_BYTES) * 1000)
    return samples


def compare_figures(
    name: str, unit: str, samples: dict[str, Samples], budget: float
) -> list[Figure]:
    """Compare the fastest runs of both variants, and show the medians."""
    untracked, tracked = samples["/untracked"], samples["/tracked"]
    ratio = tracked.minimum / untracked.minimum
    return [
        Figure(
            name=name,
            value=tracked.minimum,
            unit=unit,
            baseline=untracked.minimum,
            ratio=ratio,
            control=untracked.control,
            budget=f"ratio <= {budget}",
            is_met=ratio <= budget,
        ),
        Figure(
            name=f"{name}, median",
            value=median(tracked.durations),
            unit=unit,
            baseline=median(untracked.durations),
            ratio=median(tracked.durations) / median(untracked.durations),
            control=median(untracked.durations[::2]) / median(untracked.durations[1::2]),
        ),
    ]


def measure() -> list[Figure]:
    """Compare both variants with each store."""
    figures = []
    for name, recipe in STORES.items():
        with running_backend(recipe) as url:
            if recipe is postgres:
                asyncio.run(migrate(url))
            with running_server(url) as server, closing(ConnectionGroup()) as subscriber:
                subscriber.add(open_stream(server, "/uploads/progress"))
                subscriber.discard_pending()
                large = upload_cpu.compare(server, subscriber)
                small = measure_client(server)
        figures += compare_figures(f"{name}: 1 GiB, CPU of the server", "CPU s", large, BUDGET_CPU)
        figures += compare_figures(f"{name}: 4 MiB, time of the client", "ms", small, BUDGET_WALL)
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
