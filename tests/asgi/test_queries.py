"""Requests that ask how many bytes the server has: they carry none, and their answer is used."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests._support.protocol_apps import ResponseHead
from tests._support.scripted_server import (
    Receive,
    Scope,
    ScriptedServer,
    Send,
    authenticate_alice,
    upload_scope,
)
from tests._support.workers import Workers, facts_of
from upload_progress import ProgressTracker, UploadState
from upload_progress.asgi import UploadProgressMiddleware

pytestmark = pytest.mark.anyio

TUS = (b"tus-resumable", b"1.0.0")
INTEROP = (b"upload-draft-interop-version", b"8")
S = UploadState
PATH = "/files/a.bin"
OCTETS = {"content-type": "application/offset+octet-stream"}
METADATA = "filename d29ybGQudHh0,filetype dGV4dC9wbGFpbg=="


@pytest.fixture
def workers() -> Workers:
    """Return two workers."""
    return Workers()


async def head(scope: Scope, tracker: ProgressTracker) -> tuple[Scope, ScriptedServer]:
    """Send a ``HEAD`` request; return the scope that the application sees, and the server."""
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    server = ScriptedServer([{"type": "http.request", "body": b"", "more_body": False}])
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
    await middleware(scope, server.receive, server.send)
    return seen[0], server


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"example.org"), (b"upload-offset", b"3")],
        iter([TUS]),
        [("tus-resumable", "1.0.0")],
        [(b"tus-resumable",)],
        [([], b"")],
        None,
    ],
)
async def test_other_head_request_is_untouched(headers: Iterable[object] | None) -> None:
    scope = upload_scope(None, method="HEAD", path="/files/1", length=None)
    scope["headers"] = headers
    if headers is None:
        del scope["headers"]
    before = dict(scope)
    seen, server = await head(scope, ProgressTracker())

    assert seen is scope
    assert scope == before
    assert not isinstance(headers, list) or scope["headers"] is headers
    assert [message.get("headers") for message in server.sent] == [[], None]


@pytest.mark.parametrize("header", [TUS, INTEROP])
async def test_query_of_a_protocol_is_passed_on(header: tuple[bytes, bytes]) -> None:
    scope = upload_scope(None, method="HEAD", path="/files/1", length=None, headers=[header])
    before = dict(scope)
    seen, server = await head(scope, ProgressTracker())

    assert scope == before
    assert {key: seen[key] for key in before} == before
    assert server.status == 204


async def test_query_below_the_mount_point_is_untouched() -> None:
    scope = upload_scope(None, method="HEAD", path="/uploads/a", length=None, headers=[TUS])
    seen, _server = await head(scope, ProgressTracker())

    assert seen is scope


async def tus(
    workers: Workers,
    response: ResponseHead,
    method: str = "HEAD",
    offset: int = 0,
    size: int = 0,
) -> None:
    """Send a request of tus to ``/files/1``."""
    headers = {"tus-resumable": "1.0.0", "upload-offset": str(offset), **OCTETS}
    await workers.send(method, "/files/1", headers, size, response)


def tus_answer(offset: int, length: int | None = 30) -> ResponseHead:
    """Return the answer to a ``HEAD`` request of tus."""
    known = {} if length is None else {"upload-length": str(length)}
    return 204, {"upload-offset": str(offset), "upload-metadata": METADATA, **known}


@pytest.mark.parametrize(
    "answer",
    [
        (404, {}),
        (410, {}),
        (403, {}),
        (500, {}),
        (200, {}),
        tus_answer(30),
    ],
)
async def test_other_answer_for_an_unknown_upload_shows_nothing(
    workers: Workers, answer: ResponseHead
) -> None:
    await tus(workers, answer)

    assert await workers.shown() == []


async def start_tus(workers: Workers) -> None:
    """Create an upload of 30 bytes, and send the first 10."""
    headers = {"tus-resumable": "1.0.0", "upload-length": "30"}
    await workers.send("POST", "/files", headers, 0, (201, {"location": "/files/1"}))
    await tus(workers, (204, {"upload-offset": "10"}), "PATCH", 0, 10)


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        ((404, {}), 10),
        ((410, {}), 10),
        ((500, {}), 10),
        (tus_answer(10), 10),
        (tus_answer(20), 20),
    ],
)
async def test_answer_for_a_known_upload(
    workers: Workers, answer: ResponseHead, received: int
) -> None:
    await start_tus(workers)
    await tus(workers, answer)
    asked = await workers.only()

    assert asked.state in {S.RECEIVING, S.PAUSED}
    assert facts_of(asked)[1:] == (received, 30, 1)


async def test_query_at_a_worker_that_has_no_bytes(workers: Workers) -> None:
    await start_tus(workers)
    for _ in range(2):
        await tus(workers, tus_answer(10))
    await tus(workers, (204, {"upload-offset": "30"}), "PATCH", 10, 20)

    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)


async def test_range_query_confirms_the_offset(workers: Workers) -> None:
    await workers.put(PATH, "bytes 0-9/30", 10, (308, {"range": "bytes=0-9"}))
    for _ in range(2):
        await workers.put(PATH, "bytes */30", 0, (308, {"range": "bytes=0-9"}))
    asked = await workers.only()
    await workers.put(PATH, "bytes 10-29/30", 20, (201, {}))

    assert asked.state in {S.RECEIVING, S.PAUSED}
    assert facts_of(asked)[1:] == (10, 30, 1)
    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)


async def test_final_range_query_ends_an_upload_of_unknown_size(workers: Workers) -> None:
    for first in (0, 10, 20):
        await workers.put(
            PATH, f"bytes {first}-{first + 9}/*", 10, (308, {"range": f"bytes=0-{first + 9}"})
        )
    sent = await workers.only()
    await workers.put(PATH, "bytes */30", 0, (201, {}))

    assert facts_of(sent)[1:] == (30, None, 1)
    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)


async def test_range_query_before_the_first_byte(workers: Workers) -> None:
    await workers.put(PATH, "bytes */30", 0, (404, {}))
    await workers.put(PATH, "bytes */*", 0, (500, {}))
    assert await workers.shown() == []

    await workers.put(PATH, "bytes */30", 0, (308, {}))
    await workers.put(PATH, "bytes 0-9/30", 10, (308, {"range": "bytes=0-9"}))
    await workers.put(PATH, "bytes 10-29/30", 20, (201, {}))

    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)
    assert (await workers.only()).filename == "a.bin"


async def test_upload_whose_creation_was_not_seen_is_known_from_the_answer(
    workers: Workers,
) -> None:
    await tus(workers, tus_answer(10))
    resumed = await workers.only()
    await tus(workers, (204, {"upload-offset": "30"}), "PATCH", 10, 20)
    whole = await workers.only()

    assert facts_of(resumed) == (S.PAUSED, 10, 30, 1)
    assert (resumed.filename, resumed.content_type) == ("world.txt", "text/plain")
    assert facts_of(whole) == (S.COMPLETED, 30, 30, 1)
    assert whole.filename == "world.txt"
    assert whole.retransmitted_bytes == 0


async def test_query_after_the_end_starts_no_attempt(workers: Workers) -> None:
    await start_tus(workers)
    await tus(workers, (204, {"upload-offset": "30"}), "PATCH", 10, 20)
    ended = await workers.only()
    for _ in range(2):
        await tus(workers, tus_answer(30))
        await tus(workers, (404, {}))

    shown = await workers.only()
    assert facts_of(shown) == facts_of(ended) == (S.COMPLETED, 30, 30, 1)
    assert shown.finished_at == ended.finished_at


async def test_refused_range_query_changes_nothing(workers: Workers) -> None:
    await workers.put(PATH, "bytes 0-9/30", 10, (308, {"range": "bytes=0-9"}))
    for status in (400, 404, 410, 499, 500):
        await workers.put(PATH, "bytes */30", 0, (status, {}))

    asked = await workers.only()
    assert asked.state in {S.RECEIVING, S.PAUSED}
    assert facts_of(asked)[1:] == (10, 30, 1)


async def test_incomplete_without_a_range_says_that_nothing_is_there() -> None:
    workers = Workers(1)
    await workers.put(PATH, "bytes 0-9/30", 10, (308, {"range": "bytes=0-9"}))
    await workers.put(PATH, "bytes */30", 0, (308, {}))

    assert facts_of(await workers.only())[1:] == (0, 30, 1)


async def test_ietf_query(workers: Workers) -> None:
    interop = {"upload-draft-interop-version": "8"}
    answer = {"upload-offset": "10", "upload-length": "30", "upload-complete": "?0"}
    await workers.send("HEAD", "/files/1", interop, 0, (204, answer))
    asked = await workers.only()
    last = {**interop, "upload-complete": "?1", "upload-offset": "10"}
    await workers.send("PATCH", "/files/1", last, 20, (200, {"upload-complete": "?1"}))

    assert facts_of(asked) == (S.PAUSED, 10, 30, 1)
    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)
