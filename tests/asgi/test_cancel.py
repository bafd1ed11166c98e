"""The owner cancels: the application hears of it, the client is told, and nothing hangs."""

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

lifespans = pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])


async def cancelled(tracker: ProgressTracker) -> None:
    """Cancel the upload, as its owner does."""
    progress = await tracker.cancel(UPLOAD_ID, owner=ALICE)
    assert progress.state is UploadState.CANCELLED


def assert_told(server: ScriptedServer, version: str = "1.1") -> None:
    """Assert that the client was told, and only that."""
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


async def answers(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "http.disconnect"
    await send_response(send, 400, b"where are you?")


async def asks_on(receive: Receive, _send: Send) -> None:
    assert [(await receive())["type"] for _ in range(3)] == ["http.disconnect"] * 3


@lifespans
@pytest.mark.parametrize("reaction", [returns, raises, answers, asks_on])
@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("is_last", [True, False], ids=["at the last byte", "amid"])
async def test_the_next_message_is_a_disconnect(
    lifespan: bool,
    reaction: Callable[[Receive, Send], Awaitable[None]],
    version: str,
    is_last: bool,
) -> None:
    """The application hears ``http.disconnect``; whatever it does then, the client gets 409."""
    tracker = ProgressTracker()
    script = body_messages(b"abc", b"d") if not is_last else [*body_messages(b"abc")]
    script += [{"type": "http.disconnect"}] * 3

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"abc"
        await cancelled(tracker)
        await reaction(receive, send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, scope=upload_scope(http_version=version), messages=script
        )
        progress = await wait_for_end(tracker)

    assert_told(server, version)
    assert progress.error is not None
    assert progress.error.code is ErrorCode.CANCELLED_BY_OWNER
    assert (progress.state, progress.bytes_transferred) == (UploadState.CANCELLED, 3)


async def waits_for_bytes(receive: Receive, _send: Send) -> None:
    await read_body(receive)


async def works(receive: Receive, _send: Send) -> None:
    await receive()
    await anyio.sleep_forever()


@lifespans
@pytest.mark.parametrize("occupation", [waits_for_bytes, works])
async def test_patience_ends_after_a_second(
    lifespan: bool, occupation: Callable[[Receive, Send], Awaitable[None]]
) -> None:
    """A stalled client, or an application that is processing: its task is cancelled, 409 sent."""
    tracker = ProgressTracker()
    server = ScriptedServer(body_messages(b"abc")[: 1 if occupation is waits_for_bytes else 2])
    pulls = 2 if occupation is waits_for_bytes else 1
    outcome: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await occupation(receive, send)
        except anyio.get_cancelled_exc_class():
            outcome.append("cancelled")
            raise

    with anyio.fail_after(10):
        async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_request(app, tracker, server=server))
            await wait_until(lambda: server.receive_calls == pulls)
            begun = anyio.current_time()
            await cancelled(tracker)
        lasted = anyio.current_time() - begun

    assert outcome == ["cancelled"]
    assert lasted >= 1.0
    assert_told(server)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose patience at once."""
    monkeypatch.setattr("upload_progress.asgi.tracked_request.CANCEL_GRACE_SECONDS", 0.0)


@lifespans
@pytest.mark.usefixtures("hurried")
async def test_a_response_that_has_begun_is_cut_off(lifespan: bool) -> None:
    """There is no second status: the server closes the connection of an unfinished answer."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await cancelled(tracker)
        await anyio.sleep_forever()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert (len(server.sent), server.status) == (1, 200)
    assert progress.state is UploadState.CANCELLED


@lifespans
@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()], ids=repr)
async def test_an_error_after_the_response_has_begun_passes(
    lifespan: bool, error: BaseException
) -> None:
    """H09: what the server must know of, it is told, cancelled or not."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await cancelled(tracker)
        raise error

    caught: list[BaseException] = []
    async with tracker_lifespan(tracker, lifespan):
        try:
            await run_request(app, tracker, messages=body_messages(b"abc"))
        except BaseException as app_raised:  # noqa: BLE001  # what is raised is what is looked at
            caught.append(app_raised)

    assert caught == [error]


@pytest.mark.usefixtures("hurried")
@lifespans
async def test_a_client_that_is_gone_cannot_be_told(lifespan: bool) -> None:
    """The server's ``send`` may raise: nobody is left, and nothing is wrong."""
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancelled(tracker)
        await receive()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, server=ScriptedServer(body_messages(b"abc")[:1], send_fails_at=0)
        )
        assert (await wait_for_end(tracker)).state is UploadState.CANCELLED

    assert server.sent == []


@lifespans
@pytest.mark.usefixtures("hurried")
async def test_what_has_ended_is_not_cut(lifespan: bool) -> None:
    """A cancel after the answer is refused, and leaves the work behind the answer alone."""
    tracker = ProgressTracker()
    outcome = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send_response(send)
        with pytest.raises(UploadEnded):
            await tracker.cancel(UPLOAD_ID, owner=ALICE)
        await anyio.sleep(0.01)
        outcome.append("done")

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))
        progress = await wait_for_end(tracker)

    assert outcome == ["done"]
    assert (server.status, progress.state) == (200, UploadState.COMPLETED)


@lifespans
async def test_cancelled_twice_is_cancelled_once(lifespan: bool) -> None:
    tracker = ProgressTracker()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await cancelled(tracker)
        await cancelled(tracker)
        await receive()

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"))

    assert_told(server)


@define(eq=False)
class Stopping:
    """A lifespan that ends in the midst of a request."""

    tracker: ProgressTracker
    begun: anyio.Event = field(factory=anyio.Event)
    stop: anyio.Event = field(factory=anyio.Event)
    over: anyio.Event = field(factory=anyio.Event)

    async def live(self) -> None:
        """Enter the lifespan, in a task of its own as in servers."""
        async with self.tracker.lifespan():
            self.begun.set()
            await self.stop.wait()
        self.over.set()

    async def end(self) -> None:
        """End it, and wait until it is over."""
        self.stop.set()
        await self.over.wait()


async def test_a_cancel_after_the_lifespan_is_over_cuts_at_once() -> None:
    """P02: the server is stopping, and nothing runs that could be patient."""
    tracker = ProgressTracker()
    lifespan = Stopping(tracker)

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await lifespan.end()
        await cancelled(tracker)
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifespan.live)
            await lifespan.begun.wait()
            server = await run_request(app, tracker, messages=body_messages(b"abc"))

    assert_told(server)


async def test_a_hook_that_answers_after_the_lifespan_is_over_is_not_waited_for() -> None:
    """P02, A14: a coroutine that nobody runs is closed, without a warning."""
    tracker = ProgressTracker()
    lifespan = Stopping(tracker)
    answers: list[object] = [None, slowly(), Pending()]
    asked = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await lifespan.end()
        await read_body(receive)
        await send_response(send)

    def hook(connection: object) -> object:
        asked.append(connection)
        return answers[len(asked) - 1]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan.live)
        await lifespan.begun.wait()
        server = await run_request(
            app,
            tracker,
            messages=body_messages(b"abc"),
            authenticate=hook,  # type: ignore[arg-type]  # no identity ever comes of it
        )

    assert server.headers == {"content-type": "text/plain"}
    assert len(asked) == 3


async def slowly() -> None:
    """Stand for a hook that nobody waits for."""


class Pending:
    """Something that can be awaited, and is no coroutine."""

    def __await__(self) -> Iterator[object] | None: ...


@lifespans
async def test_an_upload_in_a_stage_is_cut_at_the_next_byte(lifespan: bool) -> None:
    """What the endpoint tells after the cancel does not hide it."""
    tracker = ProgressTracker()
    seen = []

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        upload = current_upload(scope)
        async with upload.stage("hashing"):
            await receive()
            await cancelled(tracker)
        upload.set(metadata={"late": True})
        seen.append((await receive())["type"])

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"a", b"b"))
        progress = await wait_for_end(tracker)

    assert_told(server)
    assert progress.metadata is None
    assert seen == ["http.disconnect"]
