"""Budget 24: what one client can cost the others.

Measured are requests that a client repeats: with an invalid ticket that names a worker, with an
upload that ends, and with a list of all uploads. The work of each must not grow with what the
client has sent before, and must not hold the event loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter

from attrs import evolve

from benchmarks.harness import Figure, interleave, pin_to_processor, run
from upload_progress import MemoryStore, ProgressTracker, Retention
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress.backends import MemoryPublisher

TITLE = "one client against the server"
TICKETS = 200
UPLOADS = 500
LISTS = 50
TICK_SECONDS = 0.001
MAX_RATIO = 2.0
MAX_PAUSE_MILLISECONDS = 50.0
ENDED = TransferRecord(
    "client", "u", "t", 1, 1, UploadState.COMPLETED, created_at=0.0, updated_at=0.0, finished_at=0.0
)


class CountingPublisher(MemoryPublisher):
    """Counts the messages to other workers."""

    sent = 0

    async def send(self, worker: str, message: bytes) -> None:
        """Send, and count."""
        self.sent += 1
        await super().send(worker, message)


async def redeem_invalid_tickets() -> tuple[float, int]:
    """Return the milliseconds that all took, and the messages that they caused."""
    publisher = CountingPublisher()
    tracker = ProgressTracker(publisher=publisher)
    directory = internals_of(tracker).directory
    async with tracker.lifespan():
        await directory.issuer_of("ticket", "first.x")
        publisher.sent, began = 0, perf_counter()
        for number in range(TICKETS):
            await directory.issuer_of("ticket", f"worker{number}.x")
        return (perf_counter() - began) * 1000, publisher.sent


def ended(first: int, count: int = UPLOADS) -> list[TransferRecord]:
    """Return records of ended uploads."""
    return [evolve(ENDED, upload_id=f"u{number}") for number in range(first, first + count)]


def store_with(count: int) -> MemoryStore:
    """Return a store in which the client has that many ended uploads."""
    store = MemoryStore(retention=Retention(ended_seconds=1e10))
    asyncio.run(store.save(ended(0, count)))
    return store


async def longest_pause(store: MemoryStore) -> float:
    """Return the longest time for which the event loop was held by a flood of lists."""
    tracker = ProgressTracker(store=store)
    pauses: list[float] = []

    async def watch() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            pauses.append(perf_counter() - began - TICK_SECONDS)

    async with tracker.lifespan():
        watching = asyncio.create_task(watch())
        everything = set(UploadState)
        await asyncio.gather(
            *(tracker.list(owner="client", states=everything) for _ in range(LISTS))
        )
        watching.cancel()
    return max(pauses) * 1000


def measure() -> list[Figure]:
    """Measure the three kinds of requests."""
    pin_to_processor(-1)
    milliseconds, sent = asyncio.run(redeem_invalid_tickets())
    few, many = store_with(0), store_with(20_000)
    numbers = iter(range(10_000_000, 10**12, UPLOADS))

    def save(store: MemoryStore) -> None:
        asyncio.run(store.save(ended(next(numbers))))

    samples = interleave({"few": partial(save, few), "many": partial(save, many)}, rounds=20)
    ratio = samples["many"].minimum / samples["few"].minimum
    pause = asyncio.run(longest_pause(store_with(2000)))
    return [
        Figure(
            name=f"messages of {TICKETS} requests with an invalid ticket",
            value=sent,
            unit="messages",
            budget="<= 1",
            is_met=sent <= 1,
        ),
        Figure(
            name="a request with an invalid ticket",
            value=milliseconds / TICKETS * 1000,
            unit="µs",
        ),
        Figure(
            name="saving an ended upload of an owner with 20,000, against one with few",
            value=samples["many"].minimum / UPLOADS / 1000,
            unit="µs",
            baseline=samples["few"].minimum / UPLOADS / 1000,
            ratio=ratio,
            control=samples["few"].control,
            budget=f"ratio <= {MAX_RATIO}",
            is_met=ratio <= MAX_RATIO,
        ),
        Figure(
            name=f"longest pause of the event loop during {LISTS} lists of all uploads at once",
            value=pause,
            unit="ms",
            budget=f"<= {MAX_PAUSE_MILLISECONDS} ms",
            is_met=pause <= MAX_PAUSE_MILLISECONDS,
        ),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
