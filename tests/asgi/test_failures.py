"""Promise I2: failures of store, broker, policy and clock do not change or delay uploads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, frozen

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
    body_messages,
    read_body,
    run_request,
    send_response,
    tracker_lifespan,
    upload_scope,
    wait_for_end,
    wait_until,
)
from upload_progress import MemoryStore, ProgressTracker, StoreUnavailable, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.cloudevents import CloudEvent
from upload_progress.asgi import current_upload
from upload_progress.throttling import Gate, ThrottlePolicy

pytestmark = pytest.mark.anyio

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)

PLAIN = {"content-type": "text/plain"}
ADDED_HEADERS = {"upload-id": UPLOAD_ID, "link": f'</uploads/{UPLOAD_ID}/progress>; rel="status"'}


async def raise_error() -> None:
    raise OSError("gone")


async def raise_cancelled() -> None:
    """Raise CancelledError, although the current task was not cancelled."""
    raise asyncio.CancelledError


async def read_and_respond(scope: Scope, receive: Receive, send: Send) -> None:
    upload = current_upload(scope)
    size = await read_body(receive)
    async with upload.stage("hashing", total=2) as stage:
        stage.advance()
        await checkpoint()
    await send_response(send, 201, str(size).encode())


Failure = Callable[[], Awaitable[object]]


@frozen
class FailingPublisher:
    """A publisher all of whose calls fail in the same way."""

    failure: Failure

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Fail each call."""
        await self.failure()


@with_and_without_lifespan
@pytest.mark.parametrize(
    ("store", "publisher"),
    [(raise_error, raise_error), (anyio.sleep_forever, None), (None, anyio.sleep_forever)],
    ids=["both raise", "the store hangs", "the broker hangs"],
)
async def test_failing_store_or_broker_does_not_change_an_upload(
    lifespan: bool, store: Failure | None, publisher: Failure | None
) -> None:
    """I2, S03: the same bytes, status and headers, sent without waiting for a failing call."""
    faulty = FailingStore(store) if store else MemoryStore()
    broker = FailingPublisher(publisher) if publisher else None
    tracker = ProgressTracker(store=faulty, publisher=broker)
    failures_at_send: list[int] = []

    def failures() -> int:
        figures = tracker.statistics()
        return figures.store_failures + figures.publisher_failures

    class RecordingServer(ScriptedServer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            failures_at_send.append(failures())

    server = RecordingServer(
        body_messages(bytes(LARGE_BYTES), bytes(LARGE_BYTES), bytes(LARGE_BYTES))
    )
    with anyio.fail_after(20):
        async with tracker_lifespan(tracker, lifespan):
            await run_request(
                read_and_respond, tracker, scope=upload_scope(length=3 * LARGE_BYTES), server=server
            )

    assert (server.status, server.content) == (201, str(3 * LARGE_BYTES).encode())
    assert server.headers == PLAIN | ADDED_HEADERS
    # A hanging call fails after a second. No call had failed before, so none was awaited.
    assert store is raise_error or failures_at_send == [0, 0]


@with_and_without_lifespan
async def test_live_upload_is_read_without_the_store(lifespan: bool) -> None:
    """I11, S01: reading a live upload needs no store; reading others raises StoreUnavailable."""
    tracker = ProgressTracker(store=FailingStore(raise_error))
    server = ScriptedServer(body_messages(b"abc")[:1])

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def serve() -> None:
            with pytest.raises(ConnectionError):
                await run_request(read_and_respond, tracker, server=server)

        tasks.start_soon(serve)
        await server.script_ended.wait()
        progress = await tracker.get(UPLOAD_ID, owner=ALICE)
        with pytest.raises(StoreUnavailable):
            await tracker.get("another", owner=ALICE)
        server.client_leaves.set()

    assert (progress.state, progress.bytes_transferred) == (UploadState.RECEIVING, 3)


@with_and_without_lifespan
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_stray_cancellation_of_a_driver_does_not_reach_uploads(lifespan: bool) -> None:
    """I2, R07: a driver raises CancelledError, as an inner task of it was cancelled."""
    tracker = ProgressTracker(
        store=FailingStore(raise_cancelled), publisher=FailingPublisher(raise_cancelled)
    )

    with anyio.fail_after(20):
        async with tracker_lifespan(tracker, lifespan):
            for _ in range(2):
                server = await run_request(
                    read_and_respond, tracker, messages=body_messages(b"abc")
                )
                assert (server.status, server.content) == (201, b"3")
            if lifespan:
                await wait_until(lambda: tracker.statistics().store_failures)
            assert tracker.is_running is lifespan


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancellation_during_a_store_call_is_raised() -> None:
    """H10: CancelledError is raised, not StoreUnavailable."""
    store = FailingStore(anyio.sleep_forever)
    task = asyncio.create_task(ProgressTracker(store=store).get(UPLOAD_ID, owner=ALICE))
    await wait_until(lambda: store.calls)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@frozen
class FailingPolicy(ThrottlePolicy):
    """A policy that raises once bytes have been received."""

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Raise an error."""
        raise ArithmeticError(received_bytes)


@with_and_without_lifespan
async def test_failing_policy_does_not_fail_uploads(lifespan: bool) -> None:
    """R07: its errors are isolated; the end of the upload is still published."""
    tracker = ProgressTracker(policy=FailingPolicy())

    async def read_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_report() -> Message:
            message = await receive()
            await internals_of(tracker).flusher.flush(everything=True)
            return message

        await read_and_respond(scope, receive_and_report, send)

    async with tracker_lifespan(tracker, lifespan):
        for upload_id in (UPLOAD_ID, "the-next"):
            server = await run_request(
                read_slowly,
                tracker,
                scope=upload_scope(upload_id),
                messages=body_messages(b"abc"),
            )
            assert (server.status, server.content) == (201, b"3")
            assert (await wait_for_end(tracker, upload_id)).state is UploadState.COMPLETED


@define
class FailingClock:
    """A clock that can be made to raise."""

    works: bool = True

    def monotonic(self) -> float:
        """Return 0, or raise."""
        return 0.0

    def time(self) -> float:
        """Return 0, or raise."""
        if not self.works:
            raise ArithmeticError
        return 0.0


async def test_internal_failure_does_not_fail_the_upload(caplog: pytest.LogCaptureFixture) -> None:
    """R07, I2: the clock raises; one warning is logged, and the bytes are passed on."""
    clock = FailingClock()
    tracker = ProgressTracker(clock=clock)

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        clock.works = False
        await send_response(send, 200, str(1 + await read_body(receive)).encode())
        clock.works = True

    server = await run_request(app, tracker, messages=body_messages(b"a", b"b", b"c"))

    assert (server.status, server.content) == (200, b"3")
    assert caplog.messages == [
        "tracking an upload failed (ArithmeticError); uploads are not affected"
    ]


async def test_upload_without_lifespan_is_stored() -> None:
    """P06, H15: in a mounted application, or with ``lifespan="off"``: live, then stored."""
    tracker = ProgressTracker()
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for count in range(1, 4):
            await receive()
            progress = await tracker.get(UPLOAD_ID, owner=ALICE)
            seen.append((progress.state, progress.bytes_transferred, progress.percent))
            assert progress.bytes_transferred == count
        await read_and_respond(scope, receive, send)

    scope = upload_scope(length=3)
    await run_request(app, tracker, scope=scope, messages=body_messages(b"a", b"b", b"c"))

    assert seen == [(UploadState.RECEIVING, count, count * 1000 // 3 / 10) for count in (1, 2, 3)]
    await wait_until(lambda: tracker.statistics().live_uploads == 0)
    assert not tracker.is_running
    assert (await wait_for_end(tracker)).percent == 100.0


async def test_upload_without_lifespan_can_be_watched() -> None:
    """P06: watching runs the background work, and yields all states up to the end."""
    tracker = ProgressTracker()
    go = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        go.set()
        await read_and_respond(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: run_request(
                app, tracker, scope=upload_scope(length=4), messages=body_messages(b"ab", b"cd")
            )
        )
        await go.wait()
        with anyio.fail_after(20):
            states = [progress.state async for progress in tracker.watch(UPLOAD_ID, owner=ALICE)]

    assert states[-1] is UploadState.COMPLETED
    assert states == sorted(states, key=list(UploadState).index)


@pytest.mark.parametrize("startup", ["complete", "failed", "unsupported"])
async def test_lifespan_messages_are_passed_through(startup: str) -> None:
    """H15: complete, failed or unsupported: passed on; uploads are tracked in any case."""
    tracker = ProgressTracker()
    state: dict[str, object] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await read_and_respond(scope, receive, send)
        if startup == "unsupported":
            raise NotImplementedError
        await receive()
        scope["state"]["pool"] = 1
        return await send({"type": f"lifespan.startup.{startup}"})

    server = ScriptedServer([{"type": "lifespan.startup"}])
    lifespan: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    if startup == "unsupported":
        with pytest.raises(NotImplementedError):
            await run_request(app, tracker, scope=lifespan, server=server)
    else:
        await run_request(app, tracker, scope=lifespan, server=server)
    upload = await run_request(app, tracker, messages=body_messages(b"abc"))

    expected = [] if startup == "unsupported" else [{"type": f"lifespan.startup.{startup}"}]
    assert server.sent == expected
    assert state == ({} if startup == "unsupported" else {"pool": 1})
    assert upload.headers == PLAIN | ADDED_HEADERS
    assert (await wait_for_end(tracker)).state is UploadState.COMPLETED
