"""Budget 8: longest pause of the event loop when a hundred thousand uploads expire at once.

A task that only yields measures the time between two of its turns, while the tracker ends all
uploads and later removes them. The baseline is the longest pause beside a task that only yields,
too. Measured is the CPU time of the thread, so that other processes do not count.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from time import thread_time

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from benchmarks.harness import Figure, pin_to_processor, run
from benchmarks.upload_memory import NOW, fill_store
from upload_progress import MemoryStore, ProgressTracker
from upload_progress._internals import internals_of

TITLE = "longest pause of the event loop when all uploads expire"
UPLOADS = 100_000
BUDGET_MILLISECONDS = 1.5
ROUNDS = 3
LATER_SECONDS = 25 * 3600.0


@define
class ManualClock:
    """A clock that is set by the benchmark."""

    now: float = NOW

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


async def longest_pause(work: Callable[[], Awaitable[None]]) -> float:
    """Return the longest pause of another task while *work* runs, in milliseconds."""
    longest, is_stopped = 0.0, False

    async def wait() -> None:
        nonlocal longest
        while not is_stopped:
            before = thread_time()
            await checkpoint()
            longest = max(longest, thread_time() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await checkpoint()
        await work()
        is_stopped = True
    return longest * 1000


async def run_background_work(
    tracker: ProgressTracker, store: MemoryStore, is_done: Callable[[], bool]
) -> None:
    """Run the background work of the tracker until *is_done*."""
    parts = internals_of(tracker)  # its pauses are of no interest here
    while not is_done():
        await parts.reaper.run_once()
        await parts.flusher.flush()


async def yield_only() -> None:
    """Yield 2000 times."""
    for _ in range(2000):
        await checkpoint()


async def pauses() -> tuple[float, float, float]:
    """Return the longest pauses while idle, while ending, and while removing all uploads."""
    store = await fill_store("pending", UPLOADS)
    clock = store.clock = ManualClock()
    tracker = ProgressTracker(store=store, clock=clock)
    gc.collect()
    gc.freeze()
    idle_pause = await longest_pause(yield_only)
    clock.now += LATER_SECONDS
    expiry_pause = await longest_pause(
        lambda: run_background_work(tracker, store, lambda: tracker.statistics().reaped == UPLOADS)
    )
    clock.now += LATER_SECONDS
    removal_pause = await longest_pause(
        lambda: run_background_work(tracker, store, lambda: not len(store))
    )
    return idle_pause, expiry_pause, removal_pause


def measure() -> list[Figure]:
    """Use the shortest of several rounds."""
    pin_to_processor(-1)
    rounds = [anyio.run(pauses) for _ in range(ROUNDS)]
    idle_pause, expiry_pause, removal_pause = (min(each) for each in zip(*rounds, strict=True))
    return [
        Figure(
            name=name,
            value=value,
            unit="ms",
            baseline=idle_pause,
            budget=f"<= {BUDGET_MILLISECONDS} ms",
            is_met=value <= BUDGET_MILLISECONDS,
        )
        for name, value in [
            ("expiring pending uploads", expiry_pause),
            ("removing ended uploads", removal_pause),
        ]
    ]


if __name__ == "__main__":
    run(TITLE, measure)
