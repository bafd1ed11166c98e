"""Uploading a file over a network that fails, to a simulated server."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import httpx2
import pytest

from tests._support.recording_server import (
    URL,
    RecordingServer,
    Reply,
    client_for,
    json_reply,
    make_snapshot,
    problem_reply,
    status_reply,
)
from upload_progress import UploadProgress, UploadState
from upload_progress._model.models import ErrorCode, UploadError
from upload_progress.client import (
    AsyncProgressClient,
    Resumption,
    Retry,
    UploadResult,
    async_client,
)
from upload_progress.client import upload as upload_module
from upload_progress.exceptions import (
    CertificateInvalid,
    InvalidValue,
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadCancelled,
    UploadRejected,
)

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20
BODY = bytes(range(10))
LOST = httpx2.WriteError("lost")
ACCEPTED = status_reply(201, b"accepted")
PART_CONFIRMED = status_reply(308, range="bytes=0-3")


def failed(code: ErrorCode, attempt: int = 1) -> UploadProgress:
    error = UploadError(code, "It is a virus.", 418)
    return make_snapshot(UploadState.FAILED, error=error, attempt=attempt)


COMPLETED = make_snapshot(UploadState.COMPLETED, sequence=9)
DISCONNECTED = failed(ErrorCode.CLIENT_DISCONNECTED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a b.txt"
    path.write_bytes(BODY)
    return path


async def put(
    server: RecordingServer,
    path: Path,
    *,
    retries: int = 3,
    **options: Any,  # noqa: ANN401  # the options of put()
) -> UploadResult:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with client_for(server, retries=retries) as client:
            with mock.patch.object(async_client, "new_upload_id", return_value="u"):
                return await client.put(path, f"{URL}/files/", **options)


async def test_put_sends_the_file_with_its_headers(path: Path) -> None:
    server = RecordingServer([ACCEPTED], [json_reply(COMPLETED)])
    sent, received = list[int](), list[UploadProgress]()

    result = await put(server, path, group="g", on_sent=sent.append, on_progress=received.append)

    [request] = [each for each in server.requests if each.method == "PUT"]
    assert result == UploadResult("u", 201, b"accepted", COMPLETED)
    assert server.bodies == [BODY]
    assert str(request.url) == f"{URL}/files/a%20b.txt"
    assert request.headers["upload-id"] == "u"
    assert request.headers["upload-group"] == "g"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["content-length"] == "10"
    assert "content-range" not in request.headers
    assert sent == [10]
    assert received[-1] == COMPLETED


async def test_empty_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    server = RecordingServer([ACCEPTED])

    await put(server, tmp_path / "empty")

    assert server.bodies == [b""]


async def test_put_works_without_progress_routes(path: Path) -> None:
    result = await put(RecordingServer([ACCEPTED], [status_reply(404)]), path)

    assert result.progress is None


async def test_server_may_replace_the_upload_id(path: Path) -> None:
    server = RecordingServer([status_reply(200, upload_id="other")], [json_reply(COMPLETED)])

    assert (await put(server, path)).upload_id == "other"


@pytest.mark.parametrize("sequence", [8, 9, 10])
async def test_end_is_reported_once(path: Path, sequence: int) -> None:
    """Both watch loops receive it, and the reported one is part of the result."""
    newer = make_snapshot(UploadState.COMPLETED, sequence=sequence)
    replies = [json_reply(newer), json_reply(newer), json_reply(COMPLETED)]
    server, received = RecordingServer([ACCEPTED], replies), list[UploadProgress]()
    watch_has_begun = anyio.Event()

    async def respond(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await watch_has_begun.wait()
        return await server(request)

    def on_progress(progress: UploadProgress) -> None:
        received.append(progress)
        watch_has_begun.set()

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http) as client:
            sent = await client.put(path, f"{URL}/files/", on_progress=on_progress)

    assert received == [newer]
    assert sent.progress == newer


@pytest.mark.parametrize("busy", [LOST, status_reply(503, retry_after="0"), status_reply(502)])
async def test_failed_request_is_repeated_under_the_same_id(path: Path, busy: Reply) -> None:
    api_replies = [json_reply(DISCONNECTED)] * 9 + [json_reply(COMPLETED)]
    server = RecordingServer([busy, busy, ACCEPTED], api_replies)

    await put(server, path)

    assert server.bodies == [BODY, BODY, BODY]
    assert {r.headers["upload-id"] for r in server.requests if r.method == "PUT"} == {"u"}


async def test_each_retry_and_each_restart_is_reported(path: Path) -> None:
    api_replies = [json_reply(DISCONNECTED)] * 9 + [json_reply(COMPLETED)]
    server = RecordingServer([LOST, status_reply(503, retry_after="0"), ACCEPTED], api_replies)
    retries, resumptions = list[Retry](), list[Resumption]()

    await put(server, path, on_retry=retries.append, on_resume=resumptions.append)

    assert [(type(each.error), each.number, each.retries) for each in retries] == [
        (ServerUnreachable, 1, 3),
        (ServerBusy, 2, 3),
    ]
    assert all(0 < each.delay_seconds < 1 for each in retries)
    assert resumptions == [Resumption(0, 2), Resumption(0, 3)]


async def test_progress_is_reported_after_the_server_has_forgotten_the_upload(path: Path) -> None:
    """A restarted server counts attempts and sequences from one again."""
    before, after = make_snapshot(sequence=7, attempt=3), make_snapshot(sequence=1)
    end = make_snapshot(UploadState.COMPLETED, sequence=2)
    server, received = RecordingServer(api_replies=[json_reply(before)]), list[UploadProgress]()
    old_is_seen, new_is_seen = anyio.Event(), anyio.Event()

    async def respond(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT" and not server.bodies:
            await old_is_seen.wait()
            server.api_replies = [problem_reply(404, "not_found")]
        elif request.method == "PUT":
            server.api_replies = [json_reply(after)]
            await new_is_seen.wait()
            server.api_replies = [json_reply(end)]
        return await server(request)

    def on_progress(progress: UploadProgress) -> None:
        received.append(progress)
        (old_is_seen if progress == before else new_is_seen).set()

    server.put_replies = [LOST, ACCEPTED]
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http, first_delay_seconds=0.001) as client:
            await client.put(path, f"{URL}/files/", on_progress=on_progress)

    assert received == [before, after, end]


async def test_file_is_sent_again_without_progress_routes(path: Path) -> None:
    server = RecordingServer([LOST, ACCEPTED], [status_reply(404)])

    await put(server, path)

    assert server.bodies == [BODY, BODY]


async def test_invalid_certificate_is_not_retried(path: Path) -> None:
    certificate = httpx2.ConnectError("TLS")
    certificate.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    server = RecordingServer([certificate])

    with pytest.raises(CertificateInvalid, match="verify failed"):
        await put(server, path)

    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (failed(ErrorCode.REJECTED), "It is too_large"),
        (make_snapshot(UploadState.CANCELLED), "cancelled by its owner"),
    ],
)
async def test_reason_is_that_of_the_response_unless_the_owner_has_cancelled(
    path: Path, snapshot: UploadProgress, expected: str
) -> None:
    server = RecordingServer([problem_reply(413, "too_large")], [json_reply(snapshot)])

    with pytest.raises((UploadRejected, UploadCancelled), match=expected):
        await put(server, path)


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (LOST, ServerUnreachable),
        (status_reply(503, retry_after="0"), ServerBusy),
        (status_reply(504), ServerUnreachable),
    ],
)
async def test_put_gives_up_after_the_last_retry(
    path: Path, reply: Reply, error_type: type[Exception]
) -> None:
    server = RecordingServer([reply])

    with pytest.raises(error_type):
        await put(server, path, retries=2)

    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (problem_reply(413, "too_large"), UploadRejected),
        (status_reply(500), UploadRejected),
        (problem_reply(401, "unauthenticated"), NotAllowed),
        (status_reply(301, location="/x"), UnexpectedResponse),
        (status_reply(308), UnexpectedResponse),
        (status_reply(400, 20_000 * b"x"), UploadRejected),
        (httpx2.LocalProtocolError("Illegal header value"), InvalidValue),
    ],
)
async def test_rejected_upload_is_not_retried(
    path: Path, reply: Reply, error_type: type[Exception]
) -> None:
    server = RecordingServer([reply])

    with pytest.raises(error_type):
        await put(server, path)

    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("snapshot", "error_type"),
    [
        (make_snapshot(UploadState.CANCELLED), UploadCancelled),
        (failed(ErrorCode.REJECTED), UploadRejected),
        (failed(ErrorCode.APP_ERROR), UploadRejected),
    ],
)
@pytest.mark.parametrize("reply", [LOST, status_reply(409), ACCEPTED])
async def test_error_is_the_one_in_the_snapshot(
    path: Path, reply: Reply, snapshot: UploadProgress, error_type: type[Exception]
) -> None:
    """Whether the response was lost, has no reason, or is successful."""
    with pytest.raises(error_type):
        await put(RecordingServer([reply], [json_reply(snapshot)]), path, retries=0)


@pytest.mark.parametrize("state", [UploadState.PROCESSING, UploadState.COMPLETED])
async def test_received_file_is_not_sent_again_after_a_lost_response(
    path: Path, state: UploadState
) -> None:
    received = json_reply(make_snapshot(state))
    server = RecordingServer([LOST], [received, received, json_reply(COMPLETED)])

    result = await put(server, path)

    assert result.status is None
    assert result.progress is not None
    assert result.progress.state is UploadState.COMPLETED
    assert server.bodies == [BODY]


def paused_server(*first_replies: Reply) -> RecordingServer:
    """Return a server whose upload is paused at 4 bytes until another request is accepted."""
    paused = make_snapshot(UploadState.PAUSED, bytes_transferred=4)
    server = RecordingServer(api_replies=[json_reply(paused)])

    def accept(_request: httpx2.Request) -> httpx2.Response:
        server.api_replies = [json_reply(COMPLETED)]
        return httpx2.Response(201)

    server.put_replies = [*first_replies, accept]
    return server


def ranges_of(server: RecordingServer) -> list[str | None]:
    return [r.headers.get("content-range") for r in server.requests if r.method == "PUT"]


async def test_confirmed_part_is_resumed_with_a_range(path: Path) -> None:
    server = paused_server(PART_CONFIRMED, LOST)

    await put(server, path, chunk_bytes=6)

    assert server.bodies == [BODY[:6], BODY[4:], BODY[4:]]
    assert ranges_of(server) == ["bytes 0-5/10", "bytes 4-9/10", "bytes 4-9/10"]


@pytest.mark.parametrize(("chunk_bytes", "first"), [(None, BODY), (6, BODY[:6])])
async def test_paused_upload_restarts_if_no_part_was_confirmed(
    path: Path, chunk_bytes: int | None, first: bytes
) -> None:
    """A server that does not know ``Content-Range`` would store the rest as the whole file."""
    server = paused_server(LOST)
    server.put_replies = [LOST, PART_CONFIRMED if chunk_bytes else ACCEPTED, ACCEPTED]

    await put(server, path, chunk_bytes=chunk_bytes)

    assert server.bodies[:2] == [first, first]


async def test_put_waits_until_the_server_notices_the_lost_connection(path: Path) -> None:
    receiving = json_reply(make_snapshot(UploadState.RECEIVING, sequence=1))
    disconnected = json_reply(DISCONNECTED)
    api_replies = [*[receiving] * 4, disconnected, disconnected, json_reply(COMPLETED)]
    server = RecordingServer([LOST, ACCEPTED], api_replies)

    await put(server, path)

    assert server.bodies == [BODY, BODY]


async def test_waiting_for_the_server_is_limited(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "DISCONNECT_SECONDS", 0.01)
    monkeypatch.setattr(upload_module, "FINAL_SNAPSHOT_SECONDS", 0.01)
    server = RecordingServer([LOST, ACCEPTED], [json_reply(make_snapshot(UploadState.RECEIVING))])

    result = await put(server, path)

    assert server.bodies == [BODY, BODY]
    assert result.status == 201


async def test_put_retries_while_the_progress_routes_are_unreachable(path: Path) -> None:
    api_replies = [LOST] * 20 + [json_reply(COMPLETED)]
    server = RecordingServer([LOST, ACCEPTED], api_replies)

    await put(server, path, retries=30)

    assert server.bodies == [BODY]


@pytest.mark.parametrize(
    "last", [ACCEPTED, status_reply(200, upload_offset="10"), status_reply(204, upload_offset="x")]
)
async def test_parts_are_sent_with_content_range(path: Path, last: Reply) -> None:
    confirmed = [PART_CONFIRMED, status_reply(204, upload_offset="8")]
    server = RecordingServer([*confirmed, last], [json_reply(COMPLETED)])

    await put(server, path, chunk_bytes=4)

    assert ranges_of(server) == ["bytes 0-3/10", "bytes 4-7/10", "bytes 8-9/10"]
    assert b"".join(server.bodies) == BODY


async def test_parts_continue_from_the_confirmed_offset(path: Path) -> None:
    """The server has taken less than what was sent, also of the last part."""
    took_less = [status_reply(308, range="Bytes 0-2"), status_reply(308, range="0-6")]
    server = RecordingServer([*took_less, ACCEPTED], [json_reply(COMPLETED)])

    await put(server, path, chunk_bytes=8)

    assert ranges_of(server) == ["bytes 0-7/10", "bytes 3-9/10", "bytes 7-9/10"]


async def test_part_of_which_no_byte_is_accepted_is_a_failure(path: Path) -> None:
    server = RecordingServer([status_reply(204, upload_offset="0")])

    with pytest.raises(ServerUnreachable, match="accepted no byte"):
        await put(server, path, chunk_bytes=4, retries=2)

    assert len(server.bodies) == 3


@pytest.mark.parametrize("reply", [ACCEPTED, status_reply(204), status_reply(200, range="0-3")])
async def test_no_further_part_is_sent_to_a_server_that_does_not_confirm(
    path: Path, reply: Reply
) -> None:
    server = RecordingServer([reply], [json_reply(COMPLETED)])

    with pytest.raises(UnexpectedResponse, match="send the file again in one request"):
        await put(server, path, chunk_bytes=4)

    assert server.bodies == [BODY[:4]]


async def test_request_is_aborted_when_a_snapshot_shows_a_rejection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays open without a response."""
    monkeypatch.setattr(upload_module, "RESPONSE_SECONDS", 0.01)
    server = RecordingServer(api_replies=[json_reply(failed(ErrorCode.REJECTED))])

    async def hang(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await anyio.sleep_forever()
        return await server(request)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(hang))
    async with AsyncProgressClient(URL, http=http) as client:
        with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(UploadRejected, match="virus"):
            await client.put(path, f"{URL}/files/")


@pytest.mark.parametrize("end", [make_snapshot(UploadState.CANCELLED), COMPLETED])
async def test_end_of_an_earlier_attempt_is_ignored(path: Path, end: UploadProgress) -> None:
    """It is neither reported nor part of the result."""
    server, received = RecordingServer(api_replies=[json_reply(end)]), list[UploadProgress]()
    own = make_snapshot(UploadState.COMPLETED, attempt=2, sequence=20)
    watch_has_begun = anyio.Event()

    async def respond(request: httpx2.Request) -> httpx2.Response:
        if request.headers.get("accept") == "text/event-stream":
            watch_has_begun.set()
        if request.method == "PUT" and len(server.bodies) == 1:
            await watch_has_begun.wait()
            server.api_replies = [json_reply(own)]
        return await server(request)

    server.put_replies = [LOST, ACCEPTED]
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(respond))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http, first_delay_seconds=0.001) as client:
            sent = await client.put(
                path, f"{URL}/files/", upload_id="u", on_progress=received.append
            )

    assert server.bodies == [BODY, BODY]
    assert sent.progress == own
    assert received == [own]


async def test_announced_upload_is_the_first_attempt(path: Path) -> None:
    pending = make_snapshot(UploadState.PENDING, sequence=1)
    server = RecordingServer([ACCEPTED], [json_reply(pending), json_reply(COMPLETED)])

    assert (await put(server, path, upload_id="u")).progress == COMPLETED


async def test_aborted_request_without_a_reason_is_unreachable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "RESPONSE_SECONDS", 0.01)
    # The watch loop requests a stream, and polls once when it gets none.
    rejected = json_reply(failed(ErrorCode.REJECTED))
    server = RecordingServer(api_replies=[rejected, rejected, problem_reply(404, "not_found")])

    async def hang(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            await anyio.sleep_forever()
        return await server(request)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(hang))
    with anyio.fail_after(DEADLINE_SECONDS):
        async with AsyncProgressClient(URL, http=http, retries=0) as client:
            with pytest.raises(ServerUnreachable, match="was aborted"):
                await client.put(path, f"{URL}/files/")


async def test_metadata_is_announced_before_the_upload(path: Path) -> None:
    announced = make_snapshot(UploadState.PENDING, upload_id="given")
    server = RecordingServer([ACCEPTED], [json_reply(announced), json_reply(COMPLETED)])

    result = await put(server, path, metadata={"version": "1"})

    assert result.upload_id == "given"
    assert server.requests[0].method == "POST"
    assert b'"metadata":{"version":"1"}' in server.requests[0].content


@pytest.mark.parametrize(
    "options", [{"chunk_bytes": 0}, {"upload_id": "a/b"}, {"upload_id": "progress"}]
)
async def test_invalid_argument_is_rejected_before_any_request(
    path: Path, options: dict[str, Any]
) -> None:
    server = RecordingServer([ACCEPTED])

    with pytest.raises(InvalidValue):
        await put(server, path, **options)

    assert server.requests == []


@pytest.mark.parametrize("replies", [[json_reply({"x": 1})], [status_reply(200, b"<html>")]])
async def test_response_of_another_server_is_unexpected(replies: Sequence[Reply]) -> None:
    async with client_for(RecordingServer(api_replies=replies)) as client:
        with pytest.raises(UnexpectedResponse, match="not return a snapshot"):
            await client.get("u")
        with pytest.raises(UnexpectedResponse, match="not return a list"):
            await client.list()
