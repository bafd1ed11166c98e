"""What becomes of an upload, for whatever the client, the application and the server do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from tests.asgi.probes import (
    ALICE,
    BIG,
    ID,
    FaultyStore,
    Message,
    Receive,
    Scope,
    Send,
    Server,
    alice,
    body,
    drink,
    ended,
    head,
    respond,
    run_through,
    running,
    until,
)
from upload_progress import ErrorCode, ProgressTracker, UploadProgress, UploadState
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.lifecycle import FINAL_STATES

pytestmark = pytest.mark.anyio

lifespans = pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])


async def sink(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, and say so."""
    await drink(receive)
    await respond(send)


@lifespans
@given(chunks=st.lists(st.integers(0, 100_000), max_size=20), announced=st.booleans())
async def test_every_byte_is_counted_once(
    lifespan: bool, chunks: list[int], announced: bool
) -> None:
    """H01, I8: whatever the chunks, the final figure is the body's size."""
    tracker, size = ProgressTracker(), sum(chunks)
    messages = body(*[bytes(chunk) for chunk in chunks])

    async with running(tracker, lifespan):
        scope = head(length=size if announced else None)
        server = await run_through(sink, tracker, scope=scope, messages=messages)
        progress = await ended(tracker)

    assert (server.status, server.content) == (200, b"done")
    assert progress.state is UploadState.COMPLETED
    assert progress.bytes_transferred == size
    assert progress.total_bytes == (size if announced else None)
    assert progress.percent == (100.0 if announced else None)


@lifespans
@pytest.mark.parametrize(("size", "followed"), [(BIG - 1, False), (BIG, True), (3 * BIG, True)])
@pytest.mark.parametrize("chunks", [1, 2, 7])
@pytest.mark.parametrize("last_is_empty", [True, False])
async def test_a_body_of_unknown_size_is_followed_once_it_is_large(
    lifespan: bool, size: int, followed: bool, chunks: int, last_is_empty: bool
) -> None:
    """H17: chunked, HTTP/1.0 or h2 without a length; the total is null, and so is the percent."""
    tracker = ProgressTracker()
    content = bytes(size)
    step = -(-size // chunks)
    messages = body(*[content[start : start + step] for start in range(0, size, step)])
    if not last_is_empty:
        messages = [*messages[:-2], {**messages[-2], "more_body": False}]

    async with running(tracker, lifespan):
        server = await run_through(sink, tracker, scope=head(None), messages=messages)
        assert ("upload-id" in server.headers) is followed
        for upload_id in [server.headers["upload-id"]] if followed else []:
            progress = await ended(tracker, upload_id)
            assert progress.bytes_transferred == size
            assert (progress.total_bytes, progress.percent) == (None, None)
        page = await tracker.list(owner=ALICE)

    assert len(page.uploads) == int(followed)


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
async def test_an_empty_upload_completes(version: str) -> None:
    """H17: length 0, in every version of HTTP, divides nothing by zero."""
    tracker = ProgressTracker()

    await run_through(sink, tracker, scope=head(length=0, http_version=version), messages=body())

    progress = await ended(tracker)
    assert (progress.state, progress.percent) == (UploadState.COMPLETED, 100.0)
    assert progress.total_bytes == 0


@lifespans
@pytest.mark.parametrize(("status", "state"), [(200, "completed"), (303, "completed")])
async def test_an_early_answer_ends_the_upload_at_once(
    lifespan: bool, status: int, state: str
) -> None:
    """H05: the application answers without reading; the end does not wait for a timeout."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, status)

    async with running(tracker, lifespan):
        server = await run_through(app, tracker, scope=head(length=BIG), messages=body(bytes(BIG)))
        progress = await ended(tracker)

    assert (server.status, server.pulled) == (status, 0)
    assert (progress.state, progress.bytes_transferred, progress.percent) == (state, 0, 0.0)


@lifespans
@pytest.mark.parametrize("status", [400, 413, 500])
async def test_an_answer_of_400_or_more_rejects(lifespan: bool, status: int) -> None:
    """H05: refused without a byte read, as a limit in the application does."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, status)

    async with running(tracker, lifespan):
        await run_through(app, tracker, scope=head(length=BIG), messages=body(bytes(BIG)))
        progress = await ended(tracker)

    assert progress.state is UploadState.FAILED
    assert progress.error is not None
    assert (progress.error.code, progress.error.http_status) == (ErrorCode.REJECTED, status)


async def test_nothing_follows_the_end_though_bytes_still_come() -> None:
    """H05, I7: who answers early and goes on reading changes no figure and sends no event."""
    tracker = ProgressTracker()
    watcher = tracker.watcher()
    watcher.follow_all(ALICE.id)

    async def told(upload_id: str) -> list[UploadState]:
        """Return what is told until the end of *upload_id* is."""
        told: list[UploadProgress] = []
        with anyio.fail_after(5):
            while upload_id not in {each.upload_id for each in told if each.state in FINAL_STATES}:
                told += [update.progress for update in await tracker.wait(watcher)]
        return [each.state for each in told]

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        assert await told(ID) == [UploadState.COMPLETED]
        await drink(receive)

    async with running(tracker, lifespan=True):
        await run_through(app, tracker, messages=body(b"a", b"b", b"c"))
        await run_through(sink, tracker, scope=head("the-next"), messages=body())
        assert await told("the-next") == [UploadState.COMPLETED]
        assert (await tracker.get(ID, owner=ALICE)).bytes_transferred == 0


@lifespans
async def test_reading_on_after_the_end_says_disconnect(lifespan: bool) -> None:
    """H06: reading after the last byte and after the disconnect counts and ends nothing twice."""
    tracker = ProgressTracker()
    seen = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"] for _ in range(4)])
        await respond(send)

    script = [*body(b"abc"), {"type": "http.disconnect"}, {"type": "http.disconnect"}]
    async with running(tracker, lifespan):
        await run_through(app, tracker, messages=script)
        progress = await ended(tracker)

    assert seen == ["http.request", "http.request", "http.disconnect", "http.disconnect"]
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


@lifespans
async def test_a_client_that_leaves_fails_its_upload(lifespan: bool) -> None:
    """H07, I8: the figure is what had come."""
    tracker = ProgressTracker()
    script = [*body(b"half")[:1], {"type": "http.disconnect"}]

    async with running(tracker, lifespan):
        with pytest.raises(ConnectionError):
            await run_through(sink, tracker, scope=head(length=8), messages=script)
        progress = await ended(tracker)

    assert progress.error is not None
    assert progress.error.code is ErrorCode.CLIENT_DISCONNECTED
    assert (progress.state, progress.bytes_transferred, progress.percent) == ("failed", 4, 50.0)


@lifespans
async def test_a_client_that_leaves_before_the_answer_does_not_decide(lifespan: bool) -> None:
    """H08: every byte is here; what becomes of them is the application's word, once."""
    tracker = ProgressTracker()
    states = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await drink(receive)
        assert (await receive())["type"] == "http.disconnect"
        states.append((await tracker.get(ID, owner=ALICE)).state)
        await respond(send)

    server = Server([*body(b"abc"), {"type": "http.disconnect"}], refuse_at=0)
    async with running(tracker, lifespan):
        with pytest.raises(OSError, match="gone"):
            await run_through(app, tracker, server=server)
        progress = await ended(tracker)

    assert states == [UploadState.PROCESSING]
    assert progress.state is UploadState.FAILED
    assert progress.attempt == 1


async def raises_before(_receive: Receive, _send: Send) -> None:
    """Nothing happens before."""


async def raises_amid(receive: Receive, _send: Send) -> None:
    await receive()


async def raises_after(receive: Receive, _send: Send) -> None:
    await drink(receive)


async def raises_in_answer(receive: Receive, send: Send) -> None:
    await drink(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})


class Stop(BaseException):
    """Something that no ``except Exception`` catches."""


@lifespans
@pytest.mark.parametrize(
    "lead", [raises_before, raises_amid, raises_after, raises_in_answer], ids=lambda it: it.__name__
)
@pytest.mark.parametrize(
    "error", [ValueError("secret"), Stop(), ExceptionGroup("both", [OSError()])], ids=repr
)
async def test_an_exception_fails_the_upload_and_stays_itself(
    lifespan: bool, lead: Callable[[Receive, Send], object], error: BaseException
) -> None:
    """H09: before, mid, after the body, after the response's start: the same object comes out."""
    tracker = ProgressTracker()
    caught: list[BaseException] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await lead(receive, send)  # type: ignore[misc]  # every lead is a coroutine function
        raise error

    async with running(tracker, lifespan):
        try:
            await run_through(app, tracker, messages=body(b"abc"))
        except BaseException as raised:  # noqa: BLE001  # what is raised is what is looked at
            caught.append(raised)
        progress = await ended(tracker)

    assert caught == [error]
    assert error.__context__ is None
    assert progress.error is not None
    assert (progress.state, progress.error.code) == (UploadState.FAILED, ErrorCode.APP_ERROR)
    assert "secret" not in progress.error.message


async def test_no_answer_is_an_error_of_the_application() -> None:
    """H09: who returns without an answer makes the server say 500."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await drink(receive)

    await run_through(app, tracker, messages=body(b"abc"))

    progress = await ended(tracker)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.APP_ERROR


@lifespans
async def test_a_cancelled_scope_cancels_the_upload(lifespan: bool) -> None:
    """H10: the cancellation passes, and the end is stored all the same."""
    tracker, server = ProgressTracker(), Server(body(b"abc")[:1])
    scope = anyio.CancelScope()

    async def serve() -> None:
        with scope:
            await run_through(sink, tracker, server=server)

    async with running(tracker, lifespan):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await server.is_silent.wait()
            scope.cancel()
        progress = await ended(tracker)

    assert scope.cancelled_caught
    assert (progress.state, progress.bytes_transferred) == (UploadState.CANCELLED, 3)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.APP_ERROR


@lifespans
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_task_cancels_the_upload(lifespan: bool) -> None:
    """H10: ``Task.cancel()``, as servers do at their stop, which no scope knows of."""
    tracker, server = ProgressTracker(), Server(body(b"abc")[:1])

    async with running(tracker, lifespan):
        task = asyncio.create_task(run_through(sink, tracker, server=server))
        await server.is_silent.wait()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        progress = await ended(tracker)

    assert task.cancelled()
    assert progress.state is UploadState.CANCELLED


@lifespans
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_cancellation_is_left_behind(lifespan: bool) -> None:
    """H10, I1: a task that served an upload is as uncancelled as it was."""
    tracker, server = ProgressTracker(), Server(body(b"abc"))

    async with running(tracker, lifespan):
        task = asyncio.create_task(run_through(sink, tracker, server=server))
        await task

    assert task.cancelling() == 0


@lifespans
async def test_a_store_that_hangs_does_not_hold_a_cancelled_task(lifespan: bool) -> None:
    """H10: the terminal write is shielded, for a second at most."""
    tracker = ProgressTracker(store=FaultyStore(anyio.sleep_forever))
    server = Server(body(b"abc")[:1])

    with anyio.fail_after(4):
        async with running(tracker, lifespan), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_through(sink, tracker, server=server))
            await server.is_silent.wait()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("size", "percent"), [(5, 50.0), (20, None)])
async def test_a_wrong_length_never_passes_100_percent(size: int, percent: float | None) -> None:
    """H19: the length says 10; the bytes are true, and the total is dropped when it is refuted."""
    tracker = ProgressTracker()

    await run_through(sink, tracker, scope=head(length=10), messages=body(bytes(size)))

    progress = await ended(tracker)
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
        b" 5",
        b"5, 5",
        b"\xb2",
    ],
)
async def test_a_bad_length_is_no_total(value: bytes) -> None:
    """H20: what is no length of digits is ignored, and the upload is received."""
    tracker = ProgressTracker()

    scope = head(headers=[(b"content-length", value)])
    server = await run_through(sink, tracker, scope=scope, messages=body(b"abc"))

    progress = await ended(tracker)
    assert server.status == 200
    assert progress.bytes_transferred == 3
    assert progress.total_bytes in {None, 10**18 - 1}


@pytest.mark.parametrize(
    "header",
    [
        (b"content-range", b"bytes 5-2/10"),
        (b"content-range", b"bytes -5-2/*"),
        (b"content-range", b"bytes 0-9223372036854775808/9223372036854775809"),
        (b"range", b"bytes=0-0"),
        (b"upload-offset", b"-7"),
        (b"upload-offset", b"99999999999999999999"),
    ],
)
async def test_headers_of_resumable_uploads_move_no_figure(header: tuple[bytes, bytes]) -> None:
    """H20, H24: a plain upload is what travels in its body."""
    tracker = ProgressTracker()

    await run_through(sink, tracker, scope=head(length=3, headers=[header]), messages=body(b"abc"))

    progress = await ended(tracker)
    assert (progress.bytes_transferred, progress.percent) == (3, 100.0)


@lifespans
async def test_two_at_once_with_one_id_are_two_uploads(lifespan: bool) -> None:
    """H21: an id that is being received is not given twice; each has its one end."""
    tracker = ProgressTracker()
    servers = [Server(body(b"abc")[:1]), Server(body(b"defgh"))]

    async with running(tracker, lifespan):
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                with pytest.raises(ConnectionError):
                    await run_through(sink, tracker, server=servers[0])

            tasks.start_soon(first)
            await servers[0].is_silent.wait()
            await run_through(sink, tracker, server=servers[1])
            other = servers[1].headers["upload-id"]
            assert (await ended(tracker, other)).bytes_transferred == 5
            assert (await tracker.get(ID, owner=ALICE)).bytes_transferred == 3
            servers[0].leaves.set()
        first_end = await ended(tracker)

    assert other != ID
    assert first_end.state is UploadState.FAILED


@lifespans
async def test_the_same_id_again_is_the_next_attempt(lifespan: bool) -> None:
    """H21, I6: one end for each attempt, in which the figures begin anew."""
    tracker = ProgressTracker()

    async with running(tracker, lifespan):
        with pytest.raises(ConnectionError):
            await run_through(sink, tracker, messages=[{"type": "http.disconnect"}])
        await ended(tracker)
        await run_through(sink, tracker, messages=body(b"abc"))
        await until(lambda: tracker.statistics().live_uploads == 0)
        progress = await tracker.get(ID, owner=ALICE)

    assert (progress.attempt, progress.state) == (2, UploadState.COMPLETED)
    assert progress.bytes_transferred == 3


async def test_an_encoded_body_is_counted_as_it_travels() -> None:
    """H24: wire bytes; nothing is decoded."""
    tracker = ProgressTracker()
    packed = b"\x1f\x8b\x08 this is not even valid gzip"
    seen: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await respond(send)

    encoding = (b"content-encoding", b"gzip")
    scope = head(length=len(packed), headers=[encoding])
    await run_through(
        app, tracker, scope=scope, messages=[{"type": "http.request", "body": packed}]
    )

    assert seen[0]["body"] is packed
    assert (await ended(tracker)).bytes_transferred == len(packed)


async def test_receive_does_not_wait_for_the_store() -> None:
    """H26: while a call of the store hangs, a disconnect is passed on in the same instant."""
    store = FaultyStore(anyio.sleep_forever)
    tracker = ProgressTracker(store=store)
    laps = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await until(lambda: store.asked)
        begun = tracker.statistics().store_failures
        with pytest.raises(ConnectionError):
            await drink(receive)
        laps.append(tracker.statistics().store_failures - begun)

    script = [*body(b"a", b"b")[:2], {"type": "http.disconnect"}]
    async with running(tracker, lifespan=True):
        await run_through(app, tracker, messages=script)

    assert laps == [0]


@pytest.mark.parametrize(
    "ending",
    [
        {"type": "http.response.body"},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.zerocopysend", "file": 3},
    ],
    ids=lambda message: message["type"],
)
async def test_an_answer_without_bytes_in_python_ends_the_upload(ending: Message) -> None:
    """H27: sent by the server from a file, between early hints and trailers."""
    tracker = ProgressTracker()
    states = []
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await drink(receive)
        await send(hint)
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send(ending)
        states.append((await tracker.get(ID, owner=ALICE)).state)
        await send(trailers)

    server = await run_through(app, tracker, messages=body(b"abc"))

    assert states == [UploadState.COMPLETED]
    assert (server.sent[0], server.sent[2], server.sent[3]) == (hint, ending, trailers)


@lifespans
async def test_no_chunk_is_kept(lifespan: bool) -> None:
    """R09: once the application has dropped a chunk, nobody holds it."""
    tracker = ProgressTracker()
    counts: list[list[str]] = []

    async def receive() -> Message:
        await checkpoint()
        # Made here, so that no script holds them.
        return {"type": "http.request", "body": Chunk(BIG), "more_body": len(counts) < 5}

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            chunk, more = message["body"], message["more_body"]
            holders = [thing for thing in gc.get_referrers(chunk) if thing is not message]
            counts.append([type(thing).__name__ for thing in holders])
            del message, chunk, holders
        await respond(send)

    form = (b"content-type", b"multipart/form-data; boundary=x")
    async with running(tracker, lifespan):
        server = Server()
        middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=alice)
        await middleware(head(None, headers=[form]), receive, server.send)
        gc.collect()

    assert counts == [[]] * 6
    assert [thing for thing in gc.get_objects() if type(thing) is Chunk] == []


class Chunk(bytearray):
    """Bytes that the collector can find."""


async def test_a_form_is_counted_with_its_envelope_and_named_by_its_file() -> None:
    """The contract's section 3: one bounded look at the first part's header."""
    tracker = ProgressTracker()
    form = (
        b"--x\r\nContent-Disposition: form-data; name=f; filename=cat.png\r\n\r\n"
        + bytes(BIG)
        + b"\r\n--x--\r\n"
    )
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    scope = head(length=len(form), headers=[kind], method="POST")

    await run_through(sink, tracker, scope=scope, messages=body(form))

    progress = await ended(tracker)
    assert (progress.filename, progress.content_type) == ("cat.png", "multipart/form-data")
    assert progress.bytes_transferred == progress.total_bytes == len(form)
