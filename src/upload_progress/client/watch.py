"""Watching uploads over an unreliable network: by event stream, or by polling.

An event stream delivers a change at once. A proxy that buffers responses delivers it late or
never. The server sends the first line as soon as the stream is open, so a stream without a first
line is buffered, and the loop polls from then on. Every event is a complete snapshot: after a lost
connection the next one replaces all that was missed.

A server with a push server says so in the headers of its event stream. The loop then follows the
uploads there: it connects first, and reads what the push server does not know after that. While the
push server does not answer, it polls.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, TypeVar

import anyio
import httpx2
from attrs import Factory, define, field

from upload_progress._model.api_types import EDGE_HEADER, EdgeAccess
from upload_progress._model.codec import decode_progress
from upload_progress._model.models import UploadProgress
from upload_progress._model.state import is_final
from upload_progress._model.version import Version, version_of
from upload_progress._runtime.backoff import Backoff
from upload_progress.client.api import ProgressApi
from upload_progress.client.pushes import NOT_CONNECTED, Push, decode_push
from upload_progress.client.responses import parse_retry_after
from upload_progress.client.retry import RetryPolicy
from upload_progress.exceptions import (
    InvalidValue,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadNotFound,
)

__all__ = [
    "FIRST_EVENT_SECONDS",
    "FIRST_NOT_FOUND_SECONDS",
    "POLL_SECONDS",
    "WatchLoop",
    "is_newer",
]

FIRST_EVENT_SECONDS: Final = 5.0
"""A stream whose first line takes longer is considered buffered."""
FIRST_NOT_FOUND_SECONDS: Final = 0.02
"""First delay after a 404, if the upload may still begin; it doubles up to ``POLL_SECONDS``."""
POLL_SECONDS: Final = 1.0

_T = TypeVar("_T")
_SeenVersion = tuple[Version, int]


def _not_found_backoff(poll_seconds: float) -> Backoff:
    """Return delays that are short at first: most uploads begin within milliseconds."""
    return Backoff(first_seconds=FIRST_NOT_FOUND_SECONDS, maximum_seconds=poll_seconds)


@define(eq=False, repr=False)
class WatchLoop:
    """Watches one upload until it ends, or the caller's uploads until cancelled.

    Attributes:
        api: The progress API.
        retry: Limits consecutive network failures.
        upload_id: The upload; None for all of the caller's uploads.
        filters: Query parameters ``state`` and ``group``, if ``upload_id`` is None.
        use_stream: Whether to open an event stream; becomes False if none gets through.
        may_begin_later: Whether to wait for an upload that does not exist yet.
        is_endless: Whether to wait for an upload that does not exist yet, and to go on with its
            next attempt after it has ended.
        first_event_seconds: How long to wait for the first line of a stream.
        poll_seconds: Interval between two requests while polling.
    """

    api: ProgressApi
    retry: RetryPolicy
    upload_id: str | None = field(default=None, kw_only=True)
    filters: Mapping[str, str] = field(factory=dict, kw_only=True)
    use_stream: bool = field(default=True, kw_only=True)
    may_begin_later: bool = field(default=False, kw_only=True)
    is_endless: bool = field(default=False, kw_only=True)
    first_event_seconds: float = field(default=FIRST_EVENT_SECONDS, kw_only=True)
    poll_seconds: float = field(default=POLL_SECONDS, kw_only=True)
    _seen: dict[str, _SeenVersion] = field(factory=dict, init=False)
    _not_found_backoff: Backoff = field(
        default=Factory(lambda self: _not_found_backoff(self.poll_seconds), takes_self=True),
        init=False,
    )
    _last_event_id: str = field(default="", init=False)
    _has_ended: bool = field(default=False, init=False)
    _has_edge: bool | None = field(default=None, init=False)

    async def snapshots(self) -> AsyncGenerator[UploadProgress]:
        """Yield each snapshot that is newer than the one before; of one upload, the end last.

        Raises:
            UploadNotFound: The upload does not exist or belongs to another owner.
            NotAllowed: The server denies access.
            ServerUnreachable: The server was unreachable, and no retry is left.
            ServerBusy: The server was busy, and no retry is left.
            UnexpectedResponse: The response is not one of the progress API.
        """
        while not self._has_ended:
            try:
                async with aclosing(self._source()) as found:
                    async for progress in found:
                        self.retry.reset()
                        if self._is_newer(progress):
                            yield progress
            except (ServerUnreachable, ServerBusy) as error:
                await self.retry.wait(error)
            except UploadNotFound:
                if not self._is_patient:
                    raise
                await anyio.sleep(self._not_found_backoff.next_delay_seconds())
                continue
            if not self._has_ended:
                await anyio.sleep(self.poll_seconds)

    def forget(self) -> None:
        """Yield whatever comes next: the server has been restarted without its uploads."""
        self._seen.clear()
        self._last_event_id = ""

    def _is_newer(self, progress: UploadProgress) -> bool:
        if self.upload_id is not None and is_final(progress.state) and not self.is_endless:
            self._has_ended = True
        version, seen = _version_of(progress), self._seen.get(progress.upload_id)
        if seen is not None and not _is_after(version, seen):
            return False
        self._seen[progress.upload_id] = version
        return True

    @property
    def _is_patient(self) -> bool:
        """Whether the upload may begin later."""
        return self.is_endless or self.may_begin_later

    def _source(self) -> AsyncGenerator[UploadProgress]:
        if self._has_edge:
            return self._follow_edge()
        return self._stream() if self.use_stream else self._poll()

    @property
    def _url(self) -> httpx2.URL:
        if self.upload_id is None:
            return self.api.url("progress")
        return self.api.upload_url(self.upload_id, "progress")

    async def _poll(self) -> AsyncGenerator[UploadProgress]:
        """Yield the snapshots of one ordinary response."""
        if self.upload_id is None:
            uploads = (await self.api.list_page(self.filters)).uploads
        else:
            uploads = (await self.api.get(self.upload_id),)
        for progress in uploads:
            yield progress

    async def _stream(self) -> AsyncGenerator[UploadProgress]:
        """Yield the snapshots of one event stream; clear ``use_stream`` if none gets through."""
        headers = {"accept": "text/event-stream"}
        if self._last_event_id:
            headers["last-event-id"] = self._last_event_id
        async with AsyncExitStack() as stack:
            request = self.api.stream(self._url, params=self.filters, headers=headers)
            with anyio.move_on_after(self.first_event_seconds) as timeout:
                response = await stack.enter_async_context(request)
            if timeout.cancelled_caught:
                self.use_stream = False
                return
            is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
            if is_stream and "retry-after" in response.headers:
                seconds = parse_retry_after(response.headers["retry-after"])
                raise ServerBusy("it sends no events at the moment", seconds)
            # 204 means that no event will follow; any other response comes from a server or
            # proxy without event streams.
            self.use_stream = is_stream or response.status_code == HTTPStatus.NO_CONTENT
            if is_stream and EDGE_HEADER in response.headers and self._may_use_edge:
                await stack.aclose()
                source = self._follow_edge()
            else:
                source = self._events(response) if is_stream else self._poll()
            async with aclosing(source) as found:
                async for progress in found:
                    yield progress

    @property
    def _may_use_edge(self) -> bool:
        # The push server knows no filter of states.
        return self._has_edge is None and "state" not in self.filters

    async def _follow_edge(self) -> AsyncGenerator[UploadProgress]:
        """Yield the snapshots of one connection to the push server, and what has to be read."""
        target = self.filters if self.upload_id is None else {"upload_id": self.upload_id}
        access = await self.api.edge_access(target)
        self._has_edge = access is not None
        async with aclosing(self._pushes(access)) as pushes:
            async for push in pushes:
                for progress in push.snapshots:
                    yield progress
                if self._has_ended:
                    return
                if not push.is_complete:
                    async with aclosing(self._read_beside_edge()) as found:
                        async for progress in found:
                            yield progress

    async def _read_beside_edge(self) -> AsyncGenerator[UploadProgress]:
        """Poll; an upload that does not exist yet is published when it begins."""
        try:
            async with aclosing(self._poll()) as found:
                async for progress in found:
                    yield progress
        except UploadNotFound:
            if not self._is_patient:
                raise

    async def _pushes(self, access: EdgeAccess | None) -> AsyncGenerator[Push]:
        """Yield the messages of the push server, until it closes the connection or is away."""
        is_connected = False
        if access is not None:
            with suppress(ServerUnreachable):
                async with self.api.push_stream(access) as response:
                    lines = aiter(response.aiter_lines())
                    async with _cancelling(lines):
                        line = await self._first(lines)
                        while line is not None:
                            push = self._decode_push(line)
                            is_connected |= push.connect is not None
                            yield push
                            line = await anext(lines, None)
        if not is_connected:
            yield NOT_CONNECTED

    def _decode_push(self, line: str) -> Push:
        try:
            return decode_push(line)
        except InvalidValue as error:
            problem = f"has a push server whose message is not valid: {error.problem}"
            raise UnexpectedResponse(self.api.address, problem) from None

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[UploadProgress]:
        events = aiter(httpx2.EventSource(response))
        async with _cancelling(events):
            event = await self._first(events)
            # The server sends the first line without delay: if it is missing, a proxy holds it.
            self.use_stream = event is not None
            while event is not None:
                self._last_event_id = event.id
                if event.data:
                    yield self._decode(event)
                event = await anext(events, None)

    async def _first(self, events: AsyncIterator[_T]) -> _T | None:
        """Return the first event; None if it does not arrive in time."""
        with anyio.move_on_after(self.first_event_seconds):
            return await anext(events, None)
        return None

    def _decode(self, event: httpx2.ServerSentEvent) -> UploadProgress:
        try:
            return decode_progress(event.data)
        except InvalidValue as error:
            problem = f"sent an event that is not a snapshot: {error.problem}"
            raise UnexpectedResponse(self.api.address, problem) from None


def is_newer(progress: UploadProgress, known: UploadProgress) -> bool:
    """Return whether *progress* is newer than *known*, a snapshot of the same upload."""
    return _is_after(_version_of(progress), _version_of(known))


def _version_of(progress: UploadProgress) -> _SeenVersion:
    # The worker that receives an upload answers with bytes that are not stored yet, so that
    # snapshots with the same sequence may differ in them.
    return version_of(progress), progress.bytes_transferred


def _is_after(version: _SeenVersion, known: _SeenVersion) -> bool:
    # An end may be reported before it is stored, and again with the next sequence.
    is_after_end = known[0].is_final and version[0].attempt == known[0].attempt
    return version > known and not is_after_end


@asynccontextmanager
async def _cancelling(events: AsyncIterator[object]) -> AsyncGenerator[None]:
    """Cancel *events* at the end of the block, with the generators that it reads from.

    Closing it would leave the inner generators to the garbage collector; cancelling ends each
    of them where it waits.
    """
    try:
        yield
    finally:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async for _ in events:
                pass
