"""Budget 21: store round trips of an upload in a hundred parallel parts on two workers.

The baseline is the same upload with one part on each worker. All parts run in virtual time, with
the same duration and the same number of bytes in total.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import trio.testing
from attrs import define, field, frozen

from benchmarks.harness import Figure, run
from benchmarks.store_writes import VirtualClock
from benchmarks.synthetic_requests import BODY, OWNER, application, discard
from upload_progress import MemoryStore, ProgressTracker, TransferRecord, UploadKey
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Scope

TITLE = "store round trips of an upload in parallel parts"
SECONDS = 10.0
PARTS = 100
MESSAGES = 5000


@define(eq=False)
class RoundTripStore(MemoryStore):
    """Counts the round trips that a remote store would need."""

    round_trips: int = field(default=0, init=False)

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        self.round_trips += 1
        return await super().save(records)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        self.round_trips += 1
        return await super().load(*keys)


@frozen
class UploadResult:
    """The round trips of an upload, and its final snapshot."""

    round_trips: int
    bytes_transferred: int
    parts: int


def scope_of(number: int, messages: int) -> Scope:
    return {
        "type": "http",
        "method": "PUT",
        "path": "/bucket/key",
        "query_string": b"uploadId=counted&partNumber=%d" % number,
        "headers": [(b"content-length", b"%d" % (messages * len(BODY)))],
    }


async def put(app: UploadProgressMiddleware, number: int, messages: int) -> None:
    """Send one part evenly."""
    remaining = messages

    async def receive() -> Message:
        nonlocal remaining
        remaining -= 1
        await anyio.sleep(SECONDS / messages)
        return {"type": "http.request", "body": BODY, "more_body": remaining > 0}

    await app(scope_of(number, messages), receive, discard)


async def upload(parts: int) -> UploadResult:
    """Receive an upload in *parts* parallel parts, half of them on each worker."""
    store = RoundTripStore(clock=VirtualClock())
    trackers = [ProgressTracker(store=store, clock=store.clock) for _ in range(2)]
    apps = [
        UploadProgressMiddleware(application, tracker=tracker, authenticate=lambda _: OWNER)
        for tracker in trackers
    ]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        async with anyio.create_task_group() as tasks:
            for number in range(1, parts + 1):
                tasks.start_soon(put, apps[number % 2], number, MESSAGES // parts)
        await anyio.sleep(1)
        round_trips = store.round_trips
        [snapshot] = (await trackers[0].list(owner=OWNER)).uploads
    return UploadResult(
        round_trips, snapshot.bytes_transferred, snapshot.parts.received if snapshot.parts else 0
    )


def count(parts: int) -> UploadResult:
    """Receive the upload in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(upload, parts, backend="trio", backend_options={"clock": clock})


def measure() -> list[Figure]:
    """Compare one part per worker with a hundred parts."""
    few, many = count(2), count(PARTS)
    return [
        Figure(
            name=f"{PARTS} parallel parts in {SECONDS:g} s, on two workers",
            value=many.round_trips,
            unit="round trips",
            baseline=few.round_trips,
            ratio=many.round_trips / few.round_trips,
            budget="no more than one part per worker",
            is_met=many.round_trips <= few.round_trips,
        )
    ]


if __name__ == "__main__":
    run(TITLE, measure)
