"""Watching through a push server: what it knows, what is read beside it, and what if it is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    STREAM,
    URL,
    RecordingServer,
    Reply,
    json_reply,
    make_snapshot,
    problem_reply,
    status_reply,
)
from upload_progress import UploadProgress, UploadState
from upload_progress._model.codec import encode_json
from upload_progress.client import AsyncProgressClient
from upload_progress.client.retry import RetryPolicy
from upload_progress.client.watch import WatchLoop
from upload_progress.exceptions import UnexpectedResponse, UploadNotFound

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
CHANNEL = "uploads:abc"
TOKEN = "the-token"  # of no server
HINT = status_reply(200, b"retry: 1000\n\n", upload_edge="?1", **STREAM)
START = make_snapshot(sequence=1, bytes_transferred=0)
MIDDLE = make_snapshot(sequence=2, bytes_transferred=5)
END = make_snapshot(UploadState.COMPLETED, sequence=3, bytes_transferred=9)
REFUSED = {"disconnect": {"code": 3500, "reason": "invalid token"}}


def ticket(*, has_edge: bool = True) -> Reply:
    """Return an answer of ``POST /uploads/tickets``."""
    edge = {
        "url": "http://push.test/connection/uni_http_stream",
        "token": TOKEN,
        "subscriptions": {CHANNEL: "another-token"},
        "expires_in": 58,
    }
    given = {"edge": edge} if has_edge else {}
    return status_reply(201, encode_json({"ticket": "t", "expires_in": 30, **given}))


def connected(*known: UploadProgress) -> object:
    """Return the first message of the push server."""
    publications = [{"data": each} for each in known]
    return {"connect": {"client": "c", "subs": {CHANNEL: {"publications": publications}}}}


def published(snapshot: UploadProgress) -> object:
    return {"channel": CHANNEL, "pub": {"data": snapshot, "offset": 1}}


def pushes(*messages: object) -> Reply:
    """Return a stream of the push server that ends after these messages."""
    return status_reply(200, b"".join(encode_json(each) + b"\n" for each in messages))


async def watched(server: RecordingServer, **options: object) -> list[UploadProgress]:
    http = httpx2.AsyncClient(
        transport=httpx2.MockTransport(server),
        auth=("alice", "secret"),
        headers={"x-key": "secret"},
        cookies={"session": "secret"},
    )
    api = AsyncProgressClient(URL, http=http).api
    settings: dict[str, object] = {"upload_id": "u", "poll_seconds": 0.001, **options}
    loop = WatchLoop(api, RetryPolicy.create(2, 0.001), **settings)  # type: ignore[arg-type]  # any field
    with anyio.fail_after(DEADLINE_SECONDS):
        async with aclosing(loop.snapshots()) as snapshots:
            return [each async for each in snapshots]


async def test_what_the_push_server_knows_is_not_read() -> None:
    stream = pushes(connected(START), {}, published(MIDDLE), published(END), published(END))
    server = RecordingServer(api_replies=[HINT, ticket(), stream])

    assert await watched(server) == [START, MIDDLE, END]

    _, bought, opened = server.requests
    assert (bought.method, bought.url.path) == ("POST", "/uploads/tickets")
    assert bought.content == b'{"targets":[{"upload_id":"u"}]}'
    assert str(opened.url) == "http://push.test/connection/uni_http_stream"
    assert opened.content == b'{"token":"the-token"}'
    assert not any(b"secret" in value for _, value in opened.headers.raw)
    assert "authorization" not in opened.headers
    assert TOKEN not in str(opened.url)


async def test_what_it_does_not_know_is_read_and_the_newer_is_kept() -> None:
    """It has forgotten the upload: it was restarted, or nothing has come for long."""
    stream = pushes(connected(), published(START), published(END))
    server = RecordingServer(api_replies=[HINT, ticket(), stream, json_reply(MIDDLE)])

    assert await watched(server) == [MIDDLE, END]


async def test_closed_stream_is_opened_again_with_a_new_token() -> None:
    streams = [pushes(connected(START), published(MIDDLE)), pushes(connected(MIDDLE, END))]
    server = RecordingServer(api_replies=[HINT, ticket(), streams[0], ticket(), streams[1]])

    assert await watched(server) == [START, MIDDLE, END]


@pytest.mark.parametrize(
    "reply",
    [
        httpx2.ConnectError("away"),
        status_reply(502),
        status_reply(307, location="http://elsewhere.test/"),
        pushes(),
        pushes(REFUSED),
    ],
    ids=["away", "error", "redirect", "closed", "refused"],
)
async def test_upload_is_polled_while_the_push_server_is_away(reply: Reply) -> None:
    replies = [HINT, ticket(), reply, json_reply(MIDDLE), ticket(), reply, json_reply(END)]
    server = RecordingServer(api_replies=replies)

    assert await watched(server) == [MIDDLE, END]
    assert not any("elsewhere" in str(request.url) for request in server.requests)


class SilentPushServer(RecordingServer):
    """Its push server sends nothing, as behind a proxy that holds responses."""

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().__call__(request)
        if request.url.host != "push.test":
            return response
        return httpx2.Response(200, content=_silence())


async def _silence() -> AsyncIterator[bytes]:
    yield b""
    await anyio.sleep_forever()


async def test_silent_push_server_counts_as_away() -> None:
    server = SilentPushServer(api_replies=[HINT, ticket(), pushes(), json_reply(END)])

    assert await watched(server, first_event_seconds=0.01) == [END]


async def test_unknown_upload_is_an_error() -> None:
    server = RecordingServer(
        api_replies=[HINT, ticket(), pushes(connected()), problem_reply(404, "not_found")]
    )
    with pytest.raises(UploadNotFound):
        await watched(server)


async def test_upload_that_begins_later_is_published() -> None:
    stream = pushes(connected(), published(START), published(END))
    server = RecordingServer(api_replies=[HINT, ticket(), stream, problem_reply(404, "not_found")])
    assert await watched(server, may_begin_later=True) == [START, END]


async def test_group_is_watched_there_and_states_are_not() -> None:
    with_state = {"group": "g", "state": "receiving"}
    for filters, paths in [
        ({"group": "g"}, ["/uploads/progress", "/uploads/tickets"]),
        (with_state, ["/uploads/progress", "/uploads/progress"]),
    ]:
        server = RecordingServer(api_replies=[HINT, problem_reply(404, "not_found")])
        with pytest.raises(UploadNotFound):
            await watched(server, upload_id=None, filters=filters)
        assert [request.url.path for request in server.requests] == paths


async def test_event_stream_is_used_for_what_is_not_published_there() -> None:
    hinted = status_reply(
        200,
        b"data: " + encode_json(END) + b"\n\n",
        upload_edge="?1",
        **STREAM,
    )
    server = RecordingServer(api_replies=[HINT, ticket(has_edge=False), json_reply(START), hinted])

    assert await watched(server) == [START, END]


@pytest.mark.parametrize(
    ("replies", "problem"),
    [
        ([HINT, status_reply(201, b"[]")], "did not return a ticket"),
        (
            [HINT, ticket(), pushes({"pub": {"data": {}}})],
            "has a push server whose message is not valid",
        ),
    ],
)
async def test_invalid_answers_are_errors(replies: list[Reply], problem: str) -> None:
    with pytest.raises(UnexpectedResponse, match=problem):
        await watched(RecordingServer(api_replies=replies))
