"""Uploads whose processing goes on in a task of another process, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import anyio
import pytest
from attrs import define

from tests._support.hand_over_cluster import Cluster, both_loops, run_cluster
from tests._support.protocol_apps import (
    ContentRangeApp,
    ResponseHead,
    ScriptedApp,
    send_request,
)
from tests._support.scripted_server import (
    ALICE,
    Receive,
    Scope,
    Send,
    body_messages,
    run_request,
    upload_scope,
)
from tests._support.simulation import assert_monotonic
from upload_progress import (
    ErrorCode,
    InvalidValue,
    NotHandedOver,
    ProgressTracker,
    StoreUnavailable,
    TransferRecord,
    Upload,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress._tracking.hand_over import make_token
from upload_progress.asgi import current_upload
from upload_progress.connection import Connection
from upload_progress.identity import Identity

S = UploadState


@both_loops
def test_task_goes_on_with_an_upload(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        seen = list[UploadProgress]()

        async def watch() -> None:
            async for snapshot in cluster.other.watch("up", owner=ALICE):
                seen.append(snapshot)  # as they come

        token = await cluster.receive()
        waiting = await cluster.shown()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.sleep(100)
            async with (
                cluster.task.resume(token) as upload,
                upload.stage("scanning", total=4) as stage,
            ):
                upload.set(metadata={"pages": 3})
                for _ in range(4):
                    await anyio.sleep(30)
                    stage.advance()

        assert (waiting.state, waiting.stage, waiting.finished_at) == (S.PROCESSING, None, None)
        assert_monotonic(seen)
        assert [each.state for each in seen] == [S.PROCESSING] * (len(seen) - 1) + [S.COMPLETED]
        assert {each.stage.done for each in seen if each.stage} == {0, 1, 2, 3}
        assert {each.attempt for each in seen} == {1}
        end = await cluster.shown()
        assert end == seen[-1]
        assert (end.bytes_transferred, end.total_bytes, end.percent) == (10, 10, 100.0)
        assert end.metadata == {"pages": 3}
        assert (end.started_at, end.last_byte_at) == (waiting.started_at, waiting.last_byte_at)
        assert not len(internals_of(cluster.web).registry)
        assert not len(internals_of(cluster.task).registry)

    run_cluster(main, backend)


@define
class Endpoint:
    """Reads the body, hands over, and answers with a status, or raises an exception."""

    answer: int | Exception
    token: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = ScriptedApp(responses=[])
        app.files["body"] = bytearray()
        await app.append("body", receive)
        upload = current_upload(scope)
        self.token = await upload.hand_over()
        if isinstance(self.answer, Exception):
            raise self.answer
        await send({"type": "http.response.start", "status": self.answer, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def request(cluster: Cluster, endpoint: Endpoint) -> None:
    """Send an upload to the first worker."""
    await run_request(
        endpoint, cluster.web, scope=upload_scope("up"), messages=body_messages(b"0123456789")
    )


@pytest.mark.parametrize("status", [200, 202, 303])
def test_answer_that_accepts_hands_over(status: int) -> None:
    async def main(cluster: Cluster) -> None:
        endpoint = Endpoint(status)
        await request(cluster, endpoint)
        assert (await cluster.shown()).state is S.PROCESSING
        async with cluster.task.resume(endpoint.token):
            pass
        assert (await cluster.shown()).state is S.COMPLETED

    run_cluster(main, "asyncio")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (500, ErrorCode.REJECTED),
        (422, ErrorCode.REJECTED),
        (OSError("broken"), ErrorCode.APP_ERROR),
    ],
    ids=["500", "422", "exception"],
)
def test_answer_that_does_not_accept_ends_the_upload(
    answer: int | Exception, code: ErrorCode
) -> None:
    """What the application has not accepted, no task goes on with."""

    async def main(cluster: Cluster) -> None:
        endpoint = Endpoint(answer)
        if isinstance(answer, Exception):
            with pytest.raises(OSError, match="broken"):
                await request(cluster, endpoint)
        else:
            await request(cluster, endpoint)
        end = await cluster.shown()
        assert end.error is not None
        assert (end.state, end.error.code) == (S.FAILED, code)
        with pytest.raises(UploadEnded, match="it is failed"):
            await AsyncExitStack().enter_async_context(cluster.task.resume(endpoint.token))

    run_cluster(main, "asyncio")


@both_loops
def test_task_that_is_faster_than_the_answer_waits(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        began_at = list[float]()

        async def process(token: str) -> None:
            async with cluster.task.resume(token):
                began_at.append(anyio.current_time())

        async with (
            anyio.create_task_group() as tasks,
            cluster.web.track(owner=ALICE, upload_id="up") as upload,
        ):
            tasks.start_soon(process, await upload.hand_over())
            await anyio.sleep(20)
            answered_at = anyio.current_time()
        assert answered_at < began_at[0] < answered_at + 2
        assert (await cluster.shown()).state is S.COMPLETED

    run_cluster(main, backend)


@both_loops
def test_task_does_not_wait_for_ever_for_an_answer(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.web.track(owner=ALICE, upload_id="up") as upload:
            with pytest.raises(NotHandedOver):
                await AsyncExitStack().enter_async_context(
                    cluster.task.resume(await upload.hand_over())
                )
            assert 29 < anyio.current_time() < 35

    run_cluster(main, backend)


def test_second_hand_over_returns_the_same_token() -> None:
    async def main(cluster: Cluster) -> None:
        async with cluster.web.track(owner=ALICE, upload_id="up") as upload:
            tokens = {await upload.hand_over(), await upload.hand_over(expires_seconds=60)}
        assert len(tokens) == 1
        await anyio.sleep(30)
        assert (await cluster.shown()).state is S.PROCESSING
        await anyio.sleep(40)
        assert (await cluster.shown()).state is S.FAILED

    run_cluster(main, "asyncio")


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan")])
def test_upload_waits_for_a_second_to_a_day(seconds: float) -> None:
    async def main(cluster: Cluster) -> None:
        with pytest.raises(InvalidValue, match="expires_seconds"):
            await cluster.receive(expires_seconds=seconds)

    run_cluster(main, "asyncio")


def test_record_has_no_token() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        secret = token.partition(".")[0]
        await cluster.shown()
        [record] = await cluster.memory.load(UploadKey(ALICE.id, "up"))
        assert secret not in repr(record)

    run_cluster(main, "asyncio")


# --- ends -----------------------------------------------------------------------------------------


@both_loops
def test_task_that_raises_fails_the_upload_and_may_try_again(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.fail(token, OSError())
        failed = await cluster.shown()
        async with cluster.other.resume(token):
            again = await cluster.shown()
        end = await cluster.shown()
        with pytest.raises(UploadEnded, match="it is completed"):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

        assert failed.error is not None
        assert (failed.attempt, failed.state, failed.error.code) == (
            1,
            S.FAILED,
            ErrorCode.APP_ERROR,
        )
        assert (again.attempt, again.state, again.error) == (2, S.PROCESSING, None)
        assert (again.bytes_transferred, again.finished_at) == (10, None)
        assert (end.attempt, end.state) == (2, S.COMPLETED)

    run_cluster(main, backend)


def test_task_that_rejects_the_upload_does_not_try_again() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token) as upload:
            upload.fail("a virus")
        end = await cluster.shown()
        assert end.error is not None
        assert (end.state, end.error.code) == (S.FAILED, ErrorCode.REJECTED)
        assert end.error.message == "a virus"
        with pytest.raises(UploadEnded, match="it is failed"):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

    run_cluster(main, "asyncio")


@both_loops
def test_task_that_its_server_stops_may_try_again(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        with anyio.move_on_after(1):
            async with cluster.task.resume(token):
                await anyio.sleep_forever()
        end = await cluster.shown()
        assert end.error is not None
        assert (end.state, end.error.code) == (S.FAILED, ErrorCode.APP_ERROR)
        async with cluster.task.resume(token):
            pass
        assert (await cluster.shown()).state is S.COMPLETED

    run_cluster(main, backend)


async def cancel_while_processing(cluster: Cluster, token: str) -> None:
    """Resume an upload that its owner cancels at another worker."""
    async with cluster.task.resume(token), anyio.create_task_group() as tasks:
        tasks.start_soon(partial(cluster.other.cancel, "up", owner=ALICE))
        await anyio.sleep_forever()


@both_loops
def test_owner_cancels_a_task(backend: str) -> None:
    """From another worker; the block is cancelled, and no task goes on with the upload."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        with pytest.raises(UploadCancelled):
            await cancel_while_processing(cluster, token)
        assert anyio.current_time() < 5
        assert (await cluster.shown()).state is S.CANCELLED
        with pytest.raises(UploadCancelled):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

    run_cluster(main, backend)


@pytest.mark.parametrize("waits", [True, False], ids=["stored", "not stored yet"])
def test_owner_cancels_before_a_task_has_begun(waits: bool) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        if waits:
            await cluster.shown()
        cancelled = await cluster.web.cancel("up", owner=ALICE)
        assert cancelled.state is S.CANCELLED
        assert anyio.current_time() < 2
        assert (await cluster.shown()).state is S.CANCELLED
        with pytest.raises(UploadCancelled):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

    run_cluster(main, "asyncio")


@both_loops
def test_upload_without_a_task_expires(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive(expires_seconds=600)
        await anyio.sleep(595)
        assert (await cluster.shown()).state is S.PROCESSING
        await anyio.sleep(20)
        end = await cluster.shown()
        assert end.error is not None
        assert (end.state, end.error.code) == (S.FAILED, ErrorCode.EXPIRED)
        with pytest.raises(UploadEnded, match="it is failed"):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

    run_cluster(main, backend)


@both_loops
def test_upload_of_a_dead_task_fails_and_the_next_one_goes_on(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with AsyncExitStack() as dead:
            await dead.enter_async_context(cluster.task.resume(token))
            await anyio.sleep(100)
            assert (await cluster.shown()).state is S.PROCESSING
            cluster.connection.fault = "raise"
            await anyio.sleep(19)
            lost = await cluster.shown()
            async with cluster.other.resume(token) as upload:
                assert (await cluster.shown()).attempt == 2
                # The dead one comes back: the upload is no longer its own.
                cluster.connection.fault = None
                await anyio.sleep(100)
                assert upload.state is S.PROCESSING
        assert lost.error is not None
        assert (lost.attempt, lost.state, lost.error.code) == (1, S.FAILED, ErrorCode.WORKER_LOST)
        end = await cluster.shown()
        assert (end.attempt, end.state) == (2, S.COMPLETED)

    run_cluster(main, backend)


def test_task_that_was_taken_for_dead_goes_on_as_the_next_attempt() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token) as upload:
            cluster.connection.fault = "raise"
            await anyio.sleep(30)
            assert (await cluster.shown()).state is S.FAILED
            cluster.connection.fault = None
            await anyio.sleep(20)
            assert (await cluster.shown()).state is S.PROCESSING
            upload.set(filename="a")
        end = await cluster.shown()
        assert (end.attempt, end.state, end.bytes_transferred) == (2, S.COMPLETED, 10)

    run_cluster(main, "asyncio")


@pytest.mark.parametrize("is_same", [True, False], ids=["same process", "other process"])
@both_loops
def test_last_of_two_tasks_reports(backend: str, *, is_same: bool) -> None:
    """A queue has started a task again that still runs."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token) as older:
            async with (cluster.task if is_same else cluster.other).resume(token):
                older.fail("too slow")
                seen = await cluster.shown()
            end = await cluster.shown()
        assert (seen.attempt, seen.state) == (2, S.PROCESSING)
        assert end == await cluster.shown()
        assert (end.attempt, end.state) == (2, S.COMPLETED)

    run_cluster(main, backend)


def test_of_tasks_that_resume_at_once_each_is_an_attempt() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        running = list[Upload]()

        async def process(tracker: ProgressTracker) -> None:
            async with tracker.resume(token) as upload:
                running.append(upload)
                await anyio.sleep(5)

        async with anyio.create_task_group() as tasks:
            for tracker in (cluster.task, cluster.other):
                tasks.start_soon(process, tracker)
        assert sorted(each.snapshot().attempt for each in running) == [1, 2]
        end = await cluster.shown()
        assert (end.attempt, end.state) == (2, S.COMPLETED)

    run_cluster(main, "asyncio")


def test_task_that_loses_a_race_is_the_next_attempt() -> None:
    """Another task has taken over the record between its read and its write."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        save = cluster.connection.save

        async def save_late(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
            cluster.connection.save = save  # type: ignore[method-assign]  # for one call
            await internals_of(cluster.other).hand_overs.resume(token)
            return await save(records)

        cluster.connection.save = save_late  # type: ignore[method-assign]  # for one call
        async with cluster.task.resume(token) as upload:
            assert upload.snapshot().attempt == 2
        end = await cluster.shown()
        assert (end.attempt, end.state) == (2, S.COMPLETED)

    run_cluster(main, "asyncio")


def test_task_hands_over_to_another_task() -> None:
    async def main(cluster: Cluster) -> None:
        first = await cluster.receive()
        async with cluster.task.resume(first) as upload:
            second = await upload.hand_over(expires_seconds=60)
        between = await cluster.shown()
        with pytest.raises(NotHandedOver):
            await AsyncExitStack().enter_async_context(cluster.task.resume(first))
        async with cluster.other.resume(second):
            pass
        end = await cluster.shown()
        assert (between.state, between.attempt) == (S.PROCESSING, 1)
        assert (end.state, end.attempt, end.bytes_transferred) == (S.COMPLETED, 1, 10)

    run_cluster(main, "asyncio")


async def pass_on_and_fail(cluster: Cluster, token: str, seen: list[UploadProgress]) -> None:
    """Run a task that passes three bytes on, and raises."""
    async with cluster.task.resume(token) as upload:
        upload.stored(3)
        seen.append(await cluster.shown())
        raise OSError("broken")


def test_task_goes_on_to_count_what_was_passed_on() -> None:
    """A task that tries again passes everything on again."""

    async def main(cluster: Cluster) -> None:
        async with cluster.web.track(owner=ALICE, upload_id="up", total_bytes=10) as upload:
            upload.advance(10)
            upload.stored(4)
            token = await upload.hand_over()
        seen = [await cluster.shown()]
        with pytest.raises(OSError, match="broken"):
            await pass_on_and_fail(cluster, token, seen)
        seen.append(await cluster.shown())
        async with cluster.task.resume(token) as upload:
            seen.append(await cluster.shown())
            upload.stored(10)
        seen.append(await cluster.shown())
        assert [each.stored_bytes for each in seen] == [4, 7, 7, None, 10]

    run_cluster(main, "asyncio")


# --- several requests -----------------------------------------------------------------------------


@define(eq=False)
class HandingOver(ContentRangeApp):
    """Hands over each upload that is whole."""

    token: str = ""

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        status, headers = await super().respond(scope, receive)
        if status == 200:
            self.token = await current_upload(scope).hand_over()
        return status, headers


async def send_in_two_requests(cluster: Cluster) -> str:
    """Send an upload of 10 bytes to two workers; return its token."""
    app = HandingOver()
    for tracker, start, stop in [(cluster.web, 0, 4), (cluster.other, 4, 10)]:
        headers = {"content-range": f"bytes {start}-{stop - 1}/10", "upload-id": "up"}
        await send_request(app, tracker, "PUT", "/a", headers=headers, content=bytes(stop - start))
        await anyio.sleep(0.3)
    return app.token


@both_loops
def test_upload_in_several_requests_is_handed_over(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await send_in_two_requests(cluster)
        waiting = await cluster.shown()
        await cluster.fail(token, OSError())
        failed = await cluster.shown()
        async with cluster.task.resume(token) as upload:
            again = await cluster.shown()
            assert upload.received_bytes == 10
        end = await cluster.shown()

        seen = [waiting, failed, again, end]
        assert [each.state for each in seen] == [S.PROCESSING, S.FAILED, S.PROCESSING, S.COMPLETED]
        assert [each.attempt for each in seen] == [1, 1, 2, 2]
        assert {(each.bytes_transferred, each.total_bytes) for each in seen} == {(10, 10)}
        assert {each.retransmitted_bytes for each in seen} == {0}

    run_cluster(main, backend)


@pytest.mark.parametrize("number", [0, 1], ids=["own record", "record of another"])
def test_late_request_changes_nothing_of_what_a_task_has(number: int) -> None:
    """A client asks whether all has arrived, at each of the workers that have received it."""

    async def main(cluster: Cluster) -> None:
        token = await send_in_two_requests(cluster)
        tracker = (cluster.other, cluster.web)[number]
        async with cluster.task.resume(token):
            headers = {"content-range": "bytes */10", "upload-id": "up"}
            app = ScriptedApp(responses=[(200, {})])
            await send_request(app, tracker, "PUT", "/a", headers=headers)
            during = await cluster.shown()
        end = await cluster.shown()
        assert (during.state, during.attempt, during.bytes_transferred) == (S.PROCESSING, 1, 10)
        assert (end.state, end.attempt, end.bytes_transferred) == (S.COMPLETED, 1, 10)

    run_cluster(main, "asyncio")


def test_task_of_an_upload_in_several_requests_that_was_taken_for_dead_goes_on() -> None:
    async def main(cluster: Cluster) -> None:
        token = await send_in_two_requests(cluster)
        async with cluster.task.resume(token):
            cluster.connection.fault = "raise"
            await anyio.sleep(30)
            lost = await cluster.shown()
            cluster.connection.fault = None
            await anyio.sleep(20)
            again = await cluster.shown()
        end = await cluster.shown()
        seen = [lost, again, end]
        assert [each.state for each in seen] == [S.FAILED, S.PROCESSING, S.COMPLETED]
        assert [each.attempt for each in seen] == [1, 2, 2]
        assert {each.bytes_transferred for each in seen} == {10}

    run_cluster(main, "asyncio")


def test_next_upload_at_the_address_begins_while_a_task_has_the_one_before() -> None:
    async def main(cluster: Cluster) -> None:
        token = await send_in_two_requests(cluster)
        async with cluster.task.resume(token):
            await anyio.sleep(3)
            again = await send_in_two_requests(cluster)
            assert (await cluster.shown()).attempt == 2
        async with cluster.task.resume(again):
            pass
        end = await cluster.shown()
        assert (end.state, end.attempt, end.bytes_transferred) == (S.COMPLETED, 2, 10)

    run_cluster(main, "asyncio")


# --- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.!", "a.WzFd", f"a.{'b' * 4096}"])
def test_text_that_is_no_token(token: str) -> None:
    async def main(cluster: Cluster) -> None:
        with pytest.raises(InvalidValue, match="token"):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))

    run_cluster(main, "asyncio")


@both_loops
def test_token_of_an_upload_that_is_gone(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token):
            pass
        await anyio.sleep(70)
        with pytest.raises(UploadNotFound):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))
        assert anyio.current_time() < 80

    run_cluster(main, backend)


def test_token_is_bound_to_one_upload() -> None:
    """Also one that was made for the same upload by somebody else opens nothing."""

    async def main(cluster: Cluster) -> None:
        await cluster.receive()
        live = internals_of(cluster.web).registry.find(ALICE.id, "up")
        assert live is not None
        with pytest.raises(NotHandedOver):
            await AsyncExitStack().enter_async_context(cluster.task.resume(make_token(live.key)))
        assert (await cluster.shown()).state is S.PROCESSING

    run_cluster(main, "asyncio")


def test_newer_upload_of_the_same_id_takes_the_place() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token) as older:
            async with cluster.other.track(owner=ALICE, upload_id="up", total_bytes=7) as newer:
                newer.advance(7)
                await anyio.sleep(1)
                with pytest.raises(NotHandedOver):
                    await AsyncExitStack().enter_async_context(cluster.task.resume(token))
            older.fail("too late")
        end = await cluster.shown()
        assert (end.attempt, end.state, end.bytes_transferred) == (2, S.COMPLETED, 7)

    run_cluster(main, "asyncio")


def test_store_that_is_away_is_an_error_of_the_task() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        cluster.connection.fault = "raise"
        with pytest.raises(StoreUnavailable):
            await AsyncExitStack().enter_async_context(cluster.task.resume(token))
        cluster.connection.fault = None
        async with cluster.task.resume(token):
            pass
        assert (await cluster.shown()).state is S.COMPLETED

    run_cluster(main, "asyncio")


def nobody(_connection: Connection) -> None:
    """Authenticate nobody."""


def test_token_of_an_upload_that_is_not_tracked_reports_nothing() -> None:
    """A task needs no condition for it."""

    async def main(cluster: Cluster) -> None:
        endpoint = Endpoint(202)
        await run_request(
            endpoint,
            cluster.web,
            scope=upload_scope("up"),
            messages=body_messages(b"01"),
            authenticate=nobody,
        )
        async with (
            cluster.task.resume(endpoint.token) as upload,
            upload.stage("scanning", total=1) as stage,
        ):
            stage.advance()
        assert not upload.is_tracked
        assert not len(cluster.memory)

    run_cluster(main, "asyncio")


def test_hand_over_waits_for_the_owner() -> None:
    async def authenticate_slowly(_connection: Connection) -> Identity:
        await anyio.sleep(2)
        return ALICE

    async def main(cluster: Cluster) -> None:
        endpoint = Endpoint(202)
        await run_request(
            endpoint,
            cluster.web,
            scope=upload_scope("up"),
            messages=body_messages(b"01"),
            authenticate=authenticate_slowly,
        )
        async with cluster.task.resume(endpoint.token):
            assert (await cluster.shown()).state is S.PROCESSING
        assert (await cluster.shown()).state is S.COMPLETED

    run_cluster(main, "asyncio")
