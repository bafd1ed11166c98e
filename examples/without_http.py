"""Progress without HTTP: copy a file and print the snapshots of the copy.

Run:
    pip install upload-progress
    python examples/without_http.py SOURCE TARGET
    python examples/without_http.py SOURCE TARGET --backend trio
"""

from argparse import ArgumentParser

import anyio

from upload_progress import EveryPercent, ProgressTracker

OWNER = "copy"


async def copy(source: anyio.Path, target: anyio.Path) -> None:
    tracker = ProgressTracker(policy=EveryPercent(10))
    size_bytes = (await source.stat()).st_size
    async with (
        tracker.lifespan(),
        anyio.create_task_group() as tasks,
        tracker.track(owner=OWNER, total_bytes=size_bytes, filename=source.name) as upload,
        await source.open("rb") as reader,
        await target.open("wb") as writer,
    ):
        tasks.start_soon(print_snapshots, tracker, upload.upload_id)
        while chunk := await reader.read(1024 * 1024):
            await writer.write(chunk)
            upload.advance(len(chunk))


async def print_snapshots(tracker: ProgressTracker, upload_id: str) -> None:
    async for snapshot in tracker.watch(upload_id, owner=OWNER):
        percent = snapshot.percent or 0
        print(f"{snapshot.state:<10} {percent:5.1f} %  {snapshot.bytes_transferred} bytes")


if __name__ == "__main__":
    parser = ArgumentParser(description="Copy a file with progress.")
    parser.add_argument("source", type=anyio.Path)
    parser.add_argument("target", type=anyio.Path)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    anyio.run(copy, options.source, options.target, backend=options.backend)
