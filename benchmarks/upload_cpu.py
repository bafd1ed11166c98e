"""Budget 3: what following a 1 GiB PUT costs the server, with everything on.

One server has both variants under two paths; they take turns. It follows the upload for an owner
who watches by an event stream all the time, in a memory store. The server says how much processor
time it has used; the time it takes to tell of the end is counted as well. The control is the
spread of the bare variant: the ratio of the minima of its odd and even runs.
"""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median

from benchmarks.client import Crowd, Server, open_stream, serving
from benchmarks.common import Figure, Samples, run, turned

CLAIM = "server CPU of a 1 GiB upload"
SIZE_BYTES = 1 << 30
ROUNDS = 24
BUDGET = 1.02
IDLE_SECONDS = 3.0


def upload(server: Server, subscription: Crowd, path: str, size_bytes: int) -> float:
    """Upload, and return the server's CPU seconds."""
    before = server.cpu_seconds()
    server.put(path, size_bytes)
    # What is due is sent within a flush interval; both variants wait for it.
    while subscription.read(0.15):
        pass
    return server.cpu_seconds() - before


def compare(server: Server, subscription: Crowd) -> dict[str, Samples]:
    """Let the two take turns, after one run of each that is not counted."""
    samples = {"/bare": Samples(), "/followed": Samples()}
    for path in samples:
        upload(server, subscription, path, SIZE_BYTES // 4)
    for number in range(ROUNDS):
        for path in turned(list(samples), number):
            samples[path].taken.append(upload(server, subscription, path, SIZE_BYTES))
    return samples


def measure() -> list[Figure]:
    """Compare, and tell what a tracker costs that has nothing to do."""
    with serving() as server, closing(Crowd()) as subscription:
        subscription.join(open_stream(server, "/uploads/progress"))
        subscription.load_prior_state()
        samples = compare(server, subscription)
        seen = subscription.received_bytes
        before = server.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (server.cpu_seconds() - before) / IDLE_SECONDS
    bare, followed = samples["/bare"], samples["/followed"]
    ratio = followed.least / bare.least
    return [
        Figure(
            what="1 GiB PUT, followed and watched",
            value=followed.least,
            unit="CPU s",
            baseline=bare.least,
            ratio=ratio,
            control=bare.control,
            budget=f"ratio <= {BUDGET}",
            holds=ratio <= BUDGET,
        ),
        Figure(
            what="the same, medians",
            value=median(followed.taken),
            unit="CPU s",
            baseline=median(bare.taken),
            ratio=median(followed.taken) / median(bare.taken),
            control=median(bare.taken[::2]) / median(bare.taken[1::2]),
        ),
        Figure(what="bytes that the watcher got, all uploads", value=seen, unit="B"),
        Figure(what="idle server, tracker running", value=idle * 1000, unit="CPU ms/s"),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
