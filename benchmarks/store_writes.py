"""Budget 6: number of writes to the store per upload.

Complete requests run through the middleware in virtual time: the mock clock of trio jumps to the
next deadline, so the results are deterministic and a minute takes no time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import anyio
import trio
import trio.testing
from attrs import define, field, frozen

from benchmarks.harness import Figure, run
from benchmarks.synthetic_requests import BODY, OWNER, application, discard, scope_of
from upload_progress import MemoryStore, ProgressTracker, TransferRecord
from upload_progress._fanout.subscription import Subscription
from upload_progress._internals import internals_of
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message

TITLE = "store writes per upload"
LONG_SECONDS = 10
GAP_SECONDS = 0.1


class VirtualClock:
    """Clock of trio, which is a mock clock here."""

    def monotonic(self) -> float:
        return trio.current_time()

    def time(self) -> float:
        return 1_700_000_000 + trio.current_time()


@define(eq=False)
class RecordingStore(MemoryStore):
    """Records the time of each write."""

    written: dict[str, list[float]] = field(factory=lambda: defaultdict(list), init=False)
    batches: int = field(default=0, init=False)

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        self.batches += 1
        for record in records:
            self.written[record.upload_id].append(self.clock.monotonic())
        return await super().save(records)


@frozen
class Writes:
    """The writes of one upload, and the shortest time between two of them."""

    count: int
    min_gap_seconds: float


async def upload(
    store: RecordingStore, *, seconds: float, messages: int, is_watched: bool
) -> Writes:
    """Receive an upload whose messages arrive evenly over *seconds*."""
    tracker = ProgressTracker(store=store, clock=store.clock)
    middleware = UploadProgressMiddleware(
        application, tracker=tracker, authenticate=lambda _connection: OWNER
    )
    remaining = messages

    async def receive() -> Message:
        nonlocal remaining
        remaining -= 1
        await anyio.sleep(seconds / messages)
        return {"type": "http.request", "body": BODY, "more_body": remaining > 0}

    async with tracker.lifespan(), anyio.create_task_group() as tasks:
        if is_watched:
            subscription = internals_of(tracker).subscribe()
            subscription.add_owner(OWNER.id)
            tasks.start_soon(_read, tracker, subscription)
        await middleware(scope_of(messages, "counted"), receive, discard)
        while tracker.statistics().live_uploads:  # noqa: ASYNC110  # there is no event to wait for
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    return writes_of(store)


async def _read(tracker: ProgressTracker, subscription: Subscription) -> None:
    while True:
        await internals_of(tracker).wait(subscription)


def writes_of(store: RecordingStore) -> Writes:
    """Return the writes of the only upload in *store*."""
    [write_times] = store.written.values()
    gaps = [after - before for before, after in pairwise(write_times)]
    return Writes(len(write_times), min(gaps, default=float("inf")))


def count(*, seconds: float, messages: int = 1000, is_watched: bool = True) -> Writes:
    """Receive an upload in virtual time; return its writes."""

    async def main() -> Writes:
        store = RecordingStore(clock=VirtualClock())
        return await upload(store, seconds=seconds, messages=messages, is_watched=is_watched)

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


def first_write_delays(start_times: Sequence[float]) -> list[float]:
    """Return the delay of the first write of each upload, given the start times of the uploads."""

    async def main() -> list[float]:
        store = RecordingStore(clock=VirtualClock())
        tracker = ProgressTracker(store=store, clock=store.clock)
        async with tracker.lifespan(), anyio.create_task_group() as tasks:
            started = trio.current_time()
            for number, seconds in enumerate(start_times):
                tasks.start_soon(_upload_later, tracker, f"upload-{number}", seconds)
        firsts = [store.written[f"upload-{number}"][0] for number in range(len(start_times))]
        return [
            first - started - seconds for first, seconds in zip(firsts, start_times, strict=True)
        ]

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


async def _upload_later(tracker: ProgressTracker, upload_id: str, start_times: float) -> None:
    await anyio.sleep(start_times)
    async with tracker.track(owner=OWNER, upload_id=upload_id, total_bytes=10) as upload:
        for _ in range(10):
            await anyio.sleep(0.037)
            upload.advance(1)


def max_writes(seconds: float) -> int:
    """Return the maximum number of writes of an upload of *seconds*.

    Beyond ten seconds, each tenth takes longer than the maximum interval of one second, so that
    each second allows one more write.
    """
    if seconds < GAP_SECONDS:
        return 3
    return 12 if seconds <= LONG_SECONDS else 12 + int(seconds)


def measure() -> list[Figure]:
    """Count the writes of short and long uploads, watched and unwatched."""
    cases = [(0.03, False), (0.09, True), (1, False), (5, True), (LONG_SECONDS, True), (60, True)]
    figures = []
    for seconds, is_watched in cases:
        writes = count(seconds=seconds, is_watched=is_watched)
        label = "watched" if is_watched else "unwatched"
        figures.append(
            Figure(
                name=f"upload of {seconds} s, {label}",
                value=writes.count,
                unit="writes",
                budget=f"<= {max_writes(seconds)}, at least {GAP_SECONDS} s apart",
                is_met=writes.count <= max_writes(seconds)
                and writes.min_gap_seconds >= GAP_SECONDS - 1e-9,
            )
        )
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
