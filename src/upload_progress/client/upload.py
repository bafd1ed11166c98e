"""Uploading a file, resuming it after a lost connection, and watching it at the server meanwhile.

A lost connection does not show what became of an upload. Before anything is sent again, the
server is asked for its snapshot, since each of these happens: the server has every byte, and only
its response was lost; it has rejected the upload, and closed the connection before the response
was read; it waits for the rest (``paused``) of an upload in parts; or it has given up, and the
file is sent again under the same id, as the next attempt.

Parts are sent with ``Content-Range`` (RFC 9110 section 14.4), and only to a server that confirms
them: any other server stores the first part as the whole file, or the last one.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Final

import anyio
import httpx2
from attrs import Factory, define, field, frozen

from upload_progress._model.models import ErrorCode, UploadProgress, UploadState
from upload_progress._model.state import is_final, is_receiving
from upload_progress.client.api import ProgressApi, read_content, translated_errors
from upload_progress.client.files import FileSource, StreamSource
from upload_progress.client.forms import FormFile
from upload_progress.client.responses import FailedResponse, confirmed_offset, upload_error
from upload_progress.client.retry import RetryPolicy, ignore
from upload_progress.client.tus import RETRY_STATUSES as TUS_RETRY_STATUSES
from upload_progress.client.tus import TusResource
from upload_progress.client.watch import WatchLoop, is_newer
from upload_progress.exceptions import (
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadCancelled,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "DISCONNECT_SECONDS",
    "FINAL_SNAPSHOT_SECONDS",
    "RESPONSE_SECONDS",
    "WATCH_RETRIES",
    "FileUpload",
    "Resumption",
    "UploadResult",
    "rejection_in",
]

FINAL_SNAPSHOT_SECONDS: Final = 5.0
"""How long to wait for the final snapshot after the response."""
DISCONNECT_SECONDS: Final = 10.0
"""How long a server may take to notice that a connection is lost."""
RESPONSE_SECONDS: Final = 1.0
"""How long to wait for the response after a snapshot has shown that the upload was rejected."""
WATCH_RETRIES: Final = 1000
_FIRST_DELAY_SECONDS: Final = 0.1
_TIMEOUT: Final = httpx2.Timeout(10.0, read=3600.0, write=600.0)
_RECEIVED_STATES: Final = frozenset({UploadState.PROCESSING, UploadState.COMPLETED})
_REJECTION_CODES: Final = frozenset({ErrorCode.REJECTED, ErrorCode.APP_ERROR})


@frozen
class UploadResult:
    """The result of an upload that the server has accepted.

    Attributes:
        upload_id: The id of the upload; the server replaces the requested id if it is in use.
        status: The HTTP status of the response; None if the response was lost.
        content: The beginning of the response body, about 16 KiB at most.
        progress: The last snapshot; None if the server does not track uploads.
    """

    upload_id: str
    status: int | None
    content: bytes
    progress: UploadProgress | None


@frozen
class Resumption:
    """An upload goes on after a failure.

    Attributes:
        offset_bytes: The first byte that is sent now; 0 if the file is sent again.
        attempt: How many times the client has begun to send, this time included.
    """

    offset_bytes: int
    attempt: int


def rejection_in(progress: UploadProgress) -> UploadProgressError | None:
    """Return why the upload must not be sent again, according to a snapshot; None if it may."""
    if progress.state is UploadState.CANCELLED:
        return UploadCancelled()
    error = progress.error
    if progress.state is UploadState.FAILED and error and error.code in _REJECTION_CODES:
        return UploadRejected(error.http_status, error.message)
    return None


@define(eq=False, repr=False)
class FileUpload:
    """The upload of one file to one URL.

    Attributes:
        api: The progress API of the server, and the HTTP client.
        source: The file or stream.
        target: The URL that it is sent to.
        upload_id: The id of the upload.
        retry: Limits consecutive network failures.
        headers: Additional headers of every request.
        auth: User name and password for the target; None for those of the HTTP client.
        chunk_bytes: Size of one request, sent with ``Content-Range``; None for a single request.
        form: Name of the field of the form that is sent with ``POST``; None to send the file alone.
        uses_tus: Whether the target creates uploads of tus.
        tus_url: Address of the upload that an earlier call has created by tus; None for none.
        may_exist: Whether the id may have been used before.
        on_progress: Called with each new snapshot.
        on_sent: Called with the number of bytes handed to the network.
        on_resume: Called before bytes are sent again after a failure.
        on_created: Called with the address of an upload that tus has created, and its id.
    """

    api: ProgressApi
    source: FileSource | StreamSource
    target: httpx2.URL
    upload_id: str
    retry: RetryPolicy
    headers: Mapping[str, str] = field(kw_only=True)
    auth: tuple[str, str] | None = field(default=None, kw_only=True)
    chunk_bytes: int | None = field(default=None, kw_only=True)
    form: str | None = field(default=None, kw_only=True)
    uses_tus: bool = field(default=False, kw_only=True)
    tus_url: httpx2.URL | None = field(default=None, kw_only=True)
    may_exist: bool = field(default=False, kw_only=True)
    on_progress: Callable[[UploadProgress], object] = field(kw_only=True)
    on_sent: Callable[[int], object] = field(kw_only=True)
    on_resume: Callable[[Resumption], object] = field(default=ignore, kw_only=True)
    on_created: Callable[[str, str], object] = field(default=ignore, kw_only=True)
    _attempt: int = field(default=1, init=False)
    _accepts_parts: bool = field(default=False, init=False)
    _sent_bytes: int = field(default=0, init=False)
    _tus: TusResource | None = field(
        default=Factory(lambda self: self._earlier_tus(), takes_self=True), init=False
    )
    _newest: UploadProgress | None = field(default=None, init=False)
    _form_file: FormFile | None = field(
        default=Factory(lambda self: self._create_form_file(), takes_self=True), init=False
    )
    _request_scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _watch_loop: WatchLoop = field(
        default=Factory(lambda self: self._create_watch_loop(), takes_self=True), init=False
    )

    def _create_watch_loop(self) -> WatchLoop:
        retry = RetryPolicy.create(WATCH_RETRIES, _FIRST_DELAY_SECONDS)
        return WatchLoop(self.api, retry, upload_id=self.upload_id, is_endless=True)

    def _earlier_tus(self) -> TusResource | None:
        return None if self.tus_url is None else TusResource(self.api.http, self.tus_url)

    def _create_form_file(self) -> FormFile | None:
        if self.form is None:
            return None
        return FormFile(self.form, self.source.name, self.source.content_type)

    async def run(self) -> UploadResult:
        """Send the file, with retries, and return the result.

        Raises:
            UploadProgressError: The upload failed; see ``AsyncProgressClient.put``.
        """
        if self.may_exist:
            await self._skip_ended_attempts()
        result: UploadResult | UploadProgressError
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            try:
                result = await self._send_with_retries()
            except UploadProgressError as error:
                # Raised inside the task group, it would become an exception group.
                result = error
            tasks.cancel_scope.cancel()
        if isinstance(result, UploadProgressError):
            raise result
        return result

    async def _skip_ended_attempts(self) -> None:
        """Find out which attempt this upload is; the ends of earlier ones do not concern it."""
        progress = await self._snapshot()
        if progress is not None and is_final(progress.state):
            self._attempt = progress.attempt + 1

    async def _send_with_retries(self) -> UploadResult:
        attempt = 1
        while True:
            try:
                may_have_bytes = attempt > 1 or self._tus is not None
                offset = await self._resume_offset() if may_have_bytes else 0
                if offset is None:
                    return await self._result(self.upload_id, None, b"")
                if attempt > 1 or offset:
                    self.on_resume(Resumption(offset, attempt))
                attempt += 1
                return await self._send_from(offset)
            except (ServerUnreachable, ServerBusy) as error:
                await self._check_rejection()
                if not await self._may_repeat(error):
                    raise
                await self.retry.wait(error)

    async def _may_repeat(self, failure: UploadProgressError) -> bool:
        """Return whether the bytes may be sent again after *failure*, or need not be.

        A stream is read only once. A form is sent again only if the server has refused it, or has
        reported that it did not receive it whole: otherwise it may have accepted it.
        """
        if not self._sent_bytes or (self.source.is_repeatable and self.form is None):
            return True
        if not self.source.is_repeatable:
            return await self._resume_offset() is None
        progress = await self._snapshot()
        has_failed = progress is not None and progress.state is UploadState.FAILED
        return has_failed or isinstance(failure, ServerBusy)

    async def _send_from(self, offset: int) -> UploadResult:
        """Send the bytes from *offset*, in one or several requests."""
        if self.uses_tus and self._tus is None:
            self._tus = await self._create_tus()
        while True:
            result = await self._send_range(offset, self._stop_after(offset))
            if isinstance(result, UploadResult):
                return result
            if result <= offset:
                raise ServerUnreachable(str(self.target), "it has accepted no byte of a part")
            offset = result
            self.retry.reset()

    def _stop_after(self, offset: int) -> int | None:
        """Return the end of the request that begins at *offset*; None if it is not known."""
        size = self.source.size_bytes
        if size is None or self.chunk_bytes is None:
            return size
        return min(offset + self.chunk_bytes, size)

    async def _create_tus(self) -> TusResource:
        """Create the upload by tus.

        Raises:
            UploadProgressError: The server does not create it.
        """
        created = await TusResource.create(
            self.api.http, self.target, self.source, {"upload-id": self.upload_id, **self.headers}
        )
        if isinstance(created, FailedResponse):
            raise await self._error_of(created, str(self.target))
        self.on_created(str(created.url), self.upload_id)
        return created

    async def _send_range(self, start: int, stop: int | None) -> UploadResult | int:
        """Send one request; return the result of the last one, else the offset to continue from."""
        address, size = str(self.target), self.source.size_bytes
        is_last = stop == size
        with anyio.CancelScope() as self._request_scope, translated_errors(address):
            async with self.api.http.stream(
                *self._request_line,
                headers=self._headers(start, stop),
                content=self._content(start, stop),
                timeout=_TIMEOUT,
                auth=httpx2.USE_CLIENT_DEFAULT if self.auth is None else self.auth,
            ) as response:
                content = await read_content(response)
            offset = confirmed_offset(response) if self._is_part(start, stop) else None
            if size is not None and offset is not None and offset < size:
                self._accepts_parts = True
                return offset
            if not response.is_success:
                failure = FailedResponse.from_response(response, content)
                raise await self._error_of(failure, address)
            if stop is not None and not is_last:
                raise UnexpectedResponse(address, _not_confirmed(response.status_code, stop))
            upload_id = response.headers.get("upload-id", self.upload_id)
            return await self._result(upload_id, response.status_code, content)
        # The request was cancelled: a snapshot showed a rejection, and no response arrived.
        await self._check_rejection()
        raise ServerUnreachable(address, "the request was aborted after the upload had failed")

    async def _error_of(self, failure: FailedResponse, address: str) -> UploadProgressError:
        """Return why an upload failed: the server's own words, unless a snapshot knows more."""
        error = upload_error(failure, address)
        if self._tus is not None and failure.status in TUS_RETRY_STATUSES:
            return ServerBusy(failure.detail, failure.retry_after_seconds)
        rejection = await self._rejection()
        has_own_words = failure.has_reason and isinstance(error, UploadRejected)
        if rejection is None or (has_own_words and isinstance(rejection, UploadRejected)):
            return error
        return rejection

    @property
    def _request_line(self) -> tuple[str, httpx2.URL]:
        if self._tus is not None:
            return "PATCH", self._tus.url
        return "PUT" if self.form is None else "POST", self.target

    def _is_part(self, start: int, stop: int | None) -> bool:
        """Return whether a request carries a part of the file, whose response names an offset."""
        size = self.source.size_bytes
        return self.uses_tus or (size is not None and stop is not None and stop - start < size)

    def _content(self, start: int, stop: int | None) -> AsyncGenerator[bytes]:
        content = self.source.read(start, stop, self._note_sent)
        return content if self._form_file is None else self._form_file.wrap(content)

    def _note_sent(self, offset: int) -> None:
        self._sent_bytes = offset
        self.on_sent(offset)

    def _headers(self, start: int, stop: int | None) -> dict[str, str]:
        size = self.source.size_bytes
        # Proxies pass on each part as it arrives (RFC 10036).
        headers = {"incremental": "?1"}
        if self._tus is None:
            # By tus, the creation has named them.
            headers |= {"upload-id": self.upload_id, **self.headers}
        if self._form_file is not None:
            return headers | self._form_file.headers(size)
        if stop is not None:
            headers["content-length"] = str(stop - start)
        if self._tus is not None:
            return headers | self._tus.headers(start)
        headers["content-type"] = self.source.content_type
        if stop is not None and self._is_part(start, stop):
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        return headers

    async def _snapshot(self) -> UploadProgress | None:
        """Return the snapshot at the server; None if it cannot be read."""
        with suppress(UploadProgressError):
            return await self.api.get(self.upload_id)
        return None

    async def _check_rejection(self) -> None:
        """Ask the server whether it has rejected this attempt.

        Raises:
            UploadProgressError: The upload was rejected or cancelled.
        """
        error = await self._rejection()
        if error is not None:
            raise error

    async def _rejection(self) -> UploadProgressError | None:
        progress = await self._snapshot()
        if progress is None or progress.attempt < self._attempt:
            return None
        return rejection_in(progress)

    async def _resume_offset(self) -> int | None:
        """Return the offset to continue from; None if the server has every byte."""
        if self._tus is not None:
            with translated_errors(str(self._tus.url)):
                offset = await self._tus.offset()
            if offset is None:
                self._tus = None  # the server has dropped the upload: create another one
            return None if offset == self.source.size_bytes else offset or 0
        try:
            progress = await self.api.get(self.upload_id)
            with anyio.move_on_after(DISCONNECT_SECONDS):
                while is_receiving(progress.state):
                    await anyio.sleep(0.1)
                    progress = await self.api.get(self.upload_id)
        except (ServerUnreachable, ServerBusy):
            raise
        except UploadNotFound:
            # The server was restarted, and has forgotten the upload: it counts from the start.
            self._attempt, self._newest = 1, None
            self._watch_loop.forget()
            return 0
        except UploadProgressError:
            return 0
        if progress.state in _RECEIVED_STATES and progress.attempt >= self._attempt:
            return None
        if progress.state is UploadState.PAUSED and self._accepts_parts:
            return progress.bytes_transferred
        if progress.state is UploadState.FAILED:
            self._attempt = progress.attempt + 1
        return 0

    async def _result(self, upload_id: str, status: int | None, content: bytes) -> UploadResult:
        """Wait for the final snapshot and return the result.

        Raises:
            UploadProgressError: The upload was rejected or cancelled.
        """
        if upload_id != self.upload_id:
            # The requested id belongs to another upload; forget its snapshots.
            self.upload_id, self._newest = upload_id, None
        # Without a response the snapshot is the only result, so wait for it without a limit.
        limit_seconds = None if status is None else FINAL_SNAPSHOT_SECONDS
        retry = RetryPolicy.create(0, _FIRST_DELAY_SECONDS)
        watch = WatchLoop(self.api, retry, upload_id=upload_id)
        with suppress(UploadProgressError), anyio.move_on_after(limit_seconds):
            async with aclosing(watch.snapshots()) as snapshots:
                async for progress in snapshots:
                    self._report(progress)
        last = self._newest
        error = None if last is None else rejection_in(last)
        if error is not None:
            raise error
        return UploadResult(upload_id, status, content, last)

    def _report(self, progress: UploadProgress) -> None:
        """Call ``on_progress``, unless this or a newer snapshot was reported before.

        At the end two watch loops run: that of the task and that of ``_result``.
        """
        if self._newest is None or is_newer(progress, self._newest):
            self._newest = progress
            self.on_progress(progress)

    async def _watch(self) -> None:
        """Report snapshots while the file is sent; abort the request if one shows a rejection.

        Errors are ignored: an upload does not depend on its progress.
        """
        upload_id = self.upload_id
        with suppress(UploadProgressError):
            async with aclosing(self._watch_loop.snapshots()) as snapshots:
                async for progress in snapshots:
                    if self.upload_id == upload_id and progress.attempt >= self._attempt:
                        self._report(progress)
                        if rejection_in(progress) is not None:
                            await anyio.sleep(RESPONSE_SECONDS)
                            self._request_scope.cancel()


def _not_confirmed(status: int, size_bytes: int) -> str:
    return (
        f"answered {status} to the first {size_bytes} bytes, and did not confirm that it accepts "
        "parts (308 with Range, or Upload-Offset): it may have stored them as the whole file; "
        "send the file again in one request"
    )
