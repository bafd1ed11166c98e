"""Watching over a network that fails: each snapshot is yielded once, the end last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    STREAM,
    URL,
    RecordingServer,
    Reply,
    event_stream,
    json_reply,
    make_snapshot,
    problem_reply,
    status_reply,
    stream_reply,
)
from upload_progress import UploadProgress, UploadState
from upload_progress.client import AsyncProgressClient
from upload_progress.client.retry import RetryPolicy
from upload_progress.client.watch import WatchLoop
from upload_progress.exceptions import (
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadNotFound,
)

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
START = make_snapshot(sequence=1, bytes_transferred=0)
MIDDLE = make_snapshot(sequence=2, bytes_transferred=5)
END = make_snapshot(UploadState.COMPLETED, sequence=3, bytes_transferred=9)


def watch_loop(server: RecordingServer, **options: object) -> WatchLoop:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    api = AsyncProgressClient(URL, http=http).api
    settings: dict[str, object] = {"upload_id": "u", "poll_seconds": 0.001, **options}
    retry = RetryPolicy.create(2, 0.001)
    return WatchLoop(api, retry, **settings)  # type: ignore[arg-type]  # any field


async def watched(server: RecordingServer, **options: object) -> list[UploadProgress]:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watch_loop(server, **options).snapshots()) as snapshots:
            return [each async for each in snapshots]


LOST = httpx2.ReadError("lost")


@pytest.mark.parametrize(
    "api_replies",
    [
        [event_stream(START, MIDDLE, END)],
        [event_stream(START), event_stream(START, MIDDLE), event_stream(MIDDLE, END)],
        [event_stream(START, MIDDLE), LOST, LOST, event_stream(END)],
        [
            event_stream(START),
            problem_reply(503, "busy", retry_after="0"),
            event_stream(MIDDLE, END),
        ],
        [event_stream(START, MIDDLE), status_reply(204), json_reply(END)],
        [
            json_reply(START),
            json_reply(START),
            json_reply(MIDDLE),
            json_reply(MIDDLE),
            json_reply(END),
        ],
        [event_stream(START, MIDDLE, tail="data: {"), event_stream(START, MIDDLE, END)],
    ],
    ids=["once", "ended", "lost", "busy", "no content", "no streams", "incomplete"],
)
async def test_each_snapshot_is_yielded_once(api_replies: Sequence[Reply]) -> None:
    assert await watched(RecordingServer(api_replies=api_replies)) == [START, MIDDLE, END]


async def test_end_that_is_reported_before_it_is_stored_is_yielded_once() -> None:
    """The receiving worker reports it with the sequence of the last stored snapshot."""
    processing = make_snapshot(UploadState.PROCESSING, sequence=2)
    early = make_snapshot(UploadState.COMPLETED, sequence=2)
    stored = make_snapshot(UploadState.COMPLETED, sequence=3)
    again = make_snapshot(UploadState.PENDING, sequence=1, attempt=2)
    server = RecordingServer(
        api_replies=[json_reply(each) for each in (processing, processing, early, stored, again)]
    )

    watch = watch_loop(server, is_endless=True, use_stream=False)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watch.snapshots()) as snapshots:
            received = [await anext(snapshots) for _ in range(3)]

    assert received == [processing, early, again]


class HeldServer(RecordingServer):
    """A server behind a proxy that holds responses until they are complete."""

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.headers["accept"] == "text/event-stream":
            await anyio.sleep_forever()
        return await super().__call__(request)


async def test_stream_without_a_head_is_replaced_by_polling() -> None:
    server = HeldServer(api_replies=[json_reply(MIDDLE), json_reply(END)])

    assert await watched(server, first_event_seconds=0.01) == [MIDDLE, END]


async def test_buffered_stream_is_replaced_by_polling() -> None:
    class Silence(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b""
            await anyio.sleep_forever()

    def silent(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=STREAM, stream=Silence())

    server = RecordingServer(api_replies=[silent, json_reply(MIDDLE), json_reply(END)])

    assert await watched(server, first_event_seconds=0.01) == [MIDDLE, END]
    assert [request.headers["accept"] for request in server.requests] == [
        "text/event-stream",
        "application/json",
        "application/json",
    ]


async def test_reconnect_sends_the_last_event_id() -> None:
    server = RecordingServer(api_replies=[event_stream(START, MIDDLE), event_stream(END)])

    await watched(server)

    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "2"]


@pytest.mark.parametrize(
    ("api_replies", "error_type"),
    [
        ([LOST], ServerUnreachable),
        ([problem_reply(503, "busy", retry_after="0")], ServerBusy),
        ([status_reply(200, b"retry: 9\n\n", **STREAM, retry_after="0")], ServerBusy),
        ([problem_reply(404, "not_found")], UploadNotFound),
        ([problem_reply(401, "unauthenticated")], NotAllowed),
        ([stream_reply(b"data: {}\n\n")], UnexpectedResponse),
    ],
)
async def test_watch_raises_the_error(
    api_replies: Sequence[Reply], error_type: type[Exception]
) -> None:
    with pytest.raises(error_type):
        await watched(RecordingServer(api_replies=api_replies))


async def test_success_resets_the_retries() -> None:
    replies = [event_stream(each) for each in (START, MIDDLE, END)]
    api_replies = [reply for stream in replies for reply in (LOST, LOST, stream)]

    assert await watched(RecordingServer(api_replies=api_replies)) == [START, MIDDLE, END]


async def test_endless_watch_waits_for_the_next_attempt() -> None:
    again = make_snapshot(attempt=2, sequence=4, bytes_transferred=1)
    api_replies = [
        problem_reply(404, "not_found"),
        event_stream(END),
        status_reply(204),
        json_reply(END),
    ]
    server = RecordingServer(api_replies=[*api_replies, event_stream(END, again)])

    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watch_loop(server, is_endless=True).snapshots()) as snapshots:
            assert [await anext(snapshots), await anext(snapshots)] == [END, again]


@pytest.mark.parametrize("use_stream", [True, False])
async def test_watching_all_uploads_goes_on_after_an_end(use_stream: bool) -> None:
    other = make_snapshot(UploadState.COMPLETED, upload_id="v", sequence=1)
    page = json_reply({"uploads": [START, other], "total": TOTAL, "next": None})
    server = RecordingServer(
        api_replies=[event_stream(START, other), event_stream(END)] if use_stream else [page]
    )
    options = {"upload_id": None, "filters": {"group": "g"}, "use_stream": use_stream}

    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(watch_loop(server, **options).snapshots()) as snapshots:
            assert [await anext(snapshots), await anext(snapshots)] == [START, other]

    assert str(server.requests[0].url) == f"{URL}/uploads/progress?group=g"


TOTAL = {
    "uploads": 2,
    "bytes_transferred": 0,
    "total_bytes": None,
    "percent": None,
    "bytes_per_second": None,
    "eta_seconds": None,
}
