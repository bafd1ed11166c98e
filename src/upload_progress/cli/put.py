"""The command ``put``: sends files and folders, several files at once."""

import io
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum, unique
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import BinaryIO, Final

import anyio
import httpx2
from attrs import Factory, define, field, frozen

from upload_progress._model.models import UploadProgress
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import (
    INTERRUPTED,
    SUCCESS,
    combined_exit_code,
    error_text,
    exit_code,
)
from upload_progress.cli.formatting import (
    UploadRow,
    format_resumption,
    format_retry,
    format_summary,
    printable,
)
from upload_progress.cli.options import ConnectionOptions
from upload_progress.cli.output import Output
from upload_progress.cli.process import beside, interruptible
from upload_progress.client import AsyncProgressClient, Resumption, Retry
from upload_progress.client.urls import DEFAULT_MOUNT, parse_url, target_url
from upload_progress.exceptions import InvalidValue, UploadEnded, UploadProgressError

__all__ = [
    "CANCEL_SECONDS",
    "REFRESH_SECONDS",
    "STANDARD_INPUT",
    "FileToUpload",
    "HiddenFiles",
    "PutOptions",
    "Uploader",
    "find_files",
    "put",
]

STANDARD_INPUT: Final = "/dev/stdin"
"""The path that means standard input."""
REFRESH_SECONDS: Final = 0.5
"""How often a running upload is shown again, although nothing has changed."""
CANCEL_SECONDS: Final = 1.0
"""How long an interrupted command waits until the server has cancelled the uploads."""


@unique
class HiddenFiles(Enum):
    """What becomes of the hidden files of a folder."""

    SKIP = "skip"
    SEND = "send"


@frozen
class FileToUpload:
    """One file and the URL that it is sent to.

    Attributes:
        path: Where the file is; None for standard input.
        name: Its path below the URL.
        target: The complete URL.
    """

    path: Path | None
    name: str
    target: str


def find_files(
    paths: Sequence[str],
    url: str,
    *,
    hidden: HiddenFiles = HiddenFiles.SKIP,
    exclude: Collection[str] = (),
    has_one_target: bool = False,
) -> list[FileToUpload]:
    """Return the given files, and the files in the given folders, with their targets.

    Args:
        paths: Files and folders. A file that is given by its name is sent, whatever the name.
        url: URL that they are sent to.
        hidden: Whether to send files in a folder if their names, or those of their folders,
            begin with a dot: they often contain secrets.
        exclude: Patterns such as ``*.log`` or ``build/*``: files in a folder are not sent if their
            names, or their paths below it, match one.
        has_one_target: Whether every file is sent to the URL itself, as in a form.

    Raises:
        InvalidValue: A file does not exist, two files have the same target, or several files
            are to be sent to a URL that does not end with ``/``.
    """
    server = parse_url(url, "URL")
    if STANDARD_INPUT in paths:
        return [_standard_input(paths, server.url, has_one_target=has_one_target)]
    found = [each for path in paths for each in _files_in(Path(path), hidden, exclude)]
    if not found:
        raise InvalidValue(" ".join(paths), "contains no file")
    if has_one_target:
        return [FileToUpload(path, str(name), str(server.url)) for path, name in found]
    accepts_names = server.url.path.endswith("/")
    if not accepts_names and (len(found) > 1 or Path(paths[0]).is_dir()):
        raise InvalidValue("URL", "must end with / to receive several files or a folder")
    files = [
        FileToUpload(path, str(name), str(target_url(server.url, name))) for path, name in found
    ]
    _check_targets(files)
    return files


def _standard_input(paths: Sequence[str], url: httpx2.URL, *, has_one_target: bool) -> FileToUpload:
    if len(paths) > 1:
        raise InvalidValue("standard input", "is sent alone, without other files")
    if url.path.endswith("/") and not has_one_target:
        raise InvalidValue("URL", "must contain the name of the file for standard input")
    return FileToUpload(None, url.path.rpartition("/")[2] or "standard input", str(url))


def _files_in(
    path: Path, hidden: HiddenFiles, exclude: Collection[str]
) -> Iterator[tuple[Path, PurePosixPath]]:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            name = PurePosixPath(each.relative_to(path).as_posix())
            is_wanted = hidden is HiddenFiles.SEND or not _is_hidden(name)
            if is_wanted and not _is_excluded(name, exclude) and each.is_file():
                yield each, name
    else:
        try:
            path.stat()
        except OSError as error:
            raise InvalidValue(str(path), error.strerror or "cannot be read") from error
        yield path, PurePosixPath(path.name)


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _is_excluded(name: PurePosixPath, patterns: Collection[str]) -> bool:
    """Return whether the path, a folder in it, or the name of either matches a pattern."""
    paths = (name, *name.parents)
    texts = {text for path in paths for text in (str(path), path.name) if text}
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _check_targets(files: Sequence[FileToUpload]) -> None:
    seen: dict[str, Path | None] = {}
    for file in files:
        other = seen.setdefault(file.target, file.path)
        if other is not file.path:
            problem = f"would overwrite {other}: both have the name {file.name}"
            raise InvalidValue(str(file.path), problem)


@frozen
class PutOptions:
    """How the files are sent.

    Attributes:
        upload_id: Id of the upload, if one file is sent.
        group: Group that the uploads belong to.
        content_type: Media type of the files; None to guess it from their names.
        chunk_bytes: Size of one request in bytes; None for one request per file.
        parallel: How many files are sent at once.
        hidden: What becomes of the hidden files of a folder.
        is_dry_run: Whether to print what would be sent, and to send nothing.
        exclude: Patterns of files in a folder that are not sent.
        form: Name of the field of a form that carries each file; None to send it with ``PUT``.
        uses_tus: Whether the URL creates uploads of tus.
    """

    upload_id: str | None
    group: str | None
    content_type: str | None
    chunk_bytes: int | None
    parallel: int
    hidden: HiddenFiles = HiddenFiles.SKIP
    is_dry_run: bool = False
    exclude: Collection[str] = ()
    form: str | None = None
    uses_tus: bool = False


async def put(
    paths: Sequence[str],
    url: str,
    connection: ConnectionOptions,
    options: PutOptions,
    output: Output,
) -> int:
    """Send the files, and return the exit code."""
    files = find_files(
        paths,
        url,
        hidden=options.hidden,
        exclude=options.exclude,
        has_one_target=options.form is not None or options.uses_tus,
    )
    if options.upload_id is not None and len(files) > 1:
        raise InvalidValue("--id", "is the id of one upload, but there are several files")
    if options.is_dry_run:
        _list_files(files, output)
        return SUCCESS
    async with open_client(url, connection, default_mount=DEFAULT_MOUNT) as client:
        uploader = Uploader(client, options, output)
        began_at = monotonic()
        with output:
            is_interrupted = await interruptible(
                lambda: uploader.send_all(files), uploader.cancel_all
            )
        output.summarize(uploader.summary(monotonic() - began_at))
    return INTERRUPTED if is_interrupted else combined_exit_code(uploader.codes)


def _list_files(files: Sequence[FileToUpload], output: Output) -> None:
    for file in files:
        size = "unknown size" if file.path is None else format_size(file.path.stat().st_size)
        output.write(f"{printable(file.name)}: {size}, would be sent to {file.target}")


@define(eq=False, repr=False)
class Uploader:
    """Sends files, several at once, and counts what became of them.

    Attributes:
        client: Sends each file.
        options: How the files are sent.
        output: Shows their progress and results.
        codes: The exit code of each file that has ended.
        completed_bytes: Size of the completed files in bytes.
    """

    client: AsyncProgressClient
    options: PutOptions
    output: Output
    codes: list[int] = field(factory=list, init=False)
    completed_bytes: int = field(default=0, init=False)
    _rows: list[UploadRow] = field(factory=list, init=False)
    _queue: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _on_failure: Callable[[UploadRow, UploadProgressError], None] = field(
        default=Factory(lambda self: self._report_failure, takes_self=True), init=False
    )

    def summary(self, seconds: float) -> str:
        """Return how many files were sent in *seconds*, and how large they are."""
        completed = self.codes.count(SUCCESS)
        failed = len(self.codes) - completed
        return format_summary(completed, failed, self.completed_bytes, seconds)

    async def send_all(self, files: Sequence[FileToUpload]) -> None:
        """Send the files; failures are reported and counted."""
        limiter = anyio.CapacityLimiter(self.options.parallel)
        async with beside(self._refresh), anyio.create_task_group() as tasks:
            with self._queue:
                for file in files:
                    # Acquire before the task starts: a folder may contain very many files.
                    await limiter.acquire_on_behalf_of(file)
                    tasks.start_soon(self._send, file, limiter)

    async def _refresh(self) -> None:
        """Show the running uploads again and again: a server may be silent for a long time."""
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            for row in self._rows:
                self.output.refresh(row)

    async def cancel_all(self) -> None:
        """Cancel the running uploads on the server, and say what became of each.

        A closed connection alone would not do: the server goes on with what it has received,
        which may be everything.
        """
        self._queue.cancel()
        # Their requests fail now; the reason is known.
        self._on_failure = _ignore_failure
        async with anyio.create_task_group() as tasks:
            for row in self._rows:
                tasks.start_soon(self._cancel, row)

    async def _cancel(self, row: UploadRow) -> None:
        result = await self._cancel_on_server(row)
        self.output.message(f"upload-progress: {row.label}: interrupted, {result}")

    async def _cancel_on_server(self, row: UploadRow) -> str:
        if row.progress is None:
            return "the server has not reported the upload yet"
        with anyio.move_on_after(CANCEL_SECONDS):
            try:
                await self.client.cancel(row.progress.upload_id)
            except UploadEnded as error:
                return f"but the upload had ended on the server: {error.state}"
            except UploadProgressError as error:
                return f"not cancelled on the server: {error}"
            return "cancelled on the server"
        return "the server has not confirmed that the upload is cancelled"

    def _report_failure(self, row: UploadRow, error: UploadProgressError) -> None:
        self.codes.append(exit_code(error))
        self.output.message(f"upload-progress: {row.label}: {error_text(error)}")

    async def _send(self, file: FileToUpload, limiter: anyio.CapacityLimiter) -> None:
        row = UploadRow(printable(file.name))
        self._rows.append(row)
        try:
            await self._put(file, row)
            row.result = "completed"
            self.completed_bytes += row.sent_bytes
            self.codes.append(SUCCESS)
            self.output.finish(row)
        except UploadProgressError as error:
            self.output.remove(row)
            self._on_failure(row, error)
        finally:
            self._rows[:] = [each for each in self._rows if each is not row]
            limiter.release_on_behalf_of(file)

    async def _put(self, file: FileToUpload, row: UploadRow) -> None:
        def on_progress(progress: UploadProgress) -> None:
            row.progress, row.retry_at = progress, None
            self.output.update(row)

        def on_sent(size_bytes: int) -> None:
            row.sent_bytes = size_bytes
            self.output.update(row)

        def on_retry(retry: Retry) -> None:
            row.retry_at = monotonic() + retry.delay_seconds
            self.output.message(f"{row.label}: {format_retry(retry)}")

        def on_resume(resumption: Resumption) -> None:
            row.retry_at = None
            self.output.message(f"{row.label}: {format_resumption(resumption)}")
            row.sent_bytes = resumption.offset_bytes
            row.progress = None

        self.output.update(row)
        self.output.detail(f"{row.label}: sending to {file.target}")
        result = await self.client.put(
            _open_standard_input() if file.path is None else file.path,
            file.target,
            upload_id=self.options.upload_id,
            group=self.options.group,
            content_type=self.options.content_type,
            chunk_bytes=self.options.chunk_bytes,
            form=self.options.form,
            tus=self.options.uses_tus,
            on_progress=on_progress,
            on_sent=on_sent,
            on_retry=on_retry,
            on_resume=on_resume,
        )
        status = "no response" if result.status is None else f"status {result.status}"
        self.output.detail(f"{row.label}: {status}, id {result.upload_id}")


def _open_standard_input() -> BinaryIO:
    """Return standard input without a buffer: a pipe is sent as it is written."""
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _ignore_failure(_row: UploadRow, _error: UploadProgressError) -> None:
    """Do nothing: the uploads were interrupted."""
