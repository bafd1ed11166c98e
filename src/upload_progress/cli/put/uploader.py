"""Sending several files at once, with their progress, results and failures."""

import io
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import BinaryIO, Final

import anyio
from attrs import Factory, define, field, frozen

from upload_progress._model.models import UploadProgress
from upload_progress.cli.exit_codes import (
    SUCCESS,
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
from upload_progress.cli.output import Output
from upload_progress.cli.process import beside
from upload_progress.cli.put.files import FileToUpload, HiddenFiles
from upload_progress.cli.put.unfinished import UnfinishedUpload
from upload_progress.client import AsyncProgressClient, Resumption, Retry
from upload_progress.exceptions import (
    UploadCancelled,
    UploadEnded,
    UploadProgressError,
    UploadRejected,
)

__all__ = ["CANCEL_SECONDS", "REFRESH_SECONDS", "PutOptions", "Uploader"]

REFRESH_SECONDS: Final = 0.5
"""How often a running upload is shown again, although nothing has changed."""
CANCEL_SECONDS: Final = 1.0
"""How long an interrupted command waits until the server has cancelled the uploads."""


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
        memory: Folder that remembers unfinished uploads of tus for a later run; None not to.
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
    memory: Path | None = None


@define(eq=False, repr=False)
class Uploader:
    """Sends files, several at once, and counts what became of them.

    Attributes:
        client: Sends each file.
        options: How the files are sent.
        output: Shows their progress and results.
        codes: The exit code of each file that has ended.
        completed_bytes: Size of the completed files in bytes.
        count: Number of the files.
    """

    client: AsyncProgressClient
    options: PutOptions
    output: Output
    codes: list[int] = field(factory=list, init=False)
    completed_bytes: int = field(default=0, init=False)
    count: int = field(default=0, init=False)
    _rows: list[UploadRow] = field(factory=list, init=False)
    _interrupted: list[UploadRow] = field(factory=list, init=False)
    _queue: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _on_failure: Callable[[UploadRow, UploadProgressError], None] = field(
        default=Factory(lambda self: self._report_failure, takes_self=True), init=False
    )

    def summary(self, seconds: float) -> str:
        """Return what became of the files, and the size of the completed ones, after *seconds*."""
        completed = self.codes.count(SUCCESS)
        counts = Counter(completed=completed, failed=len(self.codes) - completed)
        counts.update(row.result or "interrupted" for row in self._interrupted)
        counts["not started"] = self.count - counts.total()
        return format_summary(counts, self.completed_bytes, seconds)

    async def send_all(self, files: Sequence[FileToUpload]) -> None:
        """Send the files; failures are reported and counted."""
        self.count = len(files)
        limiter = anyio.CapacityLimiter(self.options.parallel)
        async with beside(self._refresh), anyio.create_task_group() as tasks:
            with self._queue:
                for file in files:
                    # Acquire before the task starts: a folder may contain very many files.
                    await limiter.acquire_on_behalf_of(file)
                    row = UploadRow(printable(file.name))
                    self._rows.append(row)
                    tasks.start_soon(self._send, file, row, limiter)

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
        self._interrupted = [*self._rows]
        async with anyio.create_task_group() as tasks:
            for row in self._interrupted:
                tasks.start_soon(self._cancel, row)

    async def _cancel(self, row: UploadRow) -> None:
        result = await self._cancel_on_server(row)
        self.output.message(f"upload-progress: {row.label}: interrupted, {result}")

    async def _cancel_on_server(self, row: UploadRow) -> str:
        if row.goes_on_later:
            return "the same command goes on with it"
        if row.progress is None:
            return "the server has not reported the upload yet"
        with anyio.move_on_after(CANCEL_SECONDS):
            try:
                await self.client.cancel(row.progress.upload_id)
            except UploadEnded as error:
                row.result = str(error.state)
                return f"but too late, the upload is {error.state} on the server"
            except UploadProgressError as error:
                return f"not cancelled on the server: {error}"
            row.result = "cancelled"
            return "cancelled on the server"
        return "the server has not confirmed that the upload is cancelled"

    def _report_failure(self, row: UploadRow, error: UploadProgressError) -> None:
        self.codes.append(exit_code(error))
        self.output.message(f"upload-progress: {row.label}: {error_text(error)}")

    async def _send(
        self, file: FileToUpload, row: UploadRow, limiter: anyio.CapacityLimiter
    ) -> None:
        try:
            await self._put(file, row)
            row.result = "completed"
            self._interrupted = _without(row, self._interrupted)
            self.completed_bytes += row.sent_bytes
            self.codes.append(SUCCESS)
            self.output.finish(row)
        except UploadProgressError as error:
            self.output.remove(row)
            self._on_failure(row, error)
        finally:
            self._rows = _without(row, self._rows)
            limiter.release_on_behalf_of(file)

    def _unfinished(self, file: FileToUpload) -> UnfinishedUpload | None:
        """Return where an upload by tus is remembered; None if a later run does not go on with it.

        With an id of the caller, the upload is known by that. A file that cannot be read is an
        error when it is sent.
        """
        options = self.options
        if options.uses_tus and options.memory and options.upload_id is None and file.path:
            with suppress(OSError):
                return UnfinishedUpload.of(file.path, file.target, options.memory)
        return None

    async def _put(self, file: FileToUpload, row: UploadRow) -> None:
        reports = _Reports(self.output, row, self._unfinished(file))
        tus_url, upload_id = reports.earlier() or (None, self.options.upload_id)
        self.output.update(row)
        self.output.detail(f"{row.label}: sending to {file.target}")
        try:
            result = await self.client.put(
                _open_standard_input() if file.path is None else file.path,
                file.target,
                upload_id=upload_id,
                group=self.options.group,
                content_type=self.options.content_type,
                chunk_bytes=self.options.chunk_bytes,
                form=self.options.form,
                tus=self.options.uses_tus,
                tus_url=tus_url,
                on_progress=reports.on_progress,
                on_sent=reports.on_sent,
                on_retry=reports.on_retry,
                on_resume=reports.on_resume,
                on_created=reports.on_created,
            )
        except (UploadRejected, UploadCancelled):
            reports.forget()
            raise
        reports.forget()
        status = "no response" if result.status is None else f"status {result.status}"
        self.output.detail(f"{row.label}: {status}, id {result.upload_id}")


@frozen(eq=False, repr=False)
class _Reports:
    """What the client reports of one upload: shown in its row, and remembered for a later run.

    Attributes:
        output: Shows the row.
        row: The upload.
        unfinished: Where the upload is remembered; None if it is not.
    """

    output: Output
    row: UploadRow
    unfinished: UnfinishedUpload | None

    def earlier(self) -> tuple[str, str] | None:
        """Return address and id of the upload that an earlier run has not finished."""
        found = None if self.unfinished is None else self.unfinished.load()
        self.row.goes_on_later = found is not None
        return found

    def on_created(self, address: str, upload_id: str) -> None:
        if self.unfinished is None:
            return
        try:
            self.unfinished.save(address, upload_id)
        except OSError as error:
            problem = f"{self.row.label}: a later run cannot go on with it: {error}"
            self.output.detail(problem)
        else:
            self.row.goes_on_later = True

    def forget(self) -> None:
        if self.unfinished is not None:
            self.unfinished.forget()

    def on_progress(self, progress: UploadProgress) -> None:
        self.row.progress, self.row.retry_at = progress, None
        self.output.update(self.row)

    def on_sent(self, size_bytes: int) -> None:
        self.row.sent_bytes = size_bytes
        self.output.update(self.row)

    def on_retry(self, retry: Retry) -> None:
        self.row.retry_at = monotonic() + retry.delay_seconds
        self.output.message(f"{self.row.label}: {format_retry(retry)}")

    def on_resume(self, resumption: Resumption) -> None:
        self.row.retry_at = None
        self.output.message(f"{self.row.label}: {format_resumption(resumption)}")
        self.row.sent_bytes = resumption.offset_bytes
        self.row.progress = None


def _open_standard_input() -> BinaryIO:
    """Return standard input without a buffer: a pipe is sent as it is written."""
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _without(row: UploadRow, rows: Sequence[UploadRow]) -> list[UploadRow]:
    return [each for each in rows if each is not row]


def _ignore_failure(_row: UploadRow, _error: UploadProgressError) -> None:
    """Do nothing: the uploads were interrupted."""
