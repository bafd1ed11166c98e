"""What a hundred parallel parts of an upload cost the store, against one at each of two workers.

All parts run at once in virtual time, as long as the single ones, and as many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import trio.testing
from attrs import define, field, frozen

from benchmarks.common import Figure, run
from benchmarks.requests import BODY, OWNER, application, swallow
from benchmarks.store_writes import VirtualClock
from upload_progress import MemoryStore, ProgressTracker, TransferRecord, UploadKey
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Scope

CLAIM = "store round trips of an upload in parallel parts"
SECONDS = 10.0
PARTS = 100
MESSAGES = 5000


@define(eq=False)
class CountedStore(MemoryStore):
    """Counts what would be round trips."""

    trips: int = field(default=0, init=False)

    async def save(self, records: Sequence[TransferRecord]) -> None:
        self.trips += 1
        await super().save(records)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        self.trips += 1
        return await super().load(*keys)


@frozen
class Trips:
    """What an upload cost, and what was seen of it in the end."""

    count: int
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
    """Send one part, evenly."""
    left = messages

    async def receive() -> Message:
        nonlocal left
        left -= 1
        await anyio.sleep(SECONDS / messages)
        return {"type": "http.request", "body": BODY, "more_body": left > 0}

    await app(scope_of(number, messages), receive, swallow)


async def upload(parts: int) -> Trips:
    """Receive an upload in so many parallel parts, half of them at each worker."""
    store = CountedStore(clock=VirtualClock())
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
        trips = store.trips
        [shown] = (await trackers[0].list(owner=OWNER)).uploads
    return Trips(trips, shown.bytes_transferred, shown.parts.received if shown.parts else 0)


def count(parts: int) -> Trips:
    """Receive it in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(upload, parts, backend="trio", backend_options={"clock": clock})


def measure() -> list[Figure]:
    """Count for a part at each worker, and for a hundred."""
    few, many = count(2), count(PARTS)
    return [
        Figure(
            what=f"{PARTS} parts at once in {SECONDS:g} s, at two workers",
            value=many.count,
            unit="round trips",
            baseline=few.count,
            ratio=many.count / few.count,
            budget="no more than one part at each",
            holds=many.count <= few.count,
        )
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
