"""Budget 16: what a watcher costs that does not read.

A hundred uploads are reported a hundred times each, to one watcher that reads and to one that is
stuck. What the stuck one holds on to is counted, and how long a delivery takes with and without it.
"""

from __future__ import annotations

import gc
import tracemalloc

from attrs import evolve

from benchmarks.common import Figure, in_turns, own_cpu, run
from benchmarks.requests import OWNER
from benchmarks.snapshots import snapshot
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.interfaces import SystemClock

CLAIM = "a watcher that does not read"
UPLOADS = 100
REPORTS = 100


def updates(report: int) -> list[Update]:
    """Return a report of each upload, encoded as for a socket."""
    made = [
        Update(OWNER.id, evolve(snapshot(), upload_id=f"upload-{number:04}", sequence=report + 1))
        for number in range(UPLOADS)
    ]
    assert all(update.websocket_text for update in made)
    return made


def watcher_of(hub: Hub) -> Subscription:
    """Return a watcher of everything."""
    subscription = hub.subscribe(now=0)
    subscription.add_owner(OWNER.id)
    return subscription


def held(reports: int) -> tuple[int, int]:
    """Return how many snapshots a stuck watcher holds after that many reports, and the bytes."""
    hub = Hub(TaskSpawner(LogLimiter(SystemClock())))
    stuck = watcher_of(hub)
    gc.collect()
    tracemalloc.start()
    for report in range(reports):
        for update in updates(report):
            hub.deliver(update)
    del update
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return len(stuck.take()), grown


def measure() -> list[Figure]:
    """Count what is held, and time the delivery to the others."""
    own_cpu(-1)
    held(1)
    # The first report has nothing to replace: tables have their size from the second on.
    twice, many = held(2), held(REPORTS)
    alone, beside = (
        Hub(TaskSpawner(LogLimiter(SystemClock()))),
        Hub(TaskSpawner(LogLimiter(SystemClock()))),
    )
    readers = [(hub, watcher_of(hub)) for hub in (alone, beside)]
    watcher_of(beside)

    def deliver(hub: Hub, reader: Subscription) -> None:
        for update in made:
            hub.deliver(update)
        reader.take()

    made = updates(1)
    samples = in_turns(
        {
            "alone": lambda: deliver(*readers[0]),
            "beside": lambda: deliver(*readers[1]),
        },
        rounds=200,
    )
    return [
        Figure(
            what=f"snapshots held after {REPORTS} reports of {UPLOADS} uploads",
            value=many[0],
            unit="snapshots",
            baseline=twice[0],
            budget=f"<= {UPLOADS}: one for each upload",
            holds=many[0] <= UPLOADS,
        ),
        Figure(
            what="bytes held after them, against after two reports of each",
            value=many[1],
            unit="B",
            baseline=twice[1],
            ratio=many[1] / twice[1],
            budget="ratio <= 1.05",
            holds=many[1] <= 1.05 * twice[1],
        ),
        Figure(
            what="delivery to a reader, beside one that is stuck",
            value=samples["beside"].least / UPLOADS,
            unit="ns",
            baseline=samples["alone"].least / UPLOADS,
        ),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
