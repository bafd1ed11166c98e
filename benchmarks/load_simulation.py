"""A simulation of many uploads at many workers, in virtual time, with the real flusher and ticker.

    python -m benchmarks.load_simulation UPLOADS WORKERS BUDGET PASS_SECONDS RECORD_SECONDS

Each upload gets a chunk every second, a few that are watched four times a second. What a pass of
the flusher costs in real time is given: it is measured by ``benchmarks.scaling``. Prints one line
of JSON.
"""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import msgspec
from attrs import define, field, frozen

from benchmarks.harness import percentile
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from upload_progress import Identity, Limits, MemoryStore, ProgressTracker
from upload_progress._internals import TrackerInternals, internals_of
from upload_progress._model.models import TransferRecord
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.backends.memory import MemoryPublisher

# Small, so that the machine has its processors for what is measured; no report depends on bytes.
CHUNK_BYTES = 1024
TOTAL_BYTES = 1 << 30
QUARTER_SECONDS = 0.25
START_SECONDS = 3
WARM_SECONDS = 8
SECONDS = 6
MAX_WATCHED = 20
OWNER_UPLOADS = 100
MAX_MEMORY_BYTES = 6 << 30


@frozen
class Load:
    """What a number of uploads costs.

    Attributes:
        uploads: How many uploads there were.
        workers: At how many workers.
        budget: How many records per second each may write.
        chunks: Chunks that were sent in a second.
        records: Records that all workers wrote in a second.
        batches: Batches that all workers wrote in a second.
        here_seconds: p99 of the age of an upload that is watched at the worker that receives it.
        elsewhere_seconds: The same for one that is watched at another worker.
        upload_bytes: The memory of an upload.
        cpu_seconds: CPU time of all workers in a second; None if it is simulated.
        store_cpu_seconds: CPU time of the store in a second; None if it is simulated.
    """

    uploads: int
    workers: int
    budget: float
    chunks: float
    records: float
    batches: float
    here_seconds: float
    elsewhere_seconds: float
    upload_bytes: float
    cpu_seconds: float | None = None
    store_cpu_seconds: float | None = None


@define
class Ages:
    """When snapshots of each upload were seen, and when they were made, in seconds."""

    seen: dict[str, list[tuple[float, float]]] = field(factory=lambda: defaultdict(list))

    def p99(self, start: float, end: float) -> float:
        """Return the p99 of the age of what is shown, over all uploads and times in between."""
        ages = []
        for snapshots in self.seen.values():
            position, now = -1, start
            while now < end:
                while position + 1 < len(snapshots) and snapshots[position + 1][0] <= now:
                    position += 1
                ages.append(now - (snapshots[position][1] if position >= 0 else start))
                now += 0.01
        return percentile(ages, 0.99)


def watched_count(uploads: int) -> int:
    """Return how many of *uploads* are watched, at each of two workers."""
    return min(MAX_WATCHED, uploads // 10)


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


@define(eq=False)
class SlowStore(MemoryStore):
    """A store that takes as long for a batch as a pass of the flusher did when it was measured."""

    pass_seconds: float = 0.0
    record_seconds: float = 0.0

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        await anyio.sleep(self.pass_seconds + self.record_seconds * len(records))
        return await super().save(records)


def begin(internals: TrackerInternals, owner: str, upload_id: str) -> LiveUpload:
    """Admit and begin an upload."""
    live = internals.admission.open(requested_id=upload_id, total_bytes=TOTAL_BYTES)
    assert internals.admission.admit(live, Identity(owner))
    live.begin()
    return live


def receive(lives: Sequence[LiveUpload]) -> None:
    """Count a chunk of each upload, as the middleware does."""
    for live in lives:
        if live.meter.add(CHUNK_BYTES):
            live.check_due(live.opened_by)


async def run_worker(internals: TrackerInternals, number: int, uploads: int, watched: int) -> None:
    """Receive the uploads of one worker, evenly over each second."""
    groups: list[list[LiveUpload]] = [[] for _ in range(4 * START_SECONDS)]
    often = [
        begin(internals, owner, f"{owner}-{each}")
        for owner in ("here", "elsewhere")
        for each in range(watched)
    ]
    for position, group in enumerate(groups):
        for each in range(position, uploads - len(often), len(groups)):
            owner = f"user-{number}-{each // OWNER_UPLOADS}"
            group.append(begin(internals, owner, f"upload-{number}-{each}"))
        receive(often)
        await anyio.sleep(QUARTER_SECONDS)
    quarters = [[live for group in groups[each::4] for live in group] for each in range(4)]
    for _ in range(WARM_SECONDS + SECONDS):
        for quarter in quarters:
            # In five portions, so that not all gates open in one tick.
            for portion in range(5):
                receive(quarter[portion::5])
                await anyio.sleep(QUARTER_SECONDS / 5)
            receive(often)


async def watch(internals: TrackerInternals, owner: str, ages: Ages) -> None:
    """Note when snapshots of the uploads of *owner* are seen."""
    subscription = internals.subscribe()
    subscription.add_owner(owner)
    while True:
        for update in await internals.wait(subscription):
            seen = ages.seen[update.progress.upload_id]
            seen.append((VirtualClock().time(), update.progress.updated_at.timestamp()))


async def simulate(
    uploads: int, workers: int, budget: float, pass_seconds: float, record_seconds: float
) -> Load:
    """Return the load of that many uploads at that many workers."""
    clock = VirtualClock()
    store = SlowStore(clock=clock, pass_seconds=pass_seconds, record_seconds=record_seconds)
    publisher, before = MemoryPublisher(), resident_bytes()
    limits = Limits(tracked_per_owner=uploads, tracked_total=uploads)
    trackers = [
        ProgressTracker(
            store=store,
            publisher=publisher,
            clock=clock,
            limits=limits,
            store_records_per_second=budget,
        )
        for _ in range(workers)
    ]
    every = [internals_of(each) for each in trackers]
    here, elsewhere = Ages(), Ages()
    async with AsyncExitStack() as stack:
        for tracker in trackers:
            await stack.enter_async_context(tracker.lifespan())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(watch, every[0], "here", here)
        tasks.start_soon(watch, every[-1], "elsewhere", elsewhere)
        await anyio.sleep(0.01)
        for number, internals in enumerate(every):
            watched = 0 if number else watched_count(uploads)
            tasks.start_soon(run_worker, internals, number, uploads // workers, watched)
        await anyio.sleep(START_SECONDS + WARM_SECONDS)
        started_at = clock.time()
        records = sum(each.flusher.records for each in every)
        batches = sum(each.flusher.writes for each in every)
        await anyio.sleep(SECONDS - 1)
        seconds = clock.time() - started_at
        load = Load(
            uploads=uploads,
            workers=workers,
            budget=budget,
            chunks=uploads + 3 * 2 * watched_count(uploads),
            records=(sum(each.flusher.records for each in every) - records) / seconds,
            batches=(sum(each.flusher.writes for each in every) - batches) / seconds,
            here_seconds=here.p99(started_at, clock.time()),
            elsewhere_seconds=elsewhere.p99(started_at, clock.time()),
            upload_bytes=(resident_bytes() - before) / uploads,
        )
        tasks.cancel_scope.cancel()
    return load


def main() -> None:
    """Simulate, and print the load."""
    uploads, workers = map(int, sys.argv[1:3])
    budget, pass_seconds, record_seconds = map(float, sys.argv[3:6])
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))

    async def run() -> Load:
        return await simulate(uploads, workers, budget, pass_seconds, record_seconds)

    print(msgspec.json.encode(run_in_virtual_time(run, "asyncio")).decode())


if __name__ == "__main__":
    main()
