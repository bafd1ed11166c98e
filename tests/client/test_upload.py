"""A file on its way over a network that fails, to a server that plays its part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    URL,
    Act,
    Play,
    answer,
    as_json,
    client_of,
    problem,
    told,
)
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import ErrorCode, UploadError
from upload_progress.client import AsyncProgressClient, Sent
from upload_progress.client import async_client as asynchronous
from upload_progress.client import upload as sending
from upload_progress.exceptions import (
    InvalidValue,
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedAnswer,
    UploadCancelled,
    UploadRejected,
)

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
BODY = bytes(range(10))
LOST = httpx2.WriteError("lost")
TAKEN = answer(201, b"taken")


def failed(code: ErrorCode, attempt: int = 1) -> UploadProgress:
    error = UploadError(code, "It does not like it.", 418)
    return told(UploadState.FAILED, error=error, attempt=attempt)


COMPLETED = told(UploadState.COMPLETED, sequence=9)
DISCONNECTED = failed(ErrorCode.CLIENT_DISCONNECTED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a b.txt"
    path.write_bytes(BODY)
    return path


async def put(
    play: Play,
    path: Path,
    *,
    retries: int = 3,
    **options: Any,  # noqa: ANN401  # whatever put() takes
) -> Sent:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with client_of(play, retries=retries) as client:
            with mock.patch.object(asynchronous, "new_upload_id", return_value="u"):
                return await client.put(path, f"{URL}/files/", **options)


async def test_a_file_is_sent_with_all_that_is_known_of_it(path: Path) -> None:
    play, sent, heard = Play([TAKEN], [as_json(COMPLETED)]), list[int](), list[UploadProgress]()

    result = await put(play, path, group="g", on_sent=sent.append, on_progress=heard.append)

    [request] = [each for each in play.requests if each.method == "PUT"]
    assert result == Sent("u", 201, b"taken", COMPLETED)
    assert play.received == [BODY]
    assert str(request.url) == f"{URL}/files/a%20b.txt"
    assert request.headers["upload-id"] == "u"
    assert request.headers["upload-group"] == "g"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["content-length"] == "10"
    assert "content-range" not in request.headers
    assert sent == [10]
    assert heard[-1] == COMPLETED


async def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    play = Play([TAKEN])

    await put(play, tmp_path / "empty")

    assert play.received == [b""]


async def test_a_server_without_progress_takes_files_all_the_same(path: Path) -> None:
    result = await put(Play([TAKEN], [answer(404)]), path)

    assert result.progress is None


async def test_the_server_may_give_another_id(path: Path) -> None:
    play = Play([answer(200, upload_id="other")], [as_json(COMPLETED)])

    assert (await put(play, path)).upload_id == "other"


@pytest.mark.parametrize("sequence", [8, 9, 10])
async def test_an_end_that_is_heard_twice_is_told_once(path: Path, sequence: int) -> None:
    """The follower hears it, and we do; what is told is the last word, too."""
    newer = told(UploadState.COMPLETED, sequence=sequence)
    play, heard = (
        Play([TAKEN], [as_json(newer), as_json(newer), as_json(COMPLETED)]),
        list[UploadProgress](),
    )
    follower_has_asked = anyio.Event()

    async def play_on(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await follower_has_asked.wait()
        return await play(request)

    def on_progress(progress: UploadProgress) -> None:
        heard.append(progress)
        follower_has_asked.set()

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(play_on))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http) as client:
            sent = await client.put(path, f"{URL}/files/", on_progress=on_progress)

    assert heard == [newer]
    assert sent.progress == newer


@pytest.mark.parametrize("busy", [LOST, answer(503, retry_after="0"), answer(502)])
async def test_what_was_lost_is_sent_again(path: Path, busy: Act) -> None:
    asks = [as_json(DISCONNECTED)] * 9 + [as_json(COMPLETED)]
    play = Play([busy, busy, TAKEN], asks)

    await put(play, path)

    assert play.received == [BODY, BODY, BODY]
    assert {r.headers["upload-id"] for r in play.requests if r.method == "PUT"} == {"u"}


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (LOST, ServerUnreachable),
        (answer(503, retry_after="0"), ServerBusy),
        (answer(504), ServerUnreachable),
    ],
)
async def test_patience_ends(path: Path, act: Act, kind: type[Exception]) -> None:
    play = Play([act])

    with pytest.raises(kind):
        await put(play, path, retries=2)

    assert len(play.received) == 3


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (problem(413, "too_large"), UploadRejected),
        (answer(500), UploadRejected),
        (problem(401, "unauthenticated"), NotAllowed),
        (answer(301, location="/x"), UnexpectedAnswer),
        (answer(308), UnexpectedAnswer),
        (answer(400, 20_000 * b"x"), UploadRejected),
        (httpx2.LocalProtocolError("Illegal header value"), InvalidValue),
    ],
)
async def test_a_refusal_is_not_tried_again(path: Path, act: Act, kind: type[Exception]) -> None:
    play = Play([act])

    with pytest.raises(kind):
        await put(play, path)

    assert len(play.received) == 1


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (told(UploadState.CANCELLED), UploadCancelled),
        (failed(ErrorCode.REJECTED), UploadRejected),
        (failed(ErrorCode.APP_ERROR), UploadRejected),
    ],
)
@pytest.mark.parametrize("act", [LOST, answer(409), TAKEN])
async def test_the_servers_word_says_why(
    path: Path, act: Act, word: UploadProgress, kind: type[Exception]
) -> None:
    """Whatever has become of the answer: lost on its way, or said without a reason."""
    with pytest.raises(kind):
        await put(Play([act], [as_json(word)]), path, retries=0)


@pytest.mark.parametrize("state", [UploadState.PROCESSING, UploadState.COMPLETED])
async def test_an_answer_that_was_lost_is_no_loss(path: Path, state: UploadState) -> None:
    play = Play([LOST], [as_json(told(state)), as_json(told(state)), as_json(COMPLETED)])

    result = await put(play, path)

    assert result.status is None
    assert result.progress is not None
    assert result.progress.state is UploadState.COMPLETED
    assert play.received == [BODY]


async def test_what_is_kept_is_not_sent_again(path: Path) -> None:
    play = Play(asks=[as_json(told(UploadState.PAUSED, bytes_transferred=4))])

    def take(_request: httpx2.Request) -> httpx2.Response:
        play.asks = [as_json(COMPLETED)]
        return httpx2.Response(201)

    play.puts = [LOST, take]
    await put(play, path)

    first, second = [each for each in play.requests if each.method == "PUT"]
    assert play.received == [BODY, BODY[4:]]
    assert "content-range" not in first.headers
    assert second.headers["content-range"] == "bytes 4-9/10"


async def test_a_server_that_has_not_noticed_is_waited_for(path: Path) -> None:
    receiving = as_json(told(UploadState.RECEIVING, sequence=1))
    asks = [*[receiving] * 4, as_json(DISCONNECTED), as_json(DISCONNECTED), as_json(COMPLETED)]
    play = Play([LOST, TAKEN], asks)

    await put(play, path)

    assert play.received == [BODY, BODY]


async def test_it_is_not_waited_for_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(sending, "LAST_WORD_SECONDS", 0.01)
    play = Play([LOST, TAKEN], [as_json(told(UploadState.RECEIVING))])

    result = await put(play, path)

    assert play.received == [BODY, BODY]
    assert result.status == 201


async def test_the_server_may_be_away_when_it_is_asked(path: Path) -> None:
    asks = [LOST] * 20 + [as_json(COMPLETED)]
    play = Play([LOST, TAKEN], asks)

    await put(play, path, retries=30)

    assert play.received == [BODY]


async def test_pieces_are_sent_as_ranges(path: Path) -> None:
    play = Play([answer(308), answer(204), TAKEN], [as_json(COMPLETED)])

    await put(play, path, chunk_bytes=4)

    ranges = [r.headers["content-range"] for r in play.requests if r.method == "PUT"]
    assert ranges == ["bytes 0-3/10", "bytes 4-7/10", "bytes 8-9/10"]
    assert b"".join(play.received) == BODY


async def test_an_upload_that_is_refused_while_it_is_sent_is_cut(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays open and silent, so the follower's word is all there is."""
    monkeypatch.setattr(sending, "GRACE_SECONDS", 0.01)
    play = Play(asks=[as_json(failed(ErrorCode.REJECTED))])

    async def hang(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await anyio.sleep_forever()
        return await play(request)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(hang))
    async with AsyncProgressClient(URL, http=http) as client:
        with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(UploadRejected, match="like it"):
            await client.put(path, f"{URL}/files/")


@pytest.mark.parametrize("end", [told(UploadState.CANCELLED), COMPLETED])
async def test_the_end_of_an_earlier_attempt_is_not_ours(path: Path, end: UploadProgress) -> None:
    """Neither is its success taken for ours, nor its failure; it is not even shown."""
    play, heard = Play(asks=[as_json(end)]), list[UploadProgress]()
    ours = told(UploadState.COMPLETED, attempt=2, sequence=20)
    follower_has_asked = anyio.Event()

    async def play_on(request: httpx2.Request) -> httpx2.Response:
        if request.headers.get("accept") == "text/event-stream":
            follower_has_asked.set()
        if request.method == "PUT" and len(play.received) == 1:
            await follower_has_asked.wait()
            play.asks = [as_json(ours)]
        return await play(request)

    play.puts = [LOST, TAKEN]
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(play_on))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http, first_pause_seconds=0.001) as client:
            sent = await client.put(path, f"{URL}/files/", upload_id="u", on_progress=heard.append)

    assert play.received == [BODY, BODY]
    assert sent.progress == ours
    assert heard == [ours]


async def test_an_upload_that_was_only_announced_is_ours(path: Path) -> None:
    play = Play([TAKEN], [as_json(told(UploadState.PENDING, sequence=1)), as_json(COMPLETED)])

    assert (await put(play, path, upload_id="u")).progress == COMPLETED


async def test_a_cut_whose_reason_is_gone_is_a_lost_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GRACE_SECONDS", 0.01)
    # The follower asks for a stream, and when it gets none, once more.
    refused = as_json(failed(ErrorCode.REJECTED))
    play = Play(asks=[refused, refused, problem(404, "not_found")])

    async def hang(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await anyio.sleep_forever()
        return await play(request)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(hang))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http, retries=0) as client:
            with pytest.raises(ServerUnreachable, match="was cut"):
                await client.put(path, f"{URL}/files/")


async def test_metadata_is_announced_first(path: Path) -> None:
    announced = told(UploadState.PENDING, upload_id="given")
    play = Play([TAKEN], [as_json(announced), as_json(COMPLETED)])

    result = await put(play, path, metadata={"version": "1"})

    assert result.upload_id == "given"
    assert play.requests[0].method == "POST"
    assert b'"metadata":{"version":"1"}' in play.requests[0].content


@pytest.mark.parametrize(
    "options", [{"chunk_bytes": 0}, {"upload_id": "a/b"}, {"upload_id": "progress"}]
)
async def test_what_makes_no_sense_is_refused(path: Path, options: dict[str, Any]) -> None:
    play = Play([TAKEN])

    with pytest.raises(InvalidValue):
        await put(play, path, **options)

    assert play.requests == []


@pytest.mark.parametrize("acts", [[as_json({"x": 1})], [answer(200, b"<html>")]])
async def test_something_else_that_answers_is_said(acts: Sequence[Act]) -> None:
    async with client_of(Play(asks=acts)) as client:
        with pytest.raises(UnexpectedAnswer, match="no snapshot"):
            await client.get("u")
        with pytest.raises(UnexpectedAnswer, match="no list"):
            await client.list()
