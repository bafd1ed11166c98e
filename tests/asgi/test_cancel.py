"""Cancellation by the owner: the application gets a disconnect, the client gets 409."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator

import anyio
import pytest
from attrs import define, field

from tests._support.scripted_server import (
    ALICE,
    UPLOAD_ID,
    Message,
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
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from upload_progress import ErrorCode, Identity, ProgressTracker, UploadEnded, UploadState
from upload_progress.asgi import current_upload
from upload_progress.interfaces import Authenticate

pytestmark = pytest.mark.anyio

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)
both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


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
    assert [message.get("type") for message in server.sent[1:]] == (
        ["http.response.body"] * (len(server.sent) - 1)
    )
    assert not server.sent[-1].get("more_body", False)


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


@define(eq=False)
class SendingClient(ScriptedServer):
    """The server of a client that goes on sending, until it stops or disconnects.

    Attributes:
        rest: Number of chunks that the client sends after the cancellation.
        then: What the client does after that: it is "done", "silent" or "gone".
        received_when_sent: Number of received messages, for each message of the response.
    """

    rest: int = 0
    then: str = "done"
    received_when_sent: list[int] = field(factory=list)

    async def receive(self) -> Message:
        """Return the next chunk."""
        await anyio.sleep(0.05)
        self.receive_calls += 1
        if self.receive_calls <= 1 + self.rest:
            return {"type": "http.request", "body": b"abc", "more_body": True}
        if self.then == "silent":
            await anyio.sleep_forever()
        return {"type": "http.request" if self.then == "done" else "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Record *message*."""
        await super().send(message)
        self.received_when_sent.append(self.receive_calls)


def run_cancelled_request(client: SendingClient, backend: str, version: str = "1.1") -> None:
    """Run a request whose upload is cancelled, and whose application ends at once."""
    tracker = ProgressTracker(clock=VirtualClock())

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancel_upload(tracker)

    async def main() -> None:
        await run_request(app, tracker, scope=upload_scope(http_version=version), server=client)

    run_in_virtual_time(main, backend)


@both_loops
@pytest.mark.parametrize("then", ["done", "silent", "gone"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_rest_of_the_body_is_discarded(then: str, version: str, backend: str) -> None:
    """A client that reads after it has sent everything finds the response, on any server.

    The end of the response, which closes an HTTP/1 connection, is sent last.
    """
    client = SendingClient(rest=5, then=then)
    run_cancelled_request(client, backend, version)

    assert client.receive_calls == 7
    assert client.received_when_sent == [1, 1, 7]
    assert [message.get("more_body") for message in client.sent] == [None, True, None]
    assert len(client.sent[2]["body"]) == (1 if version == "1.1" else 0)
    assert_cancelled_response(client, version)


@both_loops
def test_rest_of_the_body_is_discarded_for_a_limited_time(backend: str) -> None:
    """A client that sends on gets the whole response in between: most clients stop there."""
    client = SendingClient(rest=10_000_000)
    run_cancelled_request(client, backend)

    assert [message.get("more_body") for message in client.sent] == [None, True, True, None]
    assert [len(message.get("body", b"")) for message in client.sent[2:]] == [1, 0]
    assert client.received_when_sent[:2] == [1, 1]
    assert 1 < client.received_when_sent[2] < client.received_when_sent[3]
    assert_cancelled_response(client)


async def test_whole_body_leaves_nothing_to_discard() -> None:
    tracker, server = ProgressTracker(), ScriptedServer(body_messages(b"abc"))

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await read_body(receive)
        await cancel_upload(tracker)

    await run_request(app, tracker, server=server)

    assert server.receive_calls == 2
    assert len(server.sent) == 2
    assert_cancelled_response(server)


async def test_cancelled_tus_upload_gets_410() -> None:
    """After 409 a tus client asks for the offset and goes on; after 410 it gives up."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancel_upload(tracker)

    headers = [(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"0"), (b"upload-length", b"9")]
    scope = upload_scope(headers=headers, method="PATCH")
    server = await run_request(app, tracker, scope=scope, messages=body_messages(b"a", b"b"))

    assert (server.status, json.loads(server.content)["status"]) == (410, 410)
    assert server.headers["tus-resumable"] == "1.0.0"


async def waits_for_bytes(receive: Receive, _send: Send) -> None:
    await read_body(receive)


async def ignores_messages(receive: Receive, _send: Send) -> None:
    await receive()
    await anyio.sleep_forever()


@both_loops
@with_and_without_lifespan
@pytest.mark.parametrize("behaviour", [waits_for_bytes, ignores_messages])
def test_application_is_cancelled_after_a_second(
    lifespan: bool, behaviour: Callable[[Receive, Send], Awaitable[None]], backend: str
) -> None:
    """A stalled client, or a busy application: the task is cancelled and 409 is sent."""
    server = ScriptedServer(body_messages(b"abc")[: 1 if behaviour is waits_for_bytes else 2])
    calls = 2 if behaviour is waits_for_bytes else 1
    cancelled_at: list[float] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await behaviour(receive, send)
        except anyio.get_cancelled_exc_class():
            cancelled_at.append(anyio.current_time())
            raise

    async def main() -> float:
        tracker = ProgressTracker(clock=VirtualClock())
        async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_request(app, tracker, server=server))
            await wait_until(lambda: server.receive_calls == calls)
            started_at = anyio.current_time()
            await cancel_upload(tracker)
        return started_at

    started_at = run_in_virtual_time(main, backend)

    assert cancelled_at == [pytest.approx(started_at + 1.0)]
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


@both_loops
def test_application_is_cancelled_after_the_lifespan(backend: str) -> None:
    """P02: the grace period does not need the background tasks of the tracker."""
    server = ScriptedServer(body_messages(b"abc"))

    async def main() -> None:
        tracker = ProgressTracker(clock=VirtualClock())
        lifespan = EndingLifespan(tracker)

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            await lifespan.end()
            await cancel_upload(tracker)
            await anyio.sleep_forever()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lifespan.run)
                await lifespan.started.wait()
                await run_request(app, tracker, server=server)

    run_in_virtual_time(main, backend)

    assert_cancelled_response(server)


async def alice() -> Identity:
    return ALICE


class Alice:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Generator[object, None, Identity]:
        """Return Alice."""
        return alice().__await__()


@pytest.mark.parametrize("hook", [lambda _: alice(), lambda _: Alice()], ids=["coroutine", "other"])
async def test_hook_after_the_lifespan_is_awaited(hook: Authenticate) -> None:
    """P02, A14: the upload has an owner, although the tracker's own tasks have ended."""
    tracker = ProgressTracker()
    lifespan = EndingLifespan(tracker)

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await lifespan.end()
        await read_body(receive)
        await send_response(send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        await lifespan.started.wait()
        await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)

    assert (await wait_for_end(tracker)).state is UploadState.COMPLETED


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


@with_and_without_lifespan
@pytest.mark.parametrize("status", [200, 500])
async def test_upload_whose_response_is_being_sent_is_not_cancelled(
    lifespan: bool, status: int
) -> None:
    """The client gets the whole response, so that is the result, also for the owner."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": status, "headers": []})
        with pytest.raises(UploadEnded, match="its response is being sent"):
            await tracker.cancel(UPLOAD_ID, owner=ALICE)
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})
        with pytest.raises(UploadEnded):
            await tracker.cancel(UPLOAD_ID, owner=ALICE)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert (server.status, server.content) == (status, b"done")
    assert progress.state is (UploadState.COMPLETED if status == 200 else UploadState.FAILED)


@with_and_without_lifespan
async def test_response_that_began_before_the_last_byte_is_not_finished_after_a_cancel(
    lifespan: bool,
) -> None:
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await cancel_upload(tracker)
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"done"})

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert (server.status, len(server.sent)) == (200, 1)
    assert progress.state is UploadState.CANCELLED
