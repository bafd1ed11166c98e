"""Following uploads over a network that fails: by event stream, or by asking each second.

An event stream shows a change at once. A proxy that holds answers back lets none through, or not
in time: the server sends its first line as soon as the stream is open, so that silence means a
buffer, and then asking again and again is what works. Each word is a whole snapshot, so a lost
connection costs nothing but time: what comes after it says all.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

import anyio
import httpx2
from attrs import define, field

from upload_progress._model.codec import decode_progress
from upload_progress._model.models import UploadProgress
from upload_progress._model.state import is_final
from upload_progress.client.api import Calls
from upload_progress.client.retry import Patience
from upload_progress.exceptions import (
    InvalidValue,
    ServerBusy,
    ServerUnreachable,
    UnexpectedAnswer,
    UploadNotFound,
)

__all__ = [
    "ASK_SECONDS",
    "FIRST_WORD_SECONDS",
    "NOTHING_MORE",
    "SOON_SECONDS",
    "Watching",
    "is_newer",
]

FIRST_WORD_SECONDS: Final = 5.0
NOTHING_MORE: Final = 204
SOON_SECONDS: Final = 0.02
ASK_SECONDS: Final = 1.0
"""Between two questions, where streams do not pass."""

_Version = tuple[int, int, int, str]
_NOTHING: Final[_Version] = (0, 0, 0, "")
_Events = AsyncIterator[httpx2.ServerSentEvent]


@define(eq=False, repr=False)
class Watching:
    """Follows one upload to its end, or those of a filter until it is told to stop.

    Attributes:
        upload_id: Which one; None for all.
        filters: ``state`` and ``group``, where it is all.
        streams: Whether an event stream is tried at all.
        endless: Whether to wait for the next attempt after an end, and for an upload that is
            not there yet.
    """

    calls: Calls
    patience: Patience
    upload_id: str | None = field(default=None, kw_only=True)
    filters: Mapping[str, str] = field(factory=dict, kw_only=True)
    streams: bool = field(default=True, kw_only=True)
    endless: bool = field(default=False, kw_only=True)
    first_word_seconds: float = field(default=FIRST_WORD_SECONDS, kw_only=True)
    ask_seconds: float = field(default=ASK_SECONDS, kw_only=True)
    _seen: dict[str, _Version] = field(factory=dict, init=False)
    _unknown: int = field(default=0, init=False)
    _last_event_id: str = field(default="", init=False)
    _is_over: bool = field(default=False, init=False)

    async def snapshots(self) -> AsyncGenerator[UploadProgress]:
        """Yield what is new; of one upload the end last.

        Raises:
            UploadNotFound: There is no such upload, or it is somebody else's.
            NotAllowed: The server does not let us.
            ServerUnreachable: It is gone, for longer than our patience lasts.
            ServerBusy: It has no time, for longer than our patience lasts.
            UnexpectedAnswer: Something else answers.
        """
        while not self._is_over:
            try:
                async with aclosing(self._stream() if self.streams else self._ask()) as news:
                    async for progress in news:
                        self.patience.renew()
                        if self._is_new(progress):
                            yield progress
            except (ServerUnreachable, ServerBusy) as reason:
                await self.patience.rest(reason)
            except UploadNotFound:
                if not self.endless:
                    raise
                await anyio.sleep(self._unknown_pause_seconds())
                continue
            if not self._is_over:
                await anyio.sleep(self.ask_seconds)

    def _unknown_pause_seconds(self) -> float:
        """Return a pause that is short at first: an upload shows up soon, or is held back."""
        pause = min(SOON_SECONDS * float(2**self._unknown), self.ask_seconds)
        self._unknown = min(self._unknown + 1, 10)
        return pause

    def _is_new(self, progress: UploadProgress) -> bool:
        if self.upload_id is not None and is_final(progress.state) and not self.endless:
            self._is_over = True
        version = _version_of(progress)
        if not _tells_more(version, self._seen.get(progress.upload_id, _NOTHING)):
            return False
        self._seen[progress.upload_id] = version
        return True

    @property
    def _url(self) -> httpx2.URL:
        if self.upload_id is None:
            return self.calls.url("progress")
        return self.calls.upload_url(self.upload_id, "progress")

    async def _ask(self) -> AsyncGenerator[UploadProgress]:
        """Yield what an ordinary question is answered with."""
        if self.upload_id is None:
            uploads = (await self.calls.page(self.filters)).uploads
        else:
            uploads = (await self.calls.snapshot(self.upload_id),)
        for progress in uploads:
            yield progress

    async def _stream(self) -> AsyncGenerator[UploadProgress]:
        """Yield what one event stream brings, until it ends; say so where none passes."""
        headers = {"accept": "text/event-stream"}
        if self._last_event_id:
            headers["last-event-id"] = self._last_event_id
        async with AsyncExitStack() as stack:
            opening = self.calls.stream(self._url, params=self.filters, headers=headers)
            with anyio.move_on_after(self.first_word_seconds) as waiting:
                response = await stack.enter_async_context(opening)
            if waiting.cancelled_caught:
                self.streams = False
                return
            is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
            # 204 says that nothing more will come; else something on the way knows no streams.
            self.streams = is_stream or response.status_code == NOTHING_MORE
            events = self._events(response) if is_stream else self._ask()
            async with aclosing(events) as snapshots:
                async for progress in snapshots:
                    yield progress

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[UploadProgress]:
        source = aiter(httpx2.EventSource(response))
        async with _unwinding(source):
            event = await self._first(source)
            # The first line comes with no delay, so its lack is a proxy's doing.
            self.streams = event is not None
            while event is not None:
                self._last_event_id = event.id
                if event.data:
                    yield self._decoded(event)
                event = await anext(source, None)

    async def _first(self, source: _Events) -> httpx2.ServerSentEvent | None:
        """Return the first event; None where it does not come in time."""
        with anyio.move_on_after(self.first_word_seconds):
            return await anext(source, None)
        return None

    def _decoded(self, event: httpx2.ServerSentEvent) -> UploadProgress:
        try:
            return decode_progress(event.data)
        except InvalidValue as error:
            problem = f"sends events that are no snapshots: {error.problem}"
            raise UnexpectedAnswer(self.calls.address, problem) from None


def is_newer(progress: UploadProgress, than: UploadProgress) -> bool:
    """Return whether the first of two snapshots of an upload tells more than the second."""
    return _tells_more(_version_of(progress), _version_of(than))


def _version_of(progress: UploadProgress) -> _Version:
    """Return what grows with every news; the end counts, for it is told before it is stored."""
    end = str(progress.state) if is_final(progress.state) else ""
    return (progress.attempt, progress.sequence, progress.bytes_transferred, end)


def _tells_more(version: _Version, known: _Version) -> bool:
    # When it is stored its sequence grows; but an end is told once.
    is_known_end = version[3] != "" and (version[0], version[3]) == (known[0], known[3])
    return version > known and not is_known_end


@asynccontextmanager
async def _unwinding(source: _Events) -> AsyncGenerator[None]:
    """End *source* when the block does, with all the generators that it draws from.

    Closing it would only drop those: they end where they wait, which is by being cancelled.
    """
    try:
        yield
    finally:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async for _ in source:
                pass
