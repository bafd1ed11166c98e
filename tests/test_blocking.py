"""Tasks without ``async``: they go on with uploads in threads, with and without a lifespan."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio import to_thread

from tests._support.simulation import deadline
from upload_progress import (
    ErrorCode,
    InvalidValue,
    ProgressTracker,
    UploadCancelled,
    UploadProgress,
    UploadState,
)
from upload_progress._background import ThreadPortal
from upload_progress.blocking import BlockingUpload

pytestmark = pytest.mark.anyio

S = UploadState


async def receive(tracker: ProgressTracker, upload_id: str = "up") -> str:
    """Receive an upload of Ann; return its token."""
    async with tracker.track(owner="ann", upload_id=upload_id, total_bytes=10) as upload:
        upload.advance(10)
        return await upload.hand_over()


async def snapshots_of(tracker: ProgressTracker) -> list[UploadProgress]:
    """Return what the owner sees until the end."""
    return [snapshot async for snapshot in tracker.watch("up", owner="ann")]


async def end_of(tracker: ProgressTracker) -> tuple[int, UploadState, ErrorCode | None]:
    """Return attempt, state and error of the upload."""
    end = await tracker.get("up", owner="ann")
    return end.attempt, end.state, None if end.error is None else end.error.code


@asynccontextmanager
async def running(tracker: ProgressTracker) -> AsyncIterator[str]:
    """Run the tracker, which has received an upload, while the block runs; return the token."""
    with deadline():
        async with tracker.lifespan():
            yield await receive(tracker)


async def test_thread_of_the_same_process_reports() -> None:
    tracker, seen = ProgressTracker(), list[UploadProgress]()

    def process(token: str) -> None:
        with tracker.resume_blocking(token) as upload:
            with upload.stage("scanning", total=4) as stage:
                stage.advance(4)
                with upload.stage("a detail"):
                    assert (upload.state, upload.is_cancelled) == (S.PROCESSING, False)
            upload.stored(7)
            upload.set(
                metadata={"pages": 1}, filename="a.txt", content_type="text/plain", group="g"
            )
            assert upload.snapshot().filename == "a.txt"
            assert repr(upload) == "<Upload up processing 10 bytes>"
            assert (upload.upload_id, upload.is_tracked) == ("up", True)

    async with running(tracker) as token, anyio.create_task_group() as tasks:

        async def watch() -> None:
            seen.extend(await snapshots_of(tracker))

        tasks.start_soon(watch)
        await to_thread.run_sync(process, token)
    assert (seen[-1].state, seen[-1].stored_bytes) == (S.COMPLETED, 7)
    assert (seen[-1].metadata, seen[-1].content_type, seen[-1].group) == (
        {"pages": 1},
        "text/plain",
        "g",
    )


def test_threads_without_a_lifespan_share_one_event_loop() -> None:
    tracker, inside = ProgressTracker(), threading.Barrier(3)
    tokens = [anyio.run(receive, tracker, f"up{number}") for number in range(3)]

    def process(token: str) -> None:
        with tracker.resume_blocking(token):
            inside.wait(10)

    threads = [threading.Thread(target=process, args=(token,)) for token in tokens]
    before = threading.active_count()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    async def states() -> list[UploadState]:
        return [(await tracker.get(f"up{n}", owner="ann")).state for n in range(3)]

    assert anyio.run(states) == [S.COMPLETED] * 3
    assert threading.active_count() == before
    assert not tracker.is_running


async def test_task_that_raises_may_try_again() -> None:
    tracker = ProgressTracker()

    def process(token: str, error: BaseException) -> None:
        with tracker.resume_blocking(token):
            raise error

    async with running(tracker) as token:
        for number, error in enumerate([OSError("broken"), SystemExit(3)], start=1):
            with pytest.raises(type(error)) as raised:
                await to_thread.run_sync(process, token, error)
            assert raised.value is error
            assert await end_of(tracker) == (number, S.FAILED, ErrorCode.APP_ERROR)


async def test_task_rejects_an_upload() -> None:
    tracker = ProgressTracker()

    def process(token: str) -> None:
        with tracker.resume_blocking(token) as upload:
            upload.fail("a virus")

    async with running(tracker) as token:
        await to_thread.run_sync(process, token)
        assert await end_of(tracker) == (1, S.FAILED, ErrorCode.REJECTED)


@pytest.mark.parametrize("has_callback", [True, False], ids=["callback", "no callback"])
async def test_owner_cancels(*, has_callback: bool) -> None:
    tracker, entered, called = ProgressTracker(), threading.Event(), threading.Event()
    calls = list[str]()

    def on_cancel() -> None:
        calls.append(threading.current_thread().name)
        called.set()

    def process(token: str) -> None:
        with tracker.resume_blocking(token, on_cancel=on_cancel if has_callback else None) as each:
            entered.set()
            assert called.wait(10)
            assert each.is_cancelled

    async def cancel() -> None:
        await to_thread.run_sync(entered.wait, 10)
        await tracker.cancel("up", owner="ann")
        if not has_callback:
            called.set()

    async with running(tracker) as token, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        with pytest.raises(UploadCancelled):
            await to_thread.run_sync(process, token)
        assert await end_of(tracker) == (1, S.CANCELLED, ErrorCode.CANCELLED_BY_OWNER)
    assert len(calls) == has_callback
    assert threading.current_thread().name not in calls


async def test_lifespan_that_is_left_fails_the_upload_of_a_block() -> None:
    """The process stops. The block goes on, and reports nothing more."""
    tracker, entered, left = ProgressTracker(), threading.Event(), threading.Event()
    uploads = list[BlockingUpload]()

    def process(token: str) -> None:
        with tracker.resume_blocking(token) as upload:
            uploads.append(upload)
            entered.set()
            assert left.wait(10)
            upload.fail("too late")
            with upload.stage("scanning", total=1) as stage:
                stage.advance()

    async with anyio.create_task_group() as tasks:
        async with running(tracker) as token:
            tasks.start_soon(partial(to_thread.run_sync, process, token))
            await to_thread.run_sync(entered.wait, 10)
        assert await end_of(tracker) == (1, S.FAILED, ErrorCode.APP_ERROR)
        left.set()
    assert uploads[0].state is S.FAILED


def test_text_that_is_no_token_leaves_no_thread() -> None:
    tracker, before = ProgressTracker(), threading.active_count()
    with pytest.raises(InvalidValue, match="token"):
        ExitStack().enter_context(tracker.resume_blocking("no"))
    assert threading.active_count() == before


class Broken(AbstractAsyncContextManager[None]):
    """A lifespan that cannot begin."""

    async def __aenter__(self) -> None:
        raise OSError("broken")

    async def __aexit__(self, *_error: object) -> None:
        """Do nothing: it is never entered."""


def test_event_loop_that_cannot_start_leaves_no_thread() -> None:
    portal, before = ThreadPortal(), threading.active_count()
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            ExitStack().enter_context(portal.open(Broken))
    assert threading.active_count() == before
