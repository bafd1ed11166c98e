"""Which file goes where: the arguments of ``put``, made into a list of single uploads."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import anyio
from attrs import field, frozen

from upload_progress._model.models import UploadProgress
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import DONE, code_of, explained, summed_up
from upload_progress.cli.formatting import Row, clean
from upload_progress.cli.options import Mode, Reach
from upload_progress.cli.output import Display, open_display
from upload_progress.client import AsyncProgressClient
from upload_progress.client.urls import DEFAULT_MOUNT, read_url, target_of
from upload_progress.exceptions import InvalidValue, UploadProgressError

__all__ = [
    "Errand",
    "Wishes",
    "plan",
    "put",
]


@frozen
class Errand:
    """One file and its target.

    Attributes:
        name: Where it stands below the URL, and what it is called on display.
        target: The whole URL.
    """

    path: Path
    name: str
    size_bytes: int
    target: str


def plan(paths: Sequence[str], url: str) -> list[Errand]:
    """Return what is to be sent: files, and the files in folders with their paths below these.

    Raises:
        InvalidValue: A file is not there, two have one target, or the URL cannot take several.
    """
    address = read_url(url, "URL")
    found = [each for path in paths for each in _files(Path(path))]
    if not found:
        raise InvalidValue(" ".join(paths), "has no file in it")
    is_folder = address.url.path.endswith("/")
    if not is_folder and (len(found) > 1 or Path(paths[0]).is_dir()):
        raise InvalidValue("URL", "must end with / to take several files, or a folder")
    errands = [
        Errand(path, str(name), _size(path), str(target_of(address.url, name)))
        for path, name in found
    ]
    _check_distinct(errands)
    return errands


def _files(path: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            if each.is_file():
                yield each, PurePosixPath(each.relative_to(path).as_posix())
    else:
        yield path, PurePosixPath(path.name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InvalidValue(str(path), error.strerror or "cannot be read") from error


def _check_distinct(errands: Sequence[Errand]) -> None:
    seen: dict[str, Path] = {}
    for errand in errands:
        other = seen.setdefault(errand.target, errand.path)
        if other is not errand.path:
            raise InvalidValue(str(errand.path), f"would overwrite {other}: both are {errand.name}")


# FROM cli.sending: ``put``: several files at once, each on display until the server has taken it.


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
