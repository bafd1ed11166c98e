"""What the response of the application means for an upload in one request."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint

from tests._support.scripted_server import (
    ALICE,
    UPLOAD_ID,
    App,
    FailingStore,
    Receive,
    Scope,
    Send,
    body_messages,
    read_body,
    run_request,
    send_response,
    upload_scope,
    wait_for_end,
    wait_until,
)
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress.asgi import current_upload

pytestmark = pytest.mark.anyio

BODY = b"0123456789"
REPEATED_ELSEWHERE = (301, 307, 308)

# Status, then the state if the application has read the whole body, and if it has read nothing.
OUTCOMES = [
    (200, "completed", "completed"),
    (201, "completed", "completed"),
    (204, "completed", "completed"),
    (299, "completed", "completed"),
    (300, "failed", "failed"),
    (301, "pending", "pending"),
    (302, "completed", "failed"),
    (303, "completed", "failed"),
    (304, "failed", "failed"),
    (305, "failed", "failed"),
    (307, "pending", "pending"),
    (308, "pending", "pending"),
    (400, "failed", "failed"),
    (413, "failed", "failed"),
    (499, "failed", "failed"),
    (500, "failed", "failed"),
    (599, "failed", "failed"),
]


def responds(status: int, *, reads: bool = True, failure: str | None = None) -> App:
    """Return an application that responds with *status*, after the body if *reads*."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            await read_body(receive)
        if failure is not None:
            current_upload(scope).fail(failure)
        await send_response(send, status)

    return app


async def upload(tracker: ProgressTracker, app: App, scope: Scope | None = None) -> None:
    """Send ``BODY`` in two messages."""
    scope = upload_scope(length=len(BODY)) if scope is None else scope
    await run_request(app, tracker, scope=scope, messages=body_messages(BODY[:4], BODY[4:]))


async def shown(tracker: ProgressTracker) -> UploadProgress:
    """Return what a GET shows."""
    return await tracker.get(UPLOAD_ID, owner=ALICE)


async def stored(tracker: ProgressTracker) -> None:
    """Wait until the other workers know the uploads of *tracker*."""
    await wait_until(lambda: tracker.statistics().live_uploads == 0)


@pytest.mark.parametrize("reads", [True, False], ids=["body read", "body not read"])
@pytest.mark.parametrize(
    ("status", "after_body", "without_body"), OUTCOMES, ids=[str(row[0]) for row in OUTCOMES]
)
async def test_status_decides(status: int, after_body: str, without_body: str, reads: bool) -> None:
    tracker = ProgressTracker()

    async with tracker.lifespan():
        await upload(tracker, responds(status, reads=reads))
        progress = await shown(tracker)

    assert progress.state == (after_body if reads else without_body)
    failed = progress.state is UploadState.FAILED
    assert (progress.error is not None) is failed
    if progress.error is not None:
        assert (progress.error.code, progress.error.http_status) == ("rejected", status)
    received = len(BODY) if reads and progress.state is not UploadState.PENDING else 0
    assert (progress.bytes_transferred, progress.total_bytes) == (received, len(BODY))


@pytest.mark.parametrize("status", [200, 303, 308])
async def test_failure_by_the_application_counts_more_than_the_status(status: int) -> None:
    tracker = ProgressTracker()

    async with tracker.lifespan():
        await upload(tracker, responds(status, failure="virus found"))
        progress = await shown(tracker)

    assert progress.state is UploadState.FAILED
    assert progress.error is not None
    assert progress.error.message == "virus found"


LONG = b'{"detail": "' + b"x" * 2000 + b'"}'
REASONS = {
    "problem": (
        b"application/problem+json",
        [b'{"title": "No", "detail": "Too large."}'],
        "Too large.",
    ),
    "in pieces": (
        b"application/problem+json; charset=utf-8",
        [b'{"detail"', b': "Full."}'],
        "Full.",
    ),
    "title": (b"Application/Problem+JSON", [b'{"title": "No"}'], "No"),
    "FastAPI": (b"application/json", [b'{"detail": "Not yours."}'], "Not yours."),
    "long": (b"application/json", [LONG], "x" * 1000),
    "other type": (b"text/plain", [b'{"detail": "Full."}'], None),
    "list": (b"application/json", [b'{"detail": [], "title": " "}'], None),
    "no object": (b"application/json", [b"[]"], None),
    "no JSON": (b"application/json", [b"{"], None),
    "deep": (b"application/json", [b"[" * 5000], None),
}


@pytest.mark.parametrize(("media_type", "pieces", "reason"), REASONS.values(), ids=REASONS)
@pytest.mark.parametrize("reads", [True, False], ids=["body read", "body not read"])
async def test_reason_in_the_response_is_that_of_the_failure(
    media_type: bytes, pieces: list[bytes], reason: str | None, reads: bool
) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            await read_body(receive)
        headers = [(b"content-type", media_type)]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    tracker = ProgressTracker()
    async with tracker.lifespan():
        await upload(tracker, app)
        error = (await shown(tracker)).error

    assert error is not None
    assert error.message == (reason or "The server answered with status 413.")


@pytest.mark.parametrize("status", REPEATED_ELSEWHERE)
async def test_a_watcher_sees_the_repeated_request_to_its_end(status: int) -> None:
    tracker = ProgressTracker()

    async with tracker.lifespan():
        upload_id = (await tracker.announce(owner=ALICE)).upload_id
        async with tracker.watch(upload_id, owner=ALICE) as updates:
            await upload(tracker, responds(status), upload_scope(upload_id, length=len(BODY)))
            await upload(tracker, responds(201), upload_scope(upload_id, length=len(BODY)))
            seen = [progress async for progress in updates]
        assert await tracker.get(upload_id, owner=ALICE) == seen[-1]

    assert (seen[-1].state, seen[-1].attempt) == (UploadState.COMPLETED, 2)
    assert seen[-1].bytes_transferred == len(BODY)
    assert [p.sequence for p in seen] == sorted({p.sequence for p in seen})
    assert not [p for p in seen[:-1] if p.finished_at is not None]


@pytest.mark.parametrize("restarted", [False, True], ids=["same worker", "other worker"])
async def test_the_repeated_request_is_the_next_attempt(restarted: bool) -> None:
    store = MemoryStore()
    first, second = ProgressTracker(store=store), ProgressTracker(store=store)
    async with first.lifespan(), second.lifespan():
        await upload(first, responds(307))
        await stored(first)
        waiting = await shown(second)
        assert (waiting.state, waiting.attempt) == (UploadState.PENDING, 1)

        await upload(second if restarted else first, responds(200))
        await stored(second if restarted else first)
        for tracker in (first, second):
            done = await shown(tracker)
            assert (done.state, done.attempt) == (UploadState.COMPLETED, 2)
            assert (done.bytes_transferred, done.retransmitted_bytes) == (len(BODY), 0)


@pytest.mark.parametrize("status", [307, 500])
@pytest.mark.parametrize("restarted", [False, True], ids=["same worker", "other worker"])
async def test_description_is_kept_for_the_next_attempt(status: int, restarted: bool) -> None:
    described = upload_scope(
        length=len(BODY),
        headers=[
            (b"upload-group", b"release-1"),
            (b"content-type", b"application/zip"),
            (b"content-disposition", b'attachment; filename="a.zip"'),
        ],
    )
    store = MemoryStore()

    async def describe(scope: Scope, receive: Receive, send: Send) -> None:
        current_upload(scope).set(metadata={"release": 1})
        await responds(status)(scope, receive, send)

    first, second = ProgressTracker(store=store), ProgressTracker(store=store)
    async with first.lifespan(), second.lifespan():
        await upload(first, describe, described)
        await stored(first)
        # A chunked body, without a description.
        bare = upload_scope(method="POST")
        await upload(second if restarted else first, responds(200), bare)
        await stored(second if restarted else first)
        done = await shown(first)

    assert (done.attempt, done.state) == (2, UploadState.COMPLETED)
    assert (done.group, done.filename, done.content_type, done.metadata, done.total_bytes) == (
        *("release-1", "a.zip", "application/zip", {"release": 1}),
        len(BODY),
    )


@pytest.mark.parametrize("restarted", [False, True], ids=["same worker", "other worker"])
async def test_path_of_the_next_attempt_does_not_replace_the_announced_name(
    restarted: bool,
) -> None:
    """The last segment of a path is used if nothing announces a file name."""
    store = MemoryStore()
    first, second = ProgressTracker(store=store), ProgressTracker(store=store)
    async with first.lifespan(), second.lifespan():
        upload_id = (await first.announce(owner=ALICE, filename="big.iso")).upload_id
        await upload(first, responds(503), upload_scope(upload_id, length=len(BODY)))
        await stored(first)
        assert (await first.get(upload_id, owner=ALICE)).filename == "big.iso"

        last = second if restarted else first
        await upload(last, responds(503), upload_scope(upload_id, length=len(BODY)))
        await stored(last)
        done = await first.get(upload_id, owner=ALICE)
        assert (done.attempt, done.filename) == (2, "big.iso")

        headers = [(b"content-disposition", b'attachment; filename="other.iso"')]
        named = upload_scope(upload_id, length=len(BODY), headers=headers)
        await upload(last, responds(200), named)
        await stored(last)
        done = await first.get(upload_id, owner=ALICE)
        assert (done.attempt, done.filename) == (3, "other.iso")


async def test_the_next_attempt_announces_another_description() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        headers = [(b"upload-group", b"old"), (b"content-type", b"text/plain")]
        await upload(tracker, responds(500), upload_scope(length=7, headers=headers))
        headers = [(b"upload-group", b"new"), (b"content-type", b"application/zip")]
        await upload(tracker, responds(200), upload_scope(length=len(BODY), headers=headers))
        done = await shown(tracker)

    assert (done.group, done.content_type, done.total_bytes) == (
        "new",
        "application/zip",
        len(BODY),
    )


async def test_redirected_upload_occupies_no_memory_of_the_tracker() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        for _ in range(5):
            await upload(tracker, responds(308))
        await stored(tracker)
        assert (await shown(tracker)).state is UploadState.PENDING


async def test_redirect_while_the_store_is_away() -> None:
    """The repeated request replaces an upload whose record is not stored yet."""
    store = FailingStore(checkpoint)
    tracker = ProgressTracker(store=store)

    async with tracker.lifespan():
        await upload(tracker, responds(308))
        assert tracker.statistics().live_uploads == 1
        await upload(tracker, responds(200))
        progress = await wait_for_end(tracker)
        assert tracker.statistics().live_uploads == 1

    assert (progress.state, progress.attempt) == (UploadState.COMPLETED, 2)


async def test_redirected_upload_is_cancelled_by_its_owner() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        await upload(tracker, responds(308))
        await tracker.cancel(UPLOAD_ID, owner=ALICE)
        progress = await wait_for_end(tracker)

    assert progress.state is UploadState.CANCELLED
