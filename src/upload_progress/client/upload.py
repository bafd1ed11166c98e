"""Sending a file, and hearing from the server meanwhile how far it is.

What the network says of an upload is not the last word. After a lost connection the server is
asked where the upload stands, since all of these happen: it has every byte, and only its answer
was lost; it has refused, and closed the connection before that could be read; it waits for the
rest (``paused``), which is then sent with ``Content-Range`` (RFC 9110, section 14.4); or it has
given up, and everything is sent again under the same id, as its next attempt.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from typing import Final

import anyio
import httpx2
from attrs import define, field, frozen

from upload_progress._model.models import ErrorCode, UploadProgress, UploadState
from upload_progress._model.state import is_final, is_receiving
from upload_progress.client.api import Calls, reaching, start_of
from upload_progress.client.files import Source
from upload_progress.client.responses import Refusal, rejection_of
from upload_progress.client.retry import Patience
from upload_progress.client.watch import Watching, is_newer
from upload_progress.exceptions import (
    ServerBusy,
    ServerUnreachable,
    UploadCancelled,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "FOLLOW_RETRIES",
    "GRACE_SECONDS",
    "LAST_WORD_SECONDS",
    "NOTICE_SECONDS",
    "PERMANENT_REDIRECT",
    "Sending",
    "Sent",
    "refusal_in",
]

LAST_WORD_SECONDS: Final = 5.0
NOTICE_SECONDS: Final = 10.0
"""How long a server may take to notice that a connection is gone."""
GRACE_SECONDS: Final = 1.0
"""Between the word that an upload has failed, and giving up on the answer that says why."""
FOLLOW_RETRIES: Final = 1000
PERMANENT_REDIRECT: Final = 308
"""To some servers of ranges it means "go on"."""
_TIMEOUT: Final = httpx2.Timeout(10.0, read=3600.0, write=600.0)
_ALL_HERE: Final = frozenset({UploadState.PROCESSING, UploadState.COMPLETED})
_REFUSALS: Final = frozenset({ErrorCode.REJECTED, ErrorCode.APP_ERROR})


@frozen
class Sent:
    """An upload that was taken.

    Attributes:
        upload_id: Its name; not the one asked for, if that was in use.
        status: The HTTP status of the answer; None if the answer was lost on its way.
        content: The beginning of the answer's body, at most 16 KiB.
        progress: The server's last word; None where it tells nothing of its uploads.
    """

    upload_id: str
    status: int | None
    content: bytes
    progress: UploadProgress | None


def refusal_in(progress: UploadProgress) -> UploadProgressError | None:
    """Return why that snapshot says that the upload is not to be sent again, if it says so."""
    if progress.state is UploadState.CANCELLED:
        return UploadCancelled()
    error = progress.error
    if progress.state is UploadState.FAILED and error and error.code in _REFUSALS:
        return UploadRejected(error.http_status, error.message)
    return None


@define(eq=False, repr=False)
class Sending:
    """One file on its way to one URL.

    Attributes:
        headers: What every request carries besides what is known here.
        chunk_bytes: How much one request carries, with ``Content-Range``; None for all at once.
        may_exist: Whether the id may have been used before.
        on_progress: Told each new snapshot.
        on_sent: Told how many bytes were handed to the network.
    """

    calls: Calls
    source: Source
    target: httpx2.URL
    upload_id: str
    patience: Patience
    headers: Mapping[str, str] = field(kw_only=True)
    auth: tuple[str, str] | None = field(default=None, kw_only=True)
    chunk_bytes: int | None = field(default=None, kw_only=True)
    may_exist: bool = field(default=False, kw_only=True)
    on_progress: Callable[[UploadProgress], object] = field(kw_only=True)
    on_sent: Callable[[int], object] = field(kw_only=True)
    _attempt: int = field(default=1, init=False)
    _newest: UploadProgress | None = field(default=None, init=False)
    _cut: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    async def run(self) -> Sent:
        """Send it.

        Raises:
            UploadProgressError: It was not taken; see the errors of ``put``.
        """
        if self.may_exist:
            await self._look_back()
        outcome: Sent | UploadProgressError
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            try:
                outcome = await self._send()
            except UploadProgressError as error:
                # Out of the group it would come as a group of errors.
                outcome = error
            tasks.cancel_scope.cancel()
        if isinstance(outcome, UploadProgressError):
            raise outcome
        return outcome

    async def _look_back(self) -> None:
        """See which attempts of that upload are over: their end is not ours."""
        progress = await self._asked()
        if progress is not None and is_final(progress.state):
            self._attempt = progress.attempt + 1

    async def _send(self) -> Sent:
        has_failed = False
        while True:
            try:
                offset = await self._standing() if has_failed else 0
                if offset is None:
                    return await self._concluded(self.upload_id, None, b"")
                return await self._transfer(offset)
            except (ServerUnreachable, ServerBusy) as reason:
                has_failed = True
                await self._judge()
                await self.patience.rest(reason)

    async def _transfer(self, offset: int) -> Sent:
        """Send all from *offset*, in as many requests as it takes."""
        while True:
            size = self.source.size_bytes
            stop = size if self.chunk_bytes is None else min(offset + self.chunk_bytes, size)
            sent = await self._put(offset, stop)
            if sent is not None:
                return sent
            offset = stop
            self.patience.renew()

    async def _put(self, start: int, stop: int) -> Sent | None:
        """Send one request; return None after one that was not the last."""
        address = str(self.target)
        is_last = stop == self.source.size_bytes
        with anyio.CancelScope() as self._cut, reaching(address):
            async with self.calls.http.stream(
                "PUT",
                self.target,
                headers=self._headers(start, stop),
                content=self.source.read(start, stop, self.on_sent),
                timeout=_TIMEOUT,
                auth=httpx2.USE_CLIENT_DEFAULT if self.auth is None else self.auth,
            ) as response:
                content = await start_of(response)
            goes_on = response.status_code == PERMANENT_REDIRECT and not is_last
            if not (response.is_success or goes_on):
                await self._judge()
                raise rejection_of(Refusal.of(response, content), address)
            upload_id = response.headers.get("upload-id", self.upload_id)
            if is_last:
                return await self._concluded(upload_id, response.status_code, content)
            return None
        # Our follower has heard of the end, and no answer came.
        await self._judge()
        raise ServerUnreachable(address, "the connection was cut")

    def _headers(self, start: int, stop: int) -> dict[str, str]:
        size = self.source.size_bytes
        headers = {
            "content-type": self.source.content_type,
            "upload-id": self.upload_id,
            **self.headers,
            "content-length": str(stop - start),
        }
        if stop - start < size:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        return headers

    async def _asked(self) -> UploadProgress | None:
        """Return where the server says that the upload stands; None where it says nothing."""
        with suppress(UploadProgressError):
            return await self.calls.snapshot(self.upload_id)
        return None

    async def _judge(self) -> None:
        """Ask whether the server has refused.

        Raises:
            UploadProgressError: It has.
        """
        progress = await self._asked()
        if progress is not None and progress.attempt >= self._attempt:
            reason = refusal_in(progress)
            if reason is not None:
                raise reason

    async def _standing(self) -> int | None:
        """Return from where to send on; None when every byte is here already."""
        try:
            progress = await self.calls.snapshot(self.upload_id)
            with anyio.move_on_after(NOTICE_SECONDS):
                while is_receiving(progress.state):
                    await anyio.sleep(0.1)
                    progress = await self.calls.snapshot(self.upload_id)
        except (ServerUnreachable, ServerBusy):
            raise
        except UploadProgressError:
            return 0
        if progress.state in _ALL_HERE and progress.attempt >= self._attempt:
            return None
        if progress.state is UploadState.PAUSED:
            return progress.bytes_transferred
        if progress.state is UploadState.FAILED:
            self._attempt = progress.attempt + 1
        return 0

    async def _concluded(self, upload_id: str, status: int | None, content: bytes) -> Sent:
        """Wait for the server's last word.

        Raises:
            UploadProgressError: It is that the upload failed.
        """
        if upload_id != self.upload_id:
            # What was heard until now is about somebody else's.
            self.upload_id, self._newest = upload_id, None
        patience = None if status is None else LAST_WORD_SECONDS
        watching = Watching(self.calls, Patience(0, 0.0), upload_id=upload_id)
        with suppress(UploadProgressError), anyio.move_on_after(patience):
            async with aclosing(watching.snapshots()) as snapshots:
                async for progress in snapshots:
                    self._tell(progress)
        last = self._newest
        reason = None if last is None else refusal_in(last)
        if reason is not None:
            raise reason
        return Sent(upload_id, status, content, last)

    def _tell(self, progress: UploadProgress) -> None:
        """Tell of a snapshot, unless that or a newer one was told: two of us listen at the end."""
        if self._newest is None or is_newer(progress, self._newest):
            self._newest = progress
            self.on_progress(progress)

    async def _follow(self) -> None:
        """Tell of each snapshot; where none can be had, the upload goes on all the same."""
        upload_id = self.upload_id
        patience = Patience(FOLLOW_RETRIES, 0.1)
        watching = Watching(self.calls, patience, upload_id=upload_id, endless=True)
        with suppress(UploadProgressError):
            async with aclosing(watching.snapshots()) as snapshots:
                async for progress in snapshots:
                    if self.upload_id == upload_id and progress.attempt >= self._attempt:
                        self._tell(progress)
                        if refusal_in(progress) is not None:
                            await anyio.sleep(GRACE_SECONDS)
                            self._cut.cancel()
