"""``put``: several files at once, each on display until the server has taken it."""

from collections.abc import Sequence

import anyio
from attrs import field, frozen

from upload_progress.cli.display import Display, open_display
from upload_progress.cli.exits import DONE, code_of, explained, summed_up
from upload_progress.cli.options import Mode, Reach
from upload_progress.cli.plan import Errand, plan
from upload_progress.cli.reaching import open_client
from upload_progress.cli.words import Row, clean
from upload_progress.client import AsyncProgressClient
from upload_progress.client.addresses import DEFAULT_MOUNT
from upload_progress.errors import InvalidValue, UploadProgressError
from upload_progress.model import UploadProgress

__all__ = ["Wishes", "put"]


@frozen
class Wishes:
    """How the files are to be sent.

    Attributes:
        upload_id: Under which id, where it is one file.
        group: What they belong to.
        content_type: What they are; guessed from their names where it is None.
        chunk_bytes: How much one request carries; None for all.
        parallel: How many at once.
    """

    upload_id: str | None
    group: str | None
    content_type: str | None
    chunk_bytes: int | None
    parallel: int


async def put(paths: Sequence[str], url: str, reach: Reach, wishes: Wishes, mode: Mode) -> int:
    """Send, and return the exit code."""
    errands = plan(paths, url)
    if wishes.upload_id is not None and len(errands) > 1:
        raise InvalidValue("--id", "names one upload, and there are several files")
    async with open_client(url, reach, default_mount=DEFAULT_MOUNT) as client:
        with open_display(mode) as display:
            sender = _Sender(client, wishes, display)
            await sender.send_all(errands)
    return summed_up(sender.codes)


@frozen(eq=False, repr=False)
class _Sender:
    client: AsyncProgressClient
    wishes: Wishes
    display: Display
    codes: list[int] = field(factory=list, init=False)

    async def send_all(self, errands: Sequence[Errand]) -> None:
        limiter = anyio.CapacityLimiter(self.wishes.parallel)
        async with anyio.create_task_group() as tasks:
            for errand in errands:
                # Those that wait are no tasks: a folder may hold very many files.
                await limiter.acquire_on_behalf_of(errand)
                tasks.start_soon(self._send, errand, limiter)

    async def _send(self, errand: Errand, limiter: anyio.CapacityLimiter) -> None:
        row = Row(clean(errand.name), errand.size_bytes)
        try:
            row.outcome = await self._sent(errand, row)
            self.codes.append(DONE)
            self.display.end(row)
        except UploadProgressError as error:
            self.codes.append(code_of(error))
            self.display.drop(row)
            self.display.say(f"upload-progress: {row.label}: {explained(error)}")
        finally:
            limiter.release_on_behalf_of(errand)

    async def _sent(self, errand: Errand, row: Row) -> str:
        def on_progress(progress: UploadProgress) -> None:
            row.progress = progress
            self.display.show(row)

        def on_sent(size_bytes: int) -> None:
            row.sent_bytes = size_bytes
            self.display.show(row)

        self.display.show(row)
        await self.client.put(
            errand.path,
            errand.target,
            upload_id=self.wishes.upload_id,
            group=self.wishes.group,
            content_type=self.wishes.content_type,
            chunk_bytes=self.wishes.chunk_bytes,
            on_progress=on_progress,
            on_sent=on_sent,
        )
        return "completed"
