"""Budget 4: what an upload costs that is kept in Redis or PostgreSQL, and told to a watcher.

The processor time of a server for 1 GiB, as in ``upload_cpu``, and how long a client waits for
4 MiB: of those, one every few milliseconds, none should wait for the store. A server of its own
for each store, bare and followed uploads in turns; what the store's own process uses is not
counted, but it has to find a processor beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from statistics import median

from benchmarks import upload_cpu
from benchmarks.client import Crowd, Server, open_stream, serving
from benchmarks.common import Figure, Samples, run, turned
from benchmarks.updates import served
from tests._support.server_factories import postgres, redis
from tests._support.server_processes import ServerProcess
from upload_progress.backends.postgres.schema import migrate

CLAIM = "an upload with a store"
SMALL_BYTES = 4 << 20
SMALL_ROUNDS = 300
BUDGET_CPU, BUDGET_WALL = 1.03, 1.10
STORES: dict[str, Callable[..., ServerProcess]] = {"Redis": redis, "PostgreSQL": postgres}


def waits(server: Server) -> dict[str, Samples]:
    """Let small uploads take turns; return the milliseconds that each took."""
    samples = {"/bare": Samples(), "/followed": Samples()}
    for number in range(SMALL_ROUNDS):
        for path in turned(list(samples), number):
            samples[path].taken.append(server.put(path, SMALL_BYTES) * 1000)
    return samples


def judged(what: str, unit: str, samples: dict[str, Samples], budget: float) -> list[Figure]:
    """Hold the least disturbed of the followed against that of the bare; tell the medians."""
    bare, followed = samples["/bare"], samples["/followed"]
    ratio = followed.least / bare.least
    return [
        Figure(
            what=what,
            value=followed.least,
            unit=unit,
            baseline=bare.least,
            ratio=ratio,
            control=bare.control,
            budget=f"ratio <= {budget}",
            holds=ratio <= budget,
        ),
        Figure(
            what=f"{what}, medians",
            value=median(followed.taken),
            unit=unit,
            baseline=median(bare.taken),
            ratio=median(followed.taken) / median(bare.taken),
            control=median(bare.taken[::2]) / median(bare.taken[1::2]),
        ),
    ]


def measure() -> list[Figure]:
    """Compare with each store."""
    figures = []
    for name, recipe in STORES.items():
        with served(recipe) as url:
            if recipe is postgres:
                asyncio.run(migrate(url))
            with serving(url) as server, closing(Crowd()) as subscription:
                subscription.join(open_stream(server, "/uploads/progress"))
                subscription.load_prior_state()
                large = upload_cpu.compare(server, subscription)
                small = waits(server)
        figures += judged(f"{name}: 1 GiB, the server", "CPU s", large, BUDGET_CPU)
        figures += judged(f"{name}: 4 MiB, its client", "ms", small, BUDGET_WALL)
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
