"""Budget 3: CPU time of the server for tracking a 1 GiB PUT.

Tracked and untracked uploads are interleaved on one server with a memory store, while the owner
receives progress by an event stream. The CPU time includes the publication of the final state. The
control is the ratio of the minima of the odd and the even untracked runs.
"""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median

from benchmarks.client import ConnectionGroup, Server, open_stream, running_server
from benchmarks.harness import Figure, Samples, rotate, run

TITLE = "server CPU of a 1 GiB upload"
SIZE_BYTES = 1 << 30
ROUNDS = 24
BUDGET = 1.02
IDLE_SECONDS = 3.0


def upload(server: Server, subscriber: ConnectionGroup, path: str, size_bytes: int) -> float:
    """Upload, and return the CPU seconds of the server."""
    before = server.cpu_seconds()
    server.put(path, size_bytes)
    # Updates arrive within a flush interval; both variants wait for it.
    while subscriber.read(0.15):
        pass
    return server.cpu_seconds() - before


def compare(server: Server, subscriber: ConnectionGroup) -> dict[str, Samples]:
    """Interleave both variants, after an uncounted run of each."""
    samples = {"/untracked": Samples(), "/tracked": Samples()}
    for path in samples:
        upload(server, subscriber, path, SIZE_BYTES // 4)
    for number in range(ROUNDS):
        for path in rotate(list(samples), number):
            samples[path].durations.append(upload(server, subscriber, path, SIZE_BYTES))
    return samples


def measure() -> list[Figure]:
    """Compare both variants, and measure an idle tracker."""
    with running_server() as server, closing(ConnectionGroup()) as subscriber:
        subscriber.add(open_stream(server, "/uploads/progress"))
        subscriber.discard_pending()
        samples = compare(server, subscriber)
        sent_bytes = subscriber.received_bytes
        before = server.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (server.cpu_seconds() - before) / IDLE_SECONDS
    untracked, tracked = samples["/untracked"], samples["/tracked"]
    ratio = tracked.minimum / untracked.minimum
    return [
        Figure(
            name="1 GiB PUT, tracked, with a subscriber",
            value=tracked.minimum,
            unit="CPU s",
            baseline=untracked.minimum,
            ratio=ratio,
            control=untracked.control,
            budget=f"ratio <= {BUDGET}",
            is_met=ratio <= BUDGET,
        ),
        Figure(
            name="the same, median",
            value=median(tracked.durations),
            unit="CPU s",
            baseline=median(untracked.durations),
            ratio=median(tracked.durations) / median(untracked.durations),
            control=median(untracked.durations[::2]) / median(untracked.durations[1::2]),
        ),
        Figure(name="bytes sent to the subscriber, all uploads", value=sent_bytes, unit="B"),
        Figure(name="idle server, tracker running", value=idle * 1000, unit="CPU ms/s"),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
