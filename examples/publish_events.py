"""Events within the process: each published snapshot is also a CloudEvent.

Run:
    pip install upload-progress
    python examples/publish_events.py
"""

import anyio
from anyio.abc import TaskStatus

from upload_progress import CloudEvent, ProgressTracker, UploadState, encode_json
from upload_progress.backends.memory import MemoryPublisher
from upload_progress.interfaces import ALL_OWNERS

publisher = MemoryPublisher()
tracker = ProgressTracker(publisher=publisher)


async def consume(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    async with publisher.events() as stream:
        await stream.subscribe(ALL_OWNERS)
        task_status.started()
        async for event in stream:
            if isinstance(event, CloudEvent):
                print(encode_json(event).decode())
                if event.data.state is UploadState.COMPLETED:
                    return


async def main() -> None:
    async with tracker.lifespan(), anyio.create_task_group() as tasks:
        await tasks.start(consume)
        async with tracker.track(owner="alice", total_bytes=3, filename="abc") as upload:
            upload.advance(3)


if __name__ == "__main__":
    anyio.run(main)
