"""Uploads for tests of applications and pages: in any state, and as slow as a real network."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import anyio
from attrs import define, field

from upload_progress._model.models import UploadProgress, UploadState
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import Identity
from upload_progress.tracker import ProgressTracker

__all__ = ["PacedBody", "upload_in_state"]

_POLL_SECONDS: Final = 0.05
_STATUS: Final[Mapping[UploadState, int]] = {
    UploadState.PAUSED: 308,
    UploadState.COMPLETED: 201,
    UploadState.FAILED: 413,
}


@define
class PacedBody:
    """A request body that is sent at a given rate: an asynchronous iterator of chunks.

    With any client that sends an asynchronous iterator, such as httpx2::

        body = PacedBody(100_000, bytes_per_second=400_000)
        received = [len(chunk) async for chunk in body]
        assert sum(received) == 100_000

    Args:
        size_bytes: The size of the body.
        bytes_per_second: The rate.
        chunk_bytes: The size of each chunk; the last one may be smaller.

    Raises:
        InvalidValue: A size is negative, or the rate or the size of chunks is not positive.
    """

    size_bytes: int
    bytes_per_second: float = field(kw_only=True)
    chunk_bytes: int = field(default=16_384, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check the numbers."""
        if self.size_bytes < 0:
            raise InvalidValue("PacedBody.size_bytes", "must not be negative")
        if self.bytes_per_second <= 0:
            raise InvalidValue("PacedBody.bytes_per_second", "must be positive")
        if self.chunk_bytes < 1:
            raise InvalidValue("PacedBody.chunk_bytes", "must be at least 1")

    @property
    def headers(self) -> Mapping[str, str]:
        """``Content-Length``: without it, the total is unknown to the server."""
        return {"content-length": str(self.size_bytes)}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks, each when it is due; the first at once."""
        started = anyio.current_time()
        for first in range(0, self.size_bytes, self.chunk_bytes):
            await anyio.sleep_until(started + first / self.bytes_per_second)
            yield bytes(min(self.chunk_bytes, self.size_bytes - first))


@asynccontextmanager
async def upload_in_state(
    tracker: ProgressTracker,
    state: UploadState,
    *,
    owner: str | Identity,
    filename: str = "example.bin",
    total_bytes: int = 1_000_000,
) -> AsyncIterator[UploadProgress]:
    """Have an upload in *state* while the block runs, and give its snapshot.

    The upload is real: a request of half of the bytes, or of all of them, runs through
    ``UploadProgressMiddleware`` without a server. ``receiving`` and ``processing`` end with the
    block. So a page, an endpoint or a client can be tested with each state::

        async with upload_in_state(tracker, UploadState.PROCESSING, owner="ann") as upload:
            assert upload.percent == 100

    Args:
        tracker: Tracks the upload; its ``lifespan`` should run.
        state: The state.
        owner: The owner.
        filename: The file name.
        total_bytes: The size; at least 2.

    Raises:
        InvalidValue: The size is too small.
    """
    if total_bytes < 2:  # half of it is sent
        raise InvalidValue("upload_in_state.total_bytes", "must be at least 2")
    if state is UploadState.PENDING:
        yield await tracker.announce(owner=owner, filename=filename, total_bytes=total_bytes)
        return
    request = _Request(tracker, state, owner, filename, total_bytes)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request.run)
        await request.reached.wait()
        try:
            yield await request.snapshot()
        except Exception as error:  # noqa: BLE001  # raised below, not in an ExceptionGroup
            failure = error
        request.finished.set()
    if failure is not None:
        raise failure


@define(eq=False, repr=False)
class _Request:
    """One request through the middleware, held where the upload has the state."""

    tracker: ProgressTracker
    state: UploadState
    owner: str | Identity
    filename: str
    total_bytes: int
    upload_id: str = field(factory=lambda: str(uuid4()), init=False)
    reached: anyio.Event = field(factory=anyio.Event, init=False)
    finished: anyio.Event = field(factory=anyio.Event, init=False)
    _sent_bytes: int = field(default=0, init=False)

    async def run(self) -> None:
        """Send the request; ``reached`` is set when the upload has the state."""
        middleware = UploadProgressMiddleware(
            self._app, tracker=self.tracker, authenticate=lambda _: self.owner
        )
        await middleware(self._scope(), self._receive, _ignore)
        self.reached.set()

    async def snapshot(self) -> UploadProgress:
        """Return the snapshot with the state; between two requests it takes a moment."""
        if self.state is UploadState.CANCELLED:
            return await self.tracker.cancel(self.upload_id, owner=self.owner)
        while True:
            found = await self.tracker.get(self.upload_id, owner=self.owner)
            if found.state is self.state:
                return found
            await anyio.sleep(_POLL_SECONDS)

    def _scope(self) -> Scope:
        headers = [(b"upload-id", self.upload_id.encode())]
        first_bytes = self.total_bytes // 2
        if self.state is UploadState.PAUSED:
            content_range = f"bytes 0-{first_bytes - 1}/{self.total_bytes}"
            headers += [
                (b"content-range", content_range.encode()),
                (b"content-length", str(first_bytes).encode()),
            ]
        else:
            headers.append((b"content-length", str(self.total_bytes).encode()))
        disposition = f"attachment; filename={self.filename}"
        headers.append((b"content-disposition", disposition.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "PUT",
            "path": f"/example/{self.upload_id}",
            "query_string": b"",
            "headers": headers,
        }

    async def _receive(self) -> Message:
        first_bytes = self.total_bytes // 2
        if self._sent_bytes == 0:
            self._sent_bytes = first_bytes
            more = self.state is not UploadState.PAUSED
            return {"type": "http.request", "body": bytes(first_bytes), "more_body": more}
        if self.state in {UploadState.RECEIVING, UploadState.CANCELLED}:
            self.reached.set()
            await self.finished.wait()
        rest = bytes(self.total_bytes - self._sent_bytes)
        return {"type": "http.request", "body": rest, "more_body": False}

    async def _app(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        if self.state is UploadState.PROCESSING:
            self.reached.set()
            await self.finished.wait()
        headers = []
        if self.state is UploadState.PAUSED:
            headers = [(b"range", f"bytes=0-{self.total_bytes // 2 - 1}".encode())]
        status = _STATUS.get(self.state, 201)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})


async def _ignore(_message: Message) -> None:
    """Take a message of the response."""
