"""Promise I2: whatever fails or hangs behind the middleware, no upload is changed or held up."""

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
from upload_progress._model.cloudevents import CloudEvent
from upload_progress.asgi import current_upload
from upload_progress.throttling import Gate, ThrottlePolicy

pytestmark = pytest.mark.anyio

lifespans = pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])

PLAIN = {"content-type": "text/plain"}
OURS = {"upload-id": UPLOAD_ID, "link": f'</uploads/{UPLOAD_ID}/progress>; rel="status"'}


async def raising() -> None:
    raise OSError("gone")


async def cancelling() -> None:
    """Raise what waiting for a cancelled task raises, though nobody cancelled this one."""
    raise asyncio.CancelledError


async def sink(scope: Scope, receive: Receive, send: Send) -> None:
    upload = current_upload(scope)
    size = await read_body(receive)
    async with upload.stage("hashing", total=2) as stage:
        stage.advance()
        await checkpoint()
    await send_response(send, 201, str(size).encode())


Fault = Callable[[], Awaitable[object]]


@frozen
class Publisher:
    """A publisher that fails each time in the same way."""

    fault: Fault

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Fail."""
        await self.fault()


@lifespans
@pytest.mark.parametrize(
    ("store", "publisher"),
    [(raising, raising), (anyio.sleep_forever, None), (None, anyio.sleep_forever)],
    ids=["both raise", "the store hangs", "the broker hangs"],
)
async def test_no_store_and_no_broker_changes_an_upload(
    lifespan: bool, store: Fault | None, publisher: Fault | None
) -> None:
    """I2, S03: the same bytes, status and headers, sent before anything was waited for."""
    faulty = FailingStore(store) if store else MemoryStore()
    broker = Publisher(publisher) if publisher else None
    tracker = ProgressTracker(store=faulty, publisher=broker)
    waited: list[int] = []

    def failures() -> int:
        figures = tracker.statistics()
        return figures.store_failures + figures.publisher_failures

    class Watched(ScriptedServer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            waited.append(failures())

    server = Watched(body_messages(bytes(LARGE_BYTES), bytes(LARGE_BYTES), bytes(LARGE_BYTES)))
    with anyio.fail_after(4):
        async with tracker_lifespan(tracker, lifespan):
            await run_request(
                sink, tracker, scope=upload_scope(length=3 * LARGE_BYTES), server=server
            )

    assert (server.status, server.content) == (201, str(3 * LARGE_BYTES).encode())
    assert server.headers == PLAIN | OURS
    # A call that hangs fails after a second: none did meanwhile, so none was waited for.
    assert store is raising or waited == [0, 0]


@lifespans
async def test_what_is_received_here_is_shown_without_the_store(lifespan: bool) -> None:
    """I11, S01: reads of a live upload need no store; those of others say so."""
    tracker = ProgressTracker(store=FailingStore(raising))
    server = ScriptedServer(body_messages(b"abc")[:1])

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def serve() -> None:
            with pytest.raises(ConnectionError):
                await run_request(sink, tracker, server=server)

        tasks.start_soon(serve)
        await server.script_ended.wait()
        progress = await tracker.get(UPLOAD_ID, owner=ALICE)
        with pytest.raises(StoreUnavailable):
            await tracker.get("another", owner=ALICE)
        server.client_leaves.set()

    assert (progress.state, progress.bytes_transferred) == (UploadState.RECEIVING, 3)


@lifespans
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stray_cancellation_of_a_driver_reaches_no_upload(lifespan: bool) -> None:
    """I2, R07: a driver whose inner task was cancelled raises CancelledError at us."""
    tracker = ProgressTracker(store=FailingStore(cancelling), publisher=Publisher(cancelling))

    with anyio.fail_after(4):
        async with tracker_lifespan(tracker, lifespan):
            for _ in range(2):
                server = await run_request(sink, tracker, messages=body_messages(b"abc"))
                assert (server.status, server.content) == (201, b"3")
            if lifespan:
                await wait_until(lambda: tracker.statistics().store_failures)
            assert tracker.is_running is lifespan


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_is_meant_passes_a_driver() -> None:
    """H10: who is cancelled while a store hangs is cancelled, and not told of the store."""
    store = FailingStore(anyio.sleep_forever)
    task = asyncio.create_task(ProgressTracker(store=store).get(UPLOAD_ID, owner=ALICE))
    await wait_until(lambda: store.calls)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@frozen
class Poisonous(ThrottlePolicy):
    """A policy that works until bytes have come."""

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Fail once there are bytes."""
        raise ArithmeticError(received_bytes)


@lifespans
async def test_a_policy_that_raises_fails_no_upload(lifespan: bool) -> None:
    """R07: a user's callback is isolated; the upload's end is told nevertheless."""
    tracker = ProgressTracker(policy=Poisonous())

    async with tracker_lifespan(tracker, lifespan):
        for upload_id in (UPLOAD_ID, "the-next"):
            server = await run_request(
                sink, tracker, scope=upload_scope(upload_id), messages=body_messages(b"abc")
            )
            assert (server.status, server.content) == (201, b"3")
            assert (await wait_for_end(tracker, upload_id)).state is UploadState.COMPLETED


@define
class Broken:
    """A clock that stops working."""

    works: bool = True

    def monotonic(self) -> float:
        """Return the time, as long as it works."""
        return 0.0

    def time(self) -> float:
        """Return the time, as long as it works."""
        if not self.works:
            raise ArithmeticError
        return 0.0


async def test_whatever_breaks_in_here_breaks_no_upload(caplog: pytest.LogCaptureFixture) -> None:
    """R07, I2: even the clock; it is said once, and the bytes go on."""
    clock = Broken()
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


async def test_without_lifespan_nothing_is_left_when_an_upload_is_over() -> None:
    """P06, H15: mounted below, or ``lifespan="off"``: live, stored at the end, no task stays."""
    tracker = ProgressTracker()
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for count in range(1, 4):
            await receive()
            progress = await tracker.get(UPLOAD_ID, owner=ALICE)
            seen.append((progress.state, progress.bytes_transferred, progress.percent))
            assert progress.bytes_transferred == count
        await sink(scope, receive, send)

    scope = upload_scope(length=3)
    await run_request(app, tracker, scope=scope, messages=body_messages(b"a", b"b", b"c"))

    assert seen == [(UploadState.RECEIVING, count, count * 1000 // 3 / 10) for count in (1, 2, 3)]
    assert tracker.statistics().live_uploads == 0
    assert not tracker.is_running
    assert (await wait_for_end(tracker)).percent == 100.0


async def test_without_lifespan_a_watcher_sees_each_tenth() -> None:
    """P06: who watches does the work, and hears it all, the end last."""
    tracker = ProgressTracker()
    go = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        go.set()
        await sink(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: run_request(
                app, tracker, scope=upload_scope(length=4), messages=body_messages(b"ab", b"cd")
            )
        )
        await go.wait()
        with anyio.fail_after(5):
            states = [progress.state async for progress in tracker.watch(UPLOAD_ID, owner=ALICE)]

    assert states[-1] is UploadState.COMPLETED
    assert states == sorted(states, key=list(UploadState).index)


@pytest.mark.parametrize("startup", ["complete", "failed", "unsupported"])
async def test_the_lifespan_protocol_is_the_applications(startup: str) -> None:
    """H15: normal, failing, unsupported: passed on; uploads are followed all the same."""
    tracker = ProgressTracker()
    state: dict[str, object] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await sink(scope, receive, send)
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
    assert upload.headers == PLAIN | OURS
    assert (await wait_for_end(tracker)).state is UploadState.COMPLETED
