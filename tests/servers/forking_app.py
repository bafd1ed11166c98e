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
    """Read the uploads of *owner* many times, and return how often exactly these were found."""
    return sum([await is_right(tracker, owner) for _ in range(READS)])


async def is_right(tracker: ProgressTracker, owner: str) -> bool:
    page = await tracker.list(owner=owner)
    upload = await tracker.get(f"of-{owner}", owner=owner)
    return [*page.uploads, upload.upload_id] == [upload, f"of-{owner}"]


async def use_own_lifespan(tracker: ProgressTracker, owner: str) -> bool:
    """Receive an upload in this process; those of the parent are not its own."""
    async with tracker.lifespan():
        inherited = tracker.statistics().live_uploads
        async with tracker.track(owner=owner, upload_id="own", total_bytes=2) as upload:
            upload.advance(2)
    return inherited == 0 and (await tracker.get("own", owner=owner)).percent == 100


def write_result(name: str, right: int) -> None:
    """Write in one call, as several processes share the output."""
    os.write(1, f"{name}: {right} of {READS + 1} right\n".encode())


def run_child(tracker: ProgressTracker, owner: str) -> None:
    right = asyncio.run(count_right_answers(tracker, owner))
    right += asyncio.run(use_own_lifespan(tracker, owner))
    write_result(owner, right)


async def main(url: str, prefix: str) -> None:
    tracker = ProgressTracker.from_url(url)
    owners = [f"{prefix}-{number}" for number in range(CHILDREN)]
    async with tracker.lifespan():
        for owner in (*owners, prefix):
            async with tracker.track(owner=owner, upload_id=f"of-{owner}", total_bytes=2) as upload:
                upload.advance(2)
        async with tracker.track(owner="open", upload_id=prefix, total_bytes=2) as upload:
            upload.advance(1)
            # Now there are connections, which the children have, too.
            await tracker.list(owner=prefix)
            context = multiprocessing.get_context("fork")
            children = [
                context.Process(target=run_child, args=(tracker, owner)) for owner in owners
            ]
            for child in children:
                child.start()
            right = await count_right_answers(tracker, prefix)
            for child in children:
                await asyncio.to_thread(child.join, TIMEOUT_SECONDS)
            upload.advance(1)
    right += (await tracker.get(prefix, owner="open")).percent == 100
    write_result(prefix, right)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
