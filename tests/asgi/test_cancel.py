"""Cancellation by the owner: the application gets a disconnect, the client gets 409."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest
from attrs import define, field

from tests._support.scripted_server import (
    ALICE,
    UPLOAD_ID,
    Receive,
    Scope,
    ScriptedServer,
    Send,
    body_messages,
    read_body,
    run_request,
    send_response,
    tracker_lifespan,
    upload_scope,
    wait_for_end,
    wait_until,
)
from upload_progress import ErrorCode, ProgressTracker, UploadEnded, UploadState
from upload_progress.asgi import current_upload

pytestmark = pytest.mark.anyio

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)


async def cancel_upload(tracker: ProgressTracker) -> None:
    """Cancel the upload as its owner."""
    progress = await tracker.cancel(UPLOAD_ID, owner=ALICE)
    assert progress.state is UploadState.CANCELLED


def assert_cancelled_response(server: ScriptedServer, version: str = "1.1") -> None:
    """Check that the client received the 409 response, and nothing else."""
    assert server.status == 409
    assert server.headers["content-type"] == "application/problem+json"
    assert int(server.headers["content-length"]) == len(server.content)
    assert server.headers["upload-id"] == UPLOAD_ID
    assert server.headers.get("connection") == ("close" if version.startswith("1") else None)
    assert json.loads(server.content)["status"] == 409
    assert len(server.sent) == 2


async def returns(receive: Receive, _send: Send) -> None:
    assert (await receive())["type"] == "http.disconnect"


async def raises(receive: Receive, _send: Send) -> None:
    await read_body(receive)


async def responds(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "http.disconnect"
    await send_response(send, 400, b"where are you?")


async def keeps_receiving(receive: Receive, _send: Send) -> None:
    assert [(await receive())["type"] for _ in range(3)] == ["http.disconnect"] * 3


@with_and_without_lifespan
@pytest.mark.parametrize("behaviour", [returns, raises, responds, keeps_receiving])
@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("is_last", [True, False], ids=["at the last byte", "amid"])
async def test_next_message_is_a_disconnect(
    lifespan: bool,
    behaviour: Callable[[Receive, Send], Awaitable[None]],
    version: str,
    is_last: bool,
) -> None:
    """The application receives ``http.disconnect``; the client gets 409 in any case."""
    tracker = ProgressTracker()
    script = body_messages(b"abc", b"d") if not is_last else [*body_messages(b"abc")]
    script += [{"type": "http.disconnect"}] * 3

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"abc"
        await cancel_upload(tracker)
        await behaviour(receive, send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, scope=upload_scope(http_version=version), messages=script
        )
        progress = await wait_for_end(tracker)

    assert_cancelled_response(server, version)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.CANCELLED_BY_OWNER
    assert (progress.state, progress.bytes_transferred) == (UploadState.CANCELLED, 3)


async def waits_for_bytes(receive: Receive, _send: Send) -> None:
    await read_body(receive)


async def ignores_messages(receive: Receive, _send: Send) -> None:
    await receive()
    await anyio.sleep_forever()


@with_and_without_lifespan
@pytest.mark.parametrize("behaviour", [waits_for_bytes, ignores_messages])
async def test_application_is_cancelled_after_a_second(
    lifespan: bool, behaviour: Callable[[Receive, Send], Awaitable[None]]
) -> None:
    """A stalled client, or a busy application: the task is cancelled and 409 is sent."""
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(b"abc")[: 1 if behaviour is waits_for_bytes else 2])
    calls = 2 if behaviour is waits_for_bytes else 1
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await behaviour(receive, send)
        except anyio.get_cancelled_exc_class():
            log.append("cancelled")
            raise

    with anyio.fail_after(10):
        async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_request(app, tracker, server=server))
            await wait_until(lambda: server.receive_calls == calls)
            started = anyio.current_time()
            await cancel_upload(tracker)
        elapsed = anyio.current_time() - started

    assert log == ["cancelled"]
    assert elapsed >= 1.0
    assert_cancelled_response(server)


@pytest.fixture
def no_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel the application without a grace period."""
    monkeypatch.setattr("upload_progress.asgi.tracked_request.CANCEL_GRACE_SECONDS", 0.0)


@with_and_without_lifespan
@pytest.mark.usefixtures("no_grace_period")
async def test_started_response_is_aborted(lifespan: bool) -> None:
    """No second status is sent: the server closes the connection of an unfinished response."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await cancel_upload(tracker)
        await anyio.sleep_forever()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert (len(server.sent), server.status) == (1, 200)
    assert progress.state is UploadState.CANCELLED


@with_and_without_lifespan
@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
async def test_error_after_the_start_of_the_response_is_raised(
    lifespan: bool, error: BaseException
) -> None:
    """H09: the server gets the exception, cancelled or not."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await cancel_upload(tracker)
        raise error

    raised: list[BaseException] = []
    async with tracker_lifespan(tracker, lifespan):
        try:
            await run_request(app, tracker, messages=body_messages(b"abc"))
        except BaseException as error_caught:  # noqa: BLE001  # the exception is checked below
            raised.append(error_caught)

    assert raised == [error]


@pytest.mark.usefixtures("no_grace_period")
@with_and_without_lifespan
async def test_cancel_after_the_client_disconnected(lifespan: bool) -> None:
    """``send`` of the server raises OSError, which is ignored."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancel_upload(tracker)
        await receive()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, server=ScriptedServer(body_messages(b"abc")[:1], send_fails_at=0)
        )
        assert (await wait_for_end(tracker)).state is UploadState.CANCELLED

    assert server.sent == []


@with_and_without_lifespan
@pytest.mark.usefixtures("no_grace_period")
async def test_cancel_after_the_end_has_no_effect(lifespan: bool) -> None:
    """A cancel after the response is refused; work after the response continues."""
    tracker = ProgressTracker()
    log = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send_response(send)
        with pytest.raises(UploadEnded):
            await tracker.cancel(UPLOAD_ID, owner=ALICE)
        await anyio.sleep(0.01)
        log.append("done")

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert log == ["done"]
    assert (server.status, progress.state) == (200, UploadState.COMPLETED)


@with_and_without_lifespan
async def test_second_cancel_has_no_effect(lifespan: bool) -> None:
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancel_upload(tracker)
        await cancel_upload(tracker)
        await receive()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))

    assert_cancelled_response(server)


@define(eq=False)
class EndingLifespan:
    """Enters a lifespan and ends it during a request."""

    tracker: ProgressTracker
    started: anyio.Event = field(factory=anyio.Event)
    stop: anyio.Event = field(factory=anyio.Event)
    ended: anyio.Event = field(factory=anyio.Event)

    async def run(self) -> None:
        """Enter the lifespan, in a separate task as servers do."""
        async with self.tracker.lifespan():
            self.started.set()
            await self.stop.wait()
        self.ended.set()

    async def end(self) -> None:
        """End the lifespan and wait for its end."""
        self.stop.set()
        await self.ended.wait()


async def test_cancel_after_the_lifespan_is_immediate() -> None:
    """P02: no background task is left that could wait for the grace period."""
    tracker = ProgressTracker()
    lifespan = EndingLifespan(tracker)

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await lifespan.end()
        await cancel_upload(tracker)
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifespan.run)
            await lifespan.started.wait()
            server = await run_request(app, tracker, messages=body_messages(b"abc"))

    assert_cancelled_response(server)


async def test_hook_after_the_lifespan_is_not_awaited() -> None:
    """P02, A14: its coroutine is closed, without a warning."""
    tracker = ProgressTracker()
    lifespan = EndingLifespan(tracker)
    responds: list[object] = [None, never_awaited(), Pending()]
    connections = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await lifespan.end()
        await read_body(receive)
        await send_response(send)

    def hook(connection: object) -> object:
        connections.append(connection)
        return responds[len(connections) - 1]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        await lifespan.started.wait()
        server = await run_request(
            app,
            tracker,
            messages=body_messages(b"abc"),
            authenticate=hook,  # type: ignore[arg-type]  # it never returns an identity
        )

    assert server.headers == {"content-type": "text/plain"}
    assert len(connections) == 3


async def never_awaited() -> None:
    """A hook whose coroutine is not awaited."""


class Pending:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Iterator[object] | None: ...


@with_and_without_lifespan
async def test_upload_in_a_stage_is_cancelled_at_the_next_byte(lifespan: bool) -> None:
    """Reports of the endpoint after the cancel have no effect."""
    tracker = ProgressTracker()
    seen = []

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        upload = current_upload(scope)
        async with upload.stage("hashing"):
            await receive()
            await cancel_upload(tracker)
        upload.set(metadata={"late": True})
        seen.append((await receive())["type"])

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"a", b"b"))
        progress = await wait_for_end(tracker)

    assert_cancelled_response(server)
    assert progress.metadata is None
    assert seen == ["http.disconnect"]
