"""Forks two children while an upload is received, all with one tracker; each reads its own owner.

``python -m tests.servers.forking_app STORE_URL OWNER`` prints a line for each process, in the form
``NAME: RIGHT of TOTAL right``. The names of all owners begin with OWNER.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys

from upload_progress import ProgressTracker

CHILDREN = 2
READS = 12
TIMEOUT_SECONDS = 40


async def count_right_answers(tracker: ProgressTracker, owner: str) -> int:
    """Read the upload of *owner* many times, and return how often it was found."""
    name = f"of-{owner}"
    found = [await tracker.get(name, owner=owner) for _ in range(READS - 1)]
    page = await tracker.list(owner=owner)
    return [each.upload_id for each in (*found, *page.uploads)].count(name)


async def use_own_lifespan(tracker: ProgressTracker, owner: str) -> bool:
    """Receive an upload in this process; those of the parent are not its own."""
    async with tracker.lifespan():
        inherited = tracker.statistics().live_uploads
        async with tracker.track(owner=owner, upload_id="own", total_bytes=2) as upload:
            upload.advance(2)
    counters = tracker.statistics()
    is_stored = (await tracker.get("own", owner=owner)).percent == 100
    return is_stored and (inherited, counters.publisher_failures, counters.reaped) == (0, 0, 0)


def write_result(name: str, right: int) -> None:
    """Write in one call, as several processes share the output."""
    os.write(1, f"{name}: {right} of {READS + 1} right\n".encode())


async def check_child(tracker: ProgressTracker, owner: str) -> None:
    # One statement: the tracer of CPython 3.11 may lose the lines that follow a call like these.
    write_result(
        owner, await count_right_answers(tracker, owner) + await use_own_lifespan(tracker, owner)
    )


def run_child(tracker: ProgressTracker, owner: str) -> None:
    asyncio.run(check_child(tracker, owner))


async def prepare(tracker: ProgressTracker, owners: list[str]) -> None:
    """Store an upload of each owner. Without the lifespan, it is stored when the block ends."""
    for owner in owners:
        async with tracker.track(owner=owner, upload_id=f"of-{owner}", total_bytes=2) as upload:
            upload.advance(2)


async def fork(tracker: ProgressTracker, prefix: str, owners: list[str]) -> None:
    async with (
        tracker.lifespan(),
        tracker.track(owner="open", upload_id=prefix, total_bytes=2) as upload,
    ):
        upload.advance(1)
        # Now there are connections, which the children have, too.
        await tracker.list(owner=prefix)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=run_child, args=(tracker, owner)) for owner in owners]
        for child in children:
            child.start()
        right = await count_right_answers(tracker, prefix)
        for child in children:
            await asyncio.to_thread(child.join, TIMEOUT_SECONDS)
        upload.advance(1)
    right += (await tracker.get(prefix, owner="open")).percent == 100
    write_result(prefix, right)


def main(url: str, prefix: str) -> None:
    tracker = ProgressTracker.from_url(url)
    owners = [f"{prefix}-{number}" for number in range(CHILDREN)]
    asyncio.run(prepare(tracker, [*owners, prefix]))
    asyncio.run(fork(tracker, prefix, owners))


if __name__ == "__main__":
    main(*sys.argv[1:])
