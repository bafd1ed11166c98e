"""The call of the middleware ends when the application does, with and without the lifespan."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from tests._support.scripted_server import (
    ALICE,
    UPLOAD_ID,
    FailingStore,
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
from upload_progress import ErrorCode, Identity, MemoryStore, ProgressTracker, UploadState
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate

pytestmark = pytest.mark.anyio

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)

HEADS: dict[str, Scope] = {
    "plain": upload_scope(length=3),
    "small": upload_scope(None),
    "tus": upload_scope(
        None,
        length=3,
        method="PATCH",
        headers=[(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"0")],
    ),
    "content-range": upload_scope(None, length=3, headers=[(b"content-range", b"bytes 0-2/9")]),
}


async def authenticate_slowly(_connection: Connection) -> None:
    await anyio.sleep_forever()


@with_and_without_lifespan
@pytest.mark.parametrize("scope", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    "authenticate", [authenticate_alice, authenticate_slowly], ids=["at once", "hangs"]
)
async def test_no_other_task_runs_between_the_two_ends(
    lifespan: bool, scope: Scope, authenticate: Authenticate
) -> None:
    """A store that hangs holds no call, and no cancellation can hit between the two ends."""
    # With the lifespan only its end would wait for the store, in each of these tests.
    tracker = ProgressTracker(store=None if lifespan else FailingStore(anyio.sleep_forever))
    ends: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send_response(send)
        schedule(lambda: ends.append("next turn of the event loop"))
        ends.append("application")

    with anyio.fail_after(10):
        async with tracker_lifespan(tracker, lifespan):
            await run_request(
                app, tracker, scope=scope, messages=body_messages(b"abc"), authenticate=authenticate
            )
            ends.append("call")
            await wait_until(lambda: len(ends) == 3)

    assert ends == ["application", "call", "next turn of the event loop"]


def schedule(function: Callable[[], object]) -> None:
    """Call *function* in the next turn of the event loop."""
    try:
        asyncio.get_running_loop().call_soon(function)
    except RuntimeError:
        trio.lowlevel.current_trio_token().run_sync_soon(function)


@with_and_without_lifespan
async def test_end_is_stored_if_the_server_cancels_after_the_response(lifespan: bool) -> None:
    """Hypercorn does so when the client closes the connection."""
    tracker = ProgressTracker(store=MemoryStore())

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send_response(send)
        call.cancel()

    async with tracker_lifespan(tracker, lifespan):
        with anyio.CancelScope() as call:
            await run_request(app, tracker, messages=body_messages(b"abc"))
        await wait_until(lambda: tracker.statistics().live_uploads == 0)

    assert not call.cancelled_caught
    assert (await tracker.get(UPLOAD_ID, owner=ALICE)).state is UploadState.COMPLETED


@with_and_without_lifespan
async def test_late_identity_stores_the_upload(lifespan: bool) -> None:
    """``authenticate`` returns after the end of the call."""
    tracker = ProgressTracker()
    call_ended = anyio.Event()

    async def authenticate(_connection: Connection) -> Identity:
        await call_ended.wait()
        return ALICE

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, messages=body_messages(b"abc"), authenticate=authenticate
        )
        call_ended.set()
        progress = await wait_for_end(tracker)
        await wait_until(lambda: tracker.statistics().live_uploads == 0)

    assert server.headers == {"content-type": "text/plain"}
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


async def wait_for_body(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


@types.coroutine
def suspend() -> Any:  # noqa: ANN401  # whatever an event loop sends
    """Suspend the coroutine, outside of the control of any event loop."""
    yield


def begin(tracker: ProgressTracker) -> Any:  # noqa: ANN401  # the coroutine of an application
    """Return a call that waits for the body."""

    async def receive() -> Any:  # noqa: ANN401  # it never returns
        return await suspend()

    middleware = UploadProgressMiddleware(
        wait_for_body, tracker=tracker, authenticate=authenticate_alice
    )
    call: Any = middleware(upload_scope(length=3), receive, ScriptedServer().send)
    call.send(None)
    return call


@with_and_without_lifespan
async def test_call_can_be_closed(lifespan: bool) -> None:
    """An event loop that ends closes what it has not finished; the upload is aborted."""
    tracker = ProgressTracker()

    async with tracker_lifespan(tracker, lifespan):
        begin(tracker).close()
        progress = await wait_for_end(tracker)

    assert progress.state is UploadState.CANCELLED
    assert progress.error is not None
    assert progress.error.code is ErrorCode.APP_ERROR


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@with_and_without_lifespan
async def test_call_can_be_closed_by_another_task(lifespan: bool) -> None:
    """Whatever destroys a task closes its coroutine."""
    tracker = ProgressTracker()

    async def start() -> Any:  # noqa: ANN401  # as above
        return begin(tracker)

    async with tracker_lifespan(tracker, lifespan):
        call = await asyncio.create_task(start())
        call.close()
        assert (await wait_for_end(tracker)).state is UploadState.CANCELLED


def test_call_can_be_closed_without_an_event_loop() -> None:
    tracker = ProgressTracker()

    async def start() -> Any:  # noqa: ANN401  # as above
        return begin(tracker)

    asyncio.run(start()).close()

    progress = anyio.run(lambda: tracker.get(UPLOAD_ID, owner=ALICE))
    assert progress.state is UploadState.CANCELLED


@with_and_without_lifespan
async def test_error_of_the_application_is_raised_unchanged(lifespan: bool) -> None:
    """Also a RuntimeError, and with its own context."""
    tracker, error = ProgressTracker(), RuntimeError("of the application")

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    async with tracker_lifespan(tracker, lifespan):
        with pytest.raises(RuntimeError) as raised:
            await run_request(app, tracker)

    assert raised.value is error
    assert error.__context__ is None
