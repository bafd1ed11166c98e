"""Budget 16: cost of a subscriber that does not read.

A hundred uploads are reported a hundred times each, to a subscriber that reads and to one that is
stalled. Measured are the snapshots and bytes that the stalled one holds, and the time of a delivery
with and without it.
"""

from __future__ import annotations

import gc
import tracemalloc

from attrs import evolve

from benchmarks.harness import Figure, interleave, pin_to_processor, run
from benchmarks.sample_snapshot import sample_snapshot
from benchmarks.synthetic_requests import OWNER
from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.interfaces import SystemClock

TITLE = "subscriber that does not read"
UPLOADS = 100
REPORTS = 100


def updates(report: int) -> list[Update]:
    """Return an update of each upload, encoded for WebSockets."""
    encoded = [
        Update(
            OWNER.id,
            evolve(sample_snapshot(), upload_id=f"upload-{number:04}", sequence=report + 1),
        )
        for number in range(UPLOADS)
    ]
    assert all(update.websocket_text for update in encoded)
    return encoded


def subscribe_all(hub: Hub) -> Subscription:
    """Return a subscription to all uploads."""
    subscription = hub.subscribe(now=0)
    subscription.add_owner(OWNER.id)
    return subscription


def memory_held(reports: int) -> tuple[int, int]:
    """Return the snapshots and bytes that a stalled subscriber holds after *reports*."""
    hub = Hub(TaskSpawner(LogLimiter(SystemClock())))
    stalled = subscribe_all(hub)
    gc.collect()
    tracemalloc.start()
    for report in range(reports):
        for update in updates(report):
            hub.deliver(update)
    del update
    gc.collect()
    growth = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return len(stalled.take()), growth


def measure() -> list[Figure]:
    """Measure the memory, and the time of a delivery to other subscribers."""
    pin_to_processor(-1)
    memory_held(1)
    # The first report replaces nothing: tables reach their size with the second.
    after_two, after_many = memory_held(2), memory_held(REPORTS)
    alone, with_stalled = (
        Hub(TaskSpawner(LogLimiter(SystemClock()))),
        Hub(TaskSpawner(LogLimiter(SystemClock()))),
    )
    readers = [(hub, subscribe_all(hub)) for hub in (alone, with_stalled)]
    subscribe_all(with_stalled)

    def deliver(hub: Hub, reader: Subscription) -> None:
        for update in encoded:
            hub.deliver(update)
        reader.take()

    encoded = updates(1)
    samples = interleave(
        {
            "alone": lambda: deliver(*readers[0]),
            "beside": lambda: deliver(*readers[1]),
        },
        rounds=200,
    )
    return [
        Figure(
            name=f"snapshots held after {REPORTS} reports of {UPLOADS} uploads",
            value=after_many[0],
            unit="snapshots",
            baseline=after_two[0],
            budget=f"<= {UPLOADS}: one for each upload",
            is_met=after_many[0] <= UPLOADS,
        ),
        Figure(
            name=f"bytes held after {REPORTS} reports, against 2 reports",
            value=after_many[1],
            unit="B",
            baseline=after_two[1],
            ratio=after_many[1] / after_two[1],
            budget="ratio <= 1.05",
            is_met=after_many[1] <= 1.05 * after_two[1],
        ),
        Figure(
            name="delivery to another subscriber, with and without a stalled one",
            value=samples["beside"].minimum / UPLOADS,
            unit="ns",
            baseline=samples["alone"].minimum / UPLOADS,
        ),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
