"""The outcome of an upload, depending on the client, the application and the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from tests._support.scripted_server import (
    ALICE,
    LARGE_BYTES,
    UPLOAD_ID,
    FailingStore,
    Message,
    Receive,
    Scope,
    ScriptedServer,
    Send,
    authenticate_alice,
    body_messages,
    read_body,
    run_request,
    send_response,
    tracker_lifespan,
    upload_scope,
    wait_for_end,
    wait_until,
)
from upload_progress import ErrorCode, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.state import FINAL_STATES
from upload_progress.asgi import UploadProgressMiddleware

pytestmark = pytest.mark.anyio

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)


async def read_and_respond(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and respond."""
    await read_body(receive)
    await send_response(send)


@with_and_without_lifespan
@given(chunks=st.lists(st.integers(0, 100_000), max_size=20), announced=st.booleans())
async def test_every_byte_is_counted_once(
    lifespan: bool, chunks: list[int], announced: bool
) -> None:
    """H01, I8: for any chunks, the final count is the size of the body."""
    tracker, size = ProgressTracker(), sum(chunks)
    messages = body_messages(*[bytes(chunk) for chunk in chunks])

    async with tracker_lifespan(tracker, lifespan):
        scope = upload_scope(length=size if announced else None)
        server = await run_request(read_and_respond, tracker, scope=scope, messages=messages)
        progress = await wait_for_end(tracker)

    assert (server.status, server.content) == (200, b"done")
    assert progress.state is UploadState.COMPLETED
    assert progress.bytes_transferred == size
    assert progress.total_bytes == (size if announced else None)
    assert progress.percent == (100.0 if announced else None)


@with_and_without_lifespan
@pytest.mark.parametrize(
    ("size", "tracked"), [(LARGE_BYTES - 1, False), (LARGE_BYTES, True), (3 * LARGE_BYTES, True)]
)
@pytest.mark.parametrize("chunks", [1, 2, 7])
@pytest.mark.parametrize("last_is_empty", [True, False])
async def test_body_of_unknown_size_is_tracked_once_large(
    lifespan: bool, size: int, tracked: bool, chunks: int, last_is_empty: bool
) -> None:
    """H17: chunked, HTTP/1.0 or HTTP/2 without a length; total and percent are null."""
    tracker = ProgressTracker()
    content = bytes(size)
    step = -(-size // chunks)
    messages = body_messages(*[content[start : start + step] for start in range(0, size, step)])
    if not last_is_empty:
        messages = [*messages[:-2], {**messages[-2], "more_body": False}]

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            read_and_respond, tracker, scope=upload_scope(None), messages=messages
        )
        assert ("upload-id" in server.headers) is tracked
        for upload_id in [server.headers["upload-id"]] if tracked else []:
            progress = await wait_for_end(tracker, upload_id)
            assert progress.bytes_transferred == size
            assert (progress.total_bytes, progress.percent) == (None, None)
        page = await tracker.list(owner=ALICE)

    assert len(page.uploads) == int(tracked)


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
async def test_empty_upload_completes(version: str) -> None:
    """H17: length 0, in every version of HTTP; no division by zero."""
    tracker = ProgressTracker()

    await run_request(
        read_and_respond,
        tracker,
        scope=upload_scope(length=0, http_version=version),
        messages=body_messages(),
    )

    progress = await wait_for_end(tracker)
    assert (progress.state, progress.percent) == (UploadState.COMPLETED, 100.0)
    assert progress.total_bytes == 0


@with_and_without_lifespan
@pytest.mark.parametrize(("status", "state"), [(200, "completed"), (303, "failed")])
async def test_response_without_reading_ends_the_upload(
    lifespan: bool, status: int, state: str
) -> None:
    """H05: the application responds without reading; the end does not wait for a timeout."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_response(send, status)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app,
            tracker,
            scope=upload_scope(length=LARGE_BYTES),
            messages=body_messages(bytes(LARGE_BYTES)),
        )
        progress = await wait_for_end(tracker)

    assert (server.status, server.receive_calls) == (status, 0)
    assert (progress.state, progress.bytes_transferred, progress.percent) == (state, 0, 0.0)


@with_and_without_lifespan
@pytest.mark.parametrize("status", [400, 413, 500])
async def test_error_status_rejects_the_upload(lifespan: bool, status: int) -> None:
    """H05: refused before reading, like a size limit of the application."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_response(send, status)

    async with tracker_lifespan(tracker, lifespan):
        await run_request(
            app,
            tracker,
            scope=upload_scope(length=LARGE_BYTES),
            messages=body_messages(bytes(LARGE_BYTES)),
        )
        progress = await wait_for_end(tracker)

    assert progress.state is UploadState.FAILED
    assert progress.error is not None
    assert (progress.error.code, progress.error.http_status) == (ErrorCode.REJECTED, status)


async def test_bytes_after_the_end_are_not_reported() -> None:
    """H05, I7: reading after the response changes no numbers and publishes no event."""
    tracker = ProgressTracker()
    watcher = internals_of(tracker).subscribe()
    watcher.add_owner(ALICE.id)

    async def published_states(upload_id: str) -> list[UploadState]:
        """Return the published states up to the end of *upload_id*."""
        snapshots: list[UploadProgress] = []
        with anyio.fail_after(20):
            while upload_id not in {
                each.upload_id for each in snapshots if each.state in FINAL_STATES
            }:
                snapshots += [
                    update.progress for update in await internals_of(tracker).wait(watcher)
                ]
        return [each.state for each in snapshots]

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send_response(send)
        assert await published_states(UPLOAD_ID) == [UploadState.COMPLETED]
        await read_body(receive)

    async with tracker_lifespan(tracker, lifespan=True):
        await run_request(app, tracker, messages=body_messages(b"a", b"b", b"c"))
        await run_request(
            read_and_respond, tracker, scope=upload_scope("the-next"), messages=body_messages()
        )
        assert await published_states("the-next") == [UploadState.COMPLETED]
        assert (await tracker.get(UPLOAD_ID, owner=ALICE)).bytes_transferred == 0


@with_and_without_lifespan
async def test_receive_after_the_end_returns_disconnects(lifespan: bool) -> None:
    """H06: reading after the last byte and after a disconnect changes nothing."""
    tracker = ProgressTracker()
    seen = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"] for _ in range(4)])
        await send_response(send)

    script = [*body_messages(b"abc"), {"type": "http.disconnect"}, {"type": "http.disconnect"}]
    async with tracker_lifespan(tracker, lifespan):
        await run_request(app, tracker, messages=script)
        progress = await wait_for_end(tracker)

    assert seen == ["http.request", "http.request", "http.disconnect", "http.disconnect"]
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


@with_and_without_lifespan
async def test_disconnect_fails_the_upload(lifespan: bool) -> None:
    """H07, I8: bytes received before it count."""
    tracker = ProgressTracker()
    script = [*body_messages(b"half")[:1], {"type": "http.disconnect"}]

    async with tracker_lifespan(tracker, lifespan):
        with pytest.raises(ConnectionError):
            await run_request(
                read_and_respond, tracker, scope=upload_scope(length=8), messages=script
            )
        progress = await wait_for_end(tracker)

    assert progress.error is not None
    assert progress.error.code is ErrorCode.CLIENT_DISCONNECTED
    assert (progress.state, progress.bytes_transferred, progress.percent) == ("failed", 4, 50.0)


@with_and_without_lifespan
async def test_disconnect_after_the_body_leaves_the_outcome_to_the_application(
    lifespan: bool,
) -> None:
    """H08: all bytes have arrived; the application determines the outcome."""
    tracker = ProgressTracker()
    states = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        states.append((await tracker.get(UPLOAD_ID, owner=ALICE)).state)
        await send_response(send)

    server = ScriptedServer([*body_messages(b"abc"), {"type": "http.disconnect"}], send_fails_at=0)
    async with tracker_lifespan(tracker, lifespan):
        with pytest.raises(OSError, match="gone"):
            await run_request(app, tracker, server=server)
        progress = await wait_for_end(tracker)

    assert states == [UploadState.PROCESSING]
    assert progress.state is UploadState.FAILED
    assert progress.attempt == 1


async def raises_before(_receive: Receive, _send: Send) -> None:
    """Do nothing before the exception."""


async def raises_in_body(receive: Receive, _send: Send) -> None:
    await receive()


async def raises_after(receive: Receive, _send: Send) -> None:
    await read_body(receive)


async def raises_in_response(receive: Receive, send: Send) -> None:
    await read_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})


class Stop(BaseException):
    """Something that no ``except Exception`` catches."""


@with_and_without_lifespan
@pytest.mark.parametrize(
    "step",
    [raises_before, raises_in_body, raises_after, raises_in_response],
    ids=lambda it: it.__name__,
)
@pytest.mark.parametrize(
    "error", [ValueError("secret"), Stop(), ExceptionGroup("both", [OSError()])], ids=repr
)
async def test_exception_fails_the_upload_and_is_raised_unchanged(
    lifespan: bool, step: Callable[[Receive, Send], object], error: BaseException
) -> None:
    """H09: before, within and after the body, after the start of the response."""
    tracker = ProgressTracker()
    raised: list[BaseException] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await step(receive, send)  # type: ignore[misc]  # every step is a coroutine function
        raise error

    async with tracker_lifespan(tracker, lifespan):
        try:
            await run_request(app, tracker, messages=body_messages(b"abc"))
        except BaseException as caught:  # noqa: BLE001  # the exception is checked below
            raised.append(caught)
        progress = await wait_for_end(tracker)

    assert raised == [error]
    assert error.__context__ is None
    assert progress.error is not None
    assert (progress.state, progress.error.code) == (UploadState.FAILED, ErrorCode.APP_ERROR)
    assert "secret" not in progress.error.message


async def test_missing_response_is_an_application_error() -> None:
    """H09: the server responds with 500."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await read_body(receive)

    await run_request(app, tracker, messages=body_messages(b"abc"))

    progress = await wait_for_end(tracker)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.APP_ERROR


@with_and_without_lifespan
async def test_cancelled_scope_cancels_the_upload(lifespan: bool) -> None:
    """H10: the cancellation is not swallowed, and the end is stored."""
    tracker, server = ProgressTracker(), ScriptedServer(body_messages(b"abc")[:1])
    scope = anyio.CancelScope()

    async def serve() -> None:
        with scope:
            await run_request(read_and_respond, tracker, server=server)

    async with tracker_lifespan(tracker, lifespan):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await server.script_ended.wait()
            scope.cancel()
        progress = await wait_for_end(tracker)

    assert scope.cancelled_caught
    assert (progress.state, progress.bytes_transferred) == (UploadState.CANCELLED, 3)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.APP_ERROR


@with_and_without_lifespan
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_task_cancels_the_upload(lifespan: bool) -> None:
    """H10: ``Task.cancel()``, as servers do at shutdown, without a cancel scope."""
    tracker, server = ProgressTracker(), ScriptedServer(body_messages(b"abc")[:1])

    async with tracker_lifespan(tracker, lifespan):
        task = asyncio.create_task(run_request(read_and_respond, tracker, server=server))
        await server.script_ended.wait()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        progress = await wait_for_end(tracker)

    assert task.cancelled()
    assert progress.state is UploadState.CANCELLED


@with_and_without_lifespan
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_task_is_not_cancelled_after_an_upload(lifespan: bool) -> None:
    """H10, I1: ``Task.cancelling()`` is 0 afterwards."""
    tracker, server = ProgressTracker(), ScriptedServer(body_messages(b"abc"))

    async with tracker_lifespan(tracker, lifespan):
        task = asyncio.create_task(run_request(read_and_respond, tracker, server=server))
        await task

    assert task.cancelling() == 0


@with_and_without_lifespan
async def test_hanging_store_does_not_delay_cancellation(lifespan: bool) -> None:
    """H10: the final write is shielded, for at most a second."""
    tracker = ProgressTracker(store=FailingStore(anyio.sleep_forever))
    server = ScriptedServer(body_messages(b"abc")[:1])

    with anyio.fail_after(20):
        async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_request(read_and_respond, tracker, server=server))
            await server.script_ended.wait()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("size", "percent"), [(5, 50.0), (20, None)])
async def test_wrong_length_never_exceeds_100_percent(size: int, percent: float | None) -> None:
    """H19: the announced length is 10; the bytes are exact, and an exceeded total is dropped."""
    tracker = ProgressTracker()

    await run_request(
        read_and_respond,
        tracker,
        scope=upload_scope(length=10),
        messages=body_messages(bytes(size)),
    )

    progress = await wait_for_end(tracker)
    assert (progress.bytes_transferred, progress.percent) == (size, percent)
    assert progress.total_bytes == (10 if size < 10 else None)


@pytest.mark.parametrize(
    "value",
    [
        b"-1",
        b"+5",
        b"0x10",
        b"1e3",
        b"9223372036854775808",
        b"1" * 400,
        b"",
        b"5, 6",
        b"\xb2",
    ],
)
async def test_invalid_length_is_ignored(value: bytes) -> None:
    """H20: a length that is not a plain number is ignored, and the upload is received."""
    tracker = ProgressTracker()

    scope = upload_scope(headers=[(b"content-length", value)])
    server = await run_request(
        read_and_respond, tracker, scope=scope, messages=body_messages(b"abc")
    )

    progress = await wait_for_end(tracker)
    assert server.status == 200
    assert progress.bytes_transferred == 3
    assert progress.total_bytes is None


@pytest.mark.parametrize(
    "header",
    [
        (b"range", b"bytes=0-0"),
        (b"upload-offset", b"-7"),
        (b"upload-offset", b"99999999999999999999"),
    ],
)
async def test_headers_of_resumable_uploads_do_not_change_a_plain_upload(
    header: tuple[bytes, bytes],
) -> None:
    """H20, H24: only the body counts."""
    tracker = ProgressTracker()

    await run_request(
        read_and_respond,
        tracker,
        scope=upload_scope(length=3, headers=[header]),
        messages=body_messages(b"abc"),
    )

    progress = await wait_for_end(tracker)
    assert (progress.bytes_transferred, progress.percent) == (3, 100.0)


@with_and_without_lifespan
async def test_newer_upload_with_the_same_id_is_the_next_attempt(lifespan: bool) -> None:
    """The older request goes on untouched, and its end changes nothing."""
    tracker = ProgressTracker()
    servers = [ScriptedServer(body_messages(b"abc")[:1]), ScriptedServer(body_messages(b"defgh"))]

    async with tracker_lifespan(tracker, lifespan):
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                with pytest.raises(ConnectionError):
                    await run_request(read_and_respond, tracker, server=servers[0])

            tasks.start_soon(first)
            await servers[0].script_ended.wait()
            await run_request(read_and_respond, tracker, server=servers[1])
            assert servers[1].headers["upload-id"] == UPLOAD_ID
            newer = await wait_for_end(tracker)
            servers[0].client_leaves.set()
        shown = await tracker.get(UPLOAD_ID, owner=ALICE)

    assert (newer.attempt, newer.state, newer.bytes_transferred) == (2, UploadState.COMPLETED, 5)
    assert (shown.attempt, shown.state, shown.sequence) == (2, newer.state, newer.sequence)


@with_and_without_lifespan
async def test_reused_id_starts_the_next_attempt(lifespan: bool) -> None:
    """H21, I6: each attempt has one end, and counts from zero."""
    tracker = ProgressTracker()

    async with tracker_lifespan(tracker, lifespan):
        with pytest.raises(ConnectionError):
            await run_request(read_and_respond, tracker, messages=[{"type": "http.disconnect"}])
        await wait_for_end(tracker)
        await run_request(read_and_respond, tracker, messages=body_messages(b"abc"))
        await wait_until(lambda: tracker.statistics().live_uploads == 0)
        progress = await tracker.get(UPLOAD_ID, owner=ALICE)

    assert (progress.attempt, progress.state) == (2, UploadState.COMPLETED)
    assert progress.bytes_transferred == 3


async def test_encoded_body_is_counted_undecoded() -> None:
    """H24: bytes on the wire; nothing is decoded."""
    tracker = ProgressTracker()
    packed = b"\x1f\x8b\x08 this is not even valid gzip"
    seen: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await send_response(send)

    encoding = (b"content-encoding", b"gzip")
    scope = upload_scope(length=len(packed), headers=[encoding])
    await run_request(
        app, tracker, scope=scope, messages=[{"type": "http.request", "body": packed}]
    )

    assert seen[0]["body"] is packed
    assert (await wait_for_end(tracker)).bytes_transferred == len(packed)


async def test_receive_does_not_wait_for_the_store() -> None:
    """H26: a disconnect is passed on immediately while a store call hangs."""
    store = FailingStore(anyio.sleep_forever)
    tracker = ProgressTracker(store=store)
    failures_meanwhile = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await wait_until(lambda: store.calls)
        begun = tracker.statistics().store_failures
        with pytest.raises(ConnectionError):
            await read_body(receive)
        failures_meanwhile.append(tracker.statistics().store_failures - begun)

    script = [*body_messages(b"a", b"b")[:2], {"type": "http.disconnect"}]
    async with tracker_lifespan(tracker, lifespan=True):
        await run_request(app, tracker, messages=script)

    assert failures_meanwhile == [0]


@pytest.mark.parametrize(
    "body_message",
    [
        {"type": "http.response.body"},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.zerocopysend", "file": 3},
    ],
    ids=lambda message: message["type"],
)
async def test_response_sent_by_the_server_ends_the_upload(body_message: Message) -> None:
    """H27: sent from a file, between early hints and trailers."""
    tracker = ProgressTracker()
    states = []
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(hint)
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send(body_message)
        states.append((await tracker.get(UPLOAD_ID, owner=ALICE)).state)
        await send(trailers)

    server = await run_request(app, tracker, messages=body_messages(b"abc"))

    assert states == [UploadState.COMPLETED]
    assert (server.sent[0], server.sent[2], server.sent[3]) == (hint, body_message, trailers)


@with_and_without_lifespan
async def test_chunks_are_not_retained(lifespan: bool) -> None:
    """R09: the middleware holds no reference to a chunk."""
    tracker = ProgressTracker()
    referrers_of_chunks: list[list[str]] = []

    async def receive() -> Message:
        await checkpoint()
        # Created here, so that no script refers to it.
        return {
            "type": "http.request",
            "body": Chunk(LARGE_BYTES),
            "more_body": len(referrers_of_chunks) < 5,
        }

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            chunk, more = message["body"], message["more_body"]
            referrers = [obj for obj in gc.get_referrers(chunk) if obj is not message]
            referrers_of_chunks.append([type(obj).__name__ for obj in referrers])
            del message, chunk, referrers
        await send_response(send)

    form = (b"content-type", b"multipart/form-data; boundary=x")
    async with tracker_lifespan(tracker, lifespan):
        server = ScriptedServer()
        middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
        await middleware(upload_scope(None, headers=[form]), receive, server.send)
        gc.collect()

    assert referrers_of_chunks == [[]] * 6
    assert [obj for obj in gc.get_objects() if type(obj) is Chunk] == []


class Chunk(bytearray):
    """Bytes that the garbage collector tracks."""


async def test_form_is_counted_whole_and_named_after_its_file() -> None:
    """Only the header of the first part is searched."""
    tracker = ProgressTracker()
    form = (
        b"--x\r\nContent-Disposition: form-data; name=f; filename=cat.png\r\n\r\n"
        + bytes(LARGE_BYTES)
        + b"\r\n--x--\r\n"
    )
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    scope = upload_scope(length=len(form), headers=[kind], method="POST")

    await run_request(read_and_respond, tracker, scope=scope, messages=body_messages(form))

    progress = await wait_for_end(tracker)
    assert (progress.filename, progress.content_type) == ("cat.png", "multipart/form-data")
    assert progress.bytes_transferred == progress.total_bytes == len(form)
