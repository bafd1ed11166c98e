"""Following over a network that fails: what is shown is new, whole, and ends with the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    STREAM,
    URL,
    Act,
    Play,
    answer,
    as_json,
    events,
    problem,
    stream_of,
    told,
)
from upload_progress import UploadProgress, UploadState
from upload_progress.client import AsyncProgressClient
from upload_progress.client.retry import Patience
from upload_progress.client.watch import Watching
from upload_progress.exceptions import (
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedAnswer,
    UploadNotFound,
)

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
START = told(sequence=1, bytes_transferred=0)
MIDDLE = told(sequence=2, bytes_transferred=5)
END = told(UploadState.COMPLETED, sequence=3, bytes_transferred=9)


def watching(play: Play, **options: object) -> Watching:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(play))
    calls = AsyncProgressClient(URL, http=http).calls
    settings: dict[str, object] = {"upload_id": "u", "ask_seconds": 0.001, **options}
    return Watching(calls, Patience(2, 0.001), **settings)  # type: ignore[arg-type]  # as given


async def seen(play: Play, **options: object) -> list[UploadProgress]:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watching(play, **options).snapshots()) as snapshots:
            return [each async for each in snapshots]


LOST = httpx2.ReadError("lost")


@pytest.mark.parametrize(
    "asks",
    [
        [events(START, MIDDLE, END)],
        [events(START), events(START, MIDDLE), events(MIDDLE, END)],
        [events(START, MIDDLE), LOST, LOST, events(END)],
        [events(START), problem(503, "busy", retry_after="0"), events(MIDDLE, END)],
        [events(START, MIDDLE), answer(204), as_json(END)],
        [as_json(START), as_json(START), as_json(MIDDLE), as_json(MIDDLE), as_json(END)],
        [events(START, MIDDLE, tail="data: {"), events(START, MIDDLE, END)],
    ],
    ids=["once", "ended", "lost", "busy", "no more", "no streams", "half"],
)
async def test_all_is_seen_once_and_the_end_last(asks: Sequence[Act]) -> None:
    assert await seen(Play(asks=asks)) == [START, MIDDLE, END]


async def test_an_end_is_seen_before_it_is_stored_and_once() -> None:
    """The worker that has the upload knows it first, under the sequence of what was before."""
    processing = told(UploadState.PROCESSING, sequence=2)
    early, stored, again = (
        told(UploadState.COMPLETED, sequence=2),
        told(UploadState.COMPLETED, sequence=3),
        told(UploadState.PENDING, sequence=1, attempt=2),
    )
    play = Play(asks=[as_json(each) for each in (processing, processing, early, stored, again)])

    heard = []
    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watching(play, endless=True, streams=False).snapshots()) as snapshots:
            async for each in snapshots:
                heard.append(each)
                if each == again:
                    break

    assert heard == [processing, early, again]


async def test_where_streams_are_held_back_it_asks() -> None:
    class Silence(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b""
            await anyio.sleep_forever()

    def silent(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=STREAM, stream=Silence())

    play = Play(asks=[silent, as_json(MIDDLE), as_json(END)])

    assert await seen(play, first_word_seconds=0.01) == [MIDDLE, END]
    assert [request.headers["accept"] for request in play.requests] == [
        "text/event-stream",
        "application/json",
        "application/json",
    ]


async def test_it_comes_back_with_what_it_knows() -> None:
    play = Play(asks=[events(START, MIDDLE), events(END)])

    await seen(play)

    assert [request.headers.get("last-event-id") for request in play.requests] == [None, "2"]


@pytest.mark.parametrize(
    ("asks", "kind"),
    [
        ([LOST], ServerUnreachable),
        ([problem(503, "busy", retry_after="0")], ServerBusy),
        ([problem(404, "not_found")], UploadNotFound),
        ([problem(401, "unauthenticated")], NotAllowed),
        ([stream_of(b"data: {}\n\n")], UnexpectedAnswer),
    ],
)
async def test_what_cannot_be_followed_is_said(asks: Sequence[Act], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await seen(Play(asks=asks))


async def test_success_renews_patience() -> None:
    asks = [LOST, LOST, events(START), LOST, LOST, events(MIDDLE), LOST, LOST, events(END)]

    assert await seen(Play(asks=asks)) == [START, MIDDLE, END]


async def test_the_next_attempt_is_awaited_where_there_is_no_end() -> None:
    again = told(attempt=2, sequence=4, bytes_transferred=1)
    asks = [problem(404, "not_found"), events(END), answer(204), as_json(END)]
    play = Play(asks=[*asks, events(END, again)])

    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watching(play, endless=True).snapshots()) as snapshots:
            assert [await anext(snapshots), await anext(snapshots)] == [END, again]


@pytest.mark.parametrize("streams", [True, False])
async def test_all_are_followed_without_end(streams: bool) -> None:
    other = told(UploadState.COMPLETED, upload_id="v", sequence=1)
    page = as_json({"uploads": [START, other], "total": TOTAL, "next": None})
    play = Play(asks=[events(START, other), events(END)] if streams else [page])
    options = {"upload_id": None, "filters": {"group": "g"}, "streams": streams}

    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watching(play, **options).snapshots()) as snapshots:
            assert [await anext(snapshots), await anext(snapshots)] == [START, other]

    assert str(play.requests[0].url) == f"{URL}/uploads/progress?group=g"


TOTAL = {
    "uploads": 2,
    "bytes_transferred": 0,
    "total_bytes": None,
    "percent": None,
    "bytes_per_second": None,
    "eta_seconds": None,
}
