"""Budget 6: how often the store is written to, per upload.

Whole requests go through the middleware in virtual time: trio's mock clock jumps to the next
moment at which somebody wakes up, so a minute takes no time, and each run counts the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import anyio
import trio
import trio.testing
from attrs import define, field, frozen

from benchmarks.common import Figure, run
from benchmarks.requests import BODY, OWNER, application, scope_of, swallow
from upload_progress import MemoryStore, ProgressTracker, TransferRecord
from upload_progress._fanout.subscription import Subscription
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message
from upload_progress.tracker import internals_of

CLAIM = "store writes per upload"
LONG_SECONDS = 10
GAP_SECONDS = 0.1


class VirtualClock:
    """Reads trio's clock, which is a mock."""

    def monotonic(self) -> float:
        return trio.current_time()

    def time(self) -> float:
        return 1_700_000_000 + trio.current_time()


@define(eq=False)
class CountedStore(MemoryStore):
    """Notes when each upload was written."""

    written: dict[str, list[float]] = field(factory=lambda: defaultdict(list), init=False)
    batches: int = field(default=0, init=False)

    async def save(self, records: Sequence[TransferRecord]) -> None:
        self.batches += 1
        for record in records:
            self.written[record.upload_id].append(self.clock.monotonic())
        await super().save(records)


@frozen
class Writes:
    """What one upload cost the store."""

    count: int
    least_gap_seconds: float


async def upload(store: CountedStore, *, seconds: float, messages: int, watched: bool) -> Writes:
    """Receive an upload whose messages come evenly over *seconds*."""
    tracker = ProgressTracker(store=store, clock=store.clock)
    middleware = UploadProgressMiddleware(
        application, tracker=tracker, authenticate=lambda _connection: OWNER
    )
    left = messages

    async def receive() -> Message:
        nonlocal left
        left -= 1
        await anyio.sleep(seconds / messages)
        return {"type": "http.request", "body": BODY, "more_body": left > 0}

    async with tracker.lifespan(), anyio.create_task_group() as tasks:
        if watched:
            subscription = internals_of(tracker).subscribe()
            subscription.add_owner(OWNER.id)
            tasks.start_soon(_read, tracker, subscription)
        await middleware(scope_of(messages, "counted"), receive, swallow)
        while tracker.statistics().live_uploads:  # noqa: ASYNC110  # nothing tells of the end
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    return writes_of(store)


async def _read(tracker: ProgressTracker, subscription: Subscription) -> None:
    while True:
        await internals_of(tracker).wait(subscription)


def writes_of(store: CountedStore) -> Writes:
    """Count the writes of the only upload in *store*."""
    [moments] = store.written.values()
    gaps = [after - before for before, after in pairwise(moments)]
    return Writes(len(moments), min(gaps, default=float("inf")))


def count(*, seconds: float, messages: int = 1000, watched: bool = True) -> Writes:
    """Receive an upload in virtual time, and return what it cost the store."""

    async def main() -> Writes:
        store = CountedStore(clock=VirtualClock())
        return await upload(store, seconds=seconds, messages=messages, watched=watched)

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


def first_waits(begin: Sequence[float]) -> list[float]:
    """Return how long it took until uploads were written first that began at these moments."""

    async def main() -> list[float]:
        store = CountedStore(clock=VirtualClock())
        tracker = ProgressTracker(store=store, clock=store.clock)
        async with tracker.lifespan(), anyio.create_task_group() as tasks:
            began = trio.current_time()
            for number, seconds in enumerate(begin):
                tasks.start_soon(_one_of_many, tracker, f"upload-{number}", seconds)
        firsts = [store.written[f"upload-{number}"][0] for number in range(len(begin))]
        return [first - began - seconds for first, seconds in zip(firsts, begin, strict=True)]

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


async def _one_of_many(tracker: ProgressTracker, upload_id: str, begin: float) -> None:
    await anyio.sleep(begin)
    async with tracker.track(owner=OWNER, upload_id=upload_id, total_bytes=10) as upload:
        for _ in range(10):
            await anyio.sleep(0.037)
            upload.advance(1)


def allowed(seconds: float) -> int:
    """Return how many writes an upload of that length may cost.

    Beyond ten seconds its tenths are further apart than the second for which it may not be
    silent, so there each second may cost one more.
    """
    if seconds < GAP_SECONDS:
        return 3
    return 12 if seconds <= LONG_SECONDS else 12 + int(seconds)


def measure() -> list[Figure]:
    """Count for short and long uploads, watched and not."""
    cases = [(0.03, False), (0.09, True), (1, False), (5, True), (LONG_SECONDS, True), (60, True)]
    figures = []
    for seconds, watched in cases:
        writes = count(seconds=seconds, watched=watched)
        followed = "watched" if watched else "unwatched"
        figures.append(
            Figure(
                what=f"upload of {seconds} s, {followed}",
                value=writes.count,
                unit="writes",
                budget=f"<= {allowed(seconds)}, no two within {GAP_SECONDS} s",
                holds=writes.count <= allowed(seconds)
                and writes.least_gap_seconds >= GAP_SECONDS - 1e-9,
            )
        )
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
