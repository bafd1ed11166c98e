"""Uploads in several requests, through the middleware, are reported as one upload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from tests._support.protocol_apps import (
    ContentRangeApp,
    IetfApp,
    OciApp,
    S3App,
    TusApp,
    send_request,
    upload_id_of,
)
from tests._support.scripted_server import ALICE, Message, ScriptedServer, body_messages, wait_until
from upload_progress import Identity, MemoryStore, ProgressTracker, UploadProgress, UploadState

pytestmark = pytest.mark.anyio

S = UploadState
TUS = {"tus-resumable": "1.0.0"}
NAMED = {"upload-id": "named-by-the-client"}
XML = {"content-type": "application/xml"}
OFFSET_OCTET_STREAM = {"content-type": "application/offset+octet-stream"}


def interrupted_body(*chunks: bytes) -> list[Message]:
    """Return the messages of a body that ends with a disconnect."""
    return [*body_messages(*chunks)[:-1], {"type": "http.disconnect"}]


@pytest.fixture
async def workers() -> AsyncIterator[list[ProgressTracker]]:
    """Return the trackers of two workers that share a store."""
    store = MemoryStore()
    trackers = [ProgressTracker(store=store) for _ in range(2)]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        yield trackers


async def uploads(tracker: ProgressTracker) -> list[UploadProgress]:
    """Return all uploads of Alice."""
    return list((await tracker.list(owner=ALICE, states=set(S))).uploads)


async def only_upload(
    trackers: list[ProgressTracker], state: UploadState | None = None
) -> UploadProgress:
    """Return Alice's only upload, once all workers report it in *state*."""
    shown: list[UploadProgress] = []

    with anyio.fail_after(10):
        while True:
            shown = [each for tracker in trackers for each in await uploads(tracker)]
            if len({each.upload_id for each in shown}) == 1 and all(
                state in {None, each.state} for each in shown
            ):
                return shown[0]
            await anyio.sleep(0.01)


async def wait_until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *condition* holds, checked periodically."""
    with anyio.fail_after(10):
        holds = False
        while not holds:
            await anyio.sleep(0.01)
            holds = await condition()


async def create(app: TusApp, tracker: ProgressTracker, length: int | None) -> str:
    size = {"upload-defer-length": "1"} if length is None else {"upload-length": str(length)}
    named = {"upload-metadata": "filetype YQ==,filename d29ybGQudHh0"}
    server = await send_request(app, tracker, "POST", "/files", headers={**TUS, **size, **named})
    assert server.status == 201
    return server.headers["location"].removeprefix("http://example.org")


async def patch(
    app: TusApp, tracker: ProgressTracker, path: str, offset: int, content: bytes
) -> ScriptedServer:
    headers = {**TUS, **OFFSET_OCTET_STREAM, "upload-offset": str(offset)}
    return await send_request(app, tracker, "PATCH", path, headers=headers, content=content)


async def test_tus_on_two_workers_is_one_upload(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], 30)
    created = await only_upload(workers, S.PENDING)
    assert (created.filename, created.total_bytes) == ("world.txt", 30)

    ids = {
        upload_id_of(await patch(app, workers[index % 2], path, 10 * index, b"x" * 10))
        for index in range(3)
    }

    done = await only_upload(workers, S.COMPLETED)
    assert ids == {done.upload_id} == {created.upload_id}
    assert (done.bytes_transferred, done.total_bytes, done.percent) == (30, 30, 100.0)
    assert (done.retransmitted_bytes, done.attempt, done.parts) == (0, 1, None)
    assert done.filename == "world.txt"


async def test_tus_resumes_at_the_offset_of_the_server(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], 30)
    headers = {**TUS, **OFFSET_OCTET_STREAM, "upload-offset": "0"}
    await send_request(
        app,
        workers[0],
        "PATCH",
        path,
        headers=headers,
        messages=interrupted_body(b"x" * 10, b"y" * 5),
    )
    paused = await only_upload(workers, S.PAUSED)
    assert paused.bytes_transferred == 15
    assert paused.error is None

    del app.files[path][12:]
    await patch(app, workers[1], path, 12, b"z" * 18)

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.retransmitted_bytes, done.attempt) == (30, 3, 1)


async def test_refused_offset_is_not_counted(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], 30)
    await patch(app, workers[0], path, 0, b"x" * 10)
    for offset in (5, 20, 2**63, 0):
        refused = await patch(app, workers[1], path, offset, b"y" * 20)
        assert refused.status == 409
        shown = await only_upload(workers)
        assert not shown.finished_at

    await patch(app, workers[0], path, 10, b"z" * 20)

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (30, 30)


async def test_deferred_length_is_used(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], None)
    await patch(app, workers[0], path, 0, b"x" * 10)
    assert (await only_upload(workers)).total_bytes is None
    headers = {**TUS, **OFFSET_OCTET_STREAM, "upload-offset": "10", "upload-length": "20"}
    await send_request(app, workers[1], "PATCH", path, headers=headers, content=b"y" * 10)

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (20, 20)


async def test_creation_with_upload_keeps_its_id(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    headers = {**TUS, **OFFSET_OCTET_STREAM, "upload-length": "20"}
    first = await send_request(
        app, workers[0], "POST", "/files", headers=headers, content=b"x" * 10
    )
    last = await patch(app, workers[0], "/files/0", 10, b"y" * 10)

    done = await only_upload(workers, S.COMPLETED)
    assert upload_id_of(first) == upload_id_of(last) == done.upload_id
    assert done.bytes_transferred == 20


async def create_part(app: TusApp, tracker: ProgressTracker, length: int) -> str:
    """Create a partial upload of the upload ``NAMED``; return its path."""
    headers = {**TUS, **NAMED, "upload-length": str(length), "upload-concat": "partial"}
    server = await send_request(app, tracker, "POST", "/files", headers=headers)
    assert upload_id_of(server) == NAMED["upload-id"]
    return server.headers["location"].removeprefix("http://example.org")


async def test_partial_uploads_with_one_id_are_one_upload(workers: list[ProgressTracker]) -> None:
    """tus concatenation: parts on two workers, each with its own length, joined at the end."""
    app = TusApp()
    paths = [await create_part(app, workers[index % 2], 10 * (index + 1)) for index in range(3)]
    for index, path in enumerate(paths):
        headers = {**TUS, **OFFSET_OCTET_STREAM, **NAMED, "upload-offset": "0"}
        content = b"x" * (10 * (index + 1) - 5)
        await send_request(app, workers[index % 2], "PATCH", path, headers=headers, content=content)
        assert (await only_upload(workers)).state is not S.COMPLETED
    for index, path in enumerate(paths):
        headers = {
            **TUS,
            **OFFSET_OCTET_STREAM,
            **NAMED,
            "upload-offset": str(10 * (index + 1) - 5),
        }
        await send_request(app, workers[1], "PATCH", path, headers=headers, content=b"y" * 5)

    async def has_all_bytes() -> bool:
        shown = await only_upload(workers)
        assert not shown.finished_at
        return (shown.bytes_transferred, shown.total_bytes, shown.parts) == (60, None, None)

    await wait_until_async(has_all_bytes)
    headers = {**TUS, **NAMED, "upload-concat": f"final;{' '.join(paths)}"}
    final = await send_request(app, workers[0], "POST", "/files", headers=headers)

    assert final.status == 201
    done = await only_upload(workers, S.COMPLETED)
    assert (done.upload_id, done.percent, done.attempt) == (NAMED["upload-id"], 100.0, 1)
    assert (done.bytes_transferred, done.total_bytes, done.retransmitted_bytes) == (60, 60, 0)


async def test_partial_uploads_without_id_are_separate(workers: list[ProgressTracker]) -> None:
    app, paths = TusApp(), list[str]()
    for _ in range(2):
        headers = {**TUS, "upload-length": "10", "upload-concat": "partial"}
        server = await send_request(app, workers[0], "POST", "/files", headers=headers)
        paths.append(server.headers["location"].removeprefix("http://example.org"))
        await patch(app, workers[0], paths[-1], 0, b"x" * 10)
    headers = {**TUS, "upload-concat": f"final;{' '.join(paths)}"}
    await send_request(app, workers[0], "POST", "/files", headers=headers)

    async def are_completed() -> bool:
        shown = await uploads(workers[1])
        return [(each.state, each.total_bytes) for each in shown] == [(S.COMPLETED, 10)] * 2

    await wait_until_async(are_completed)


async def test_partial_upload_with_bytes_in_its_creation(
    workers: list[ProgressTracker],
) -> None:
    app = TusApp()
    for _ in range(2):
        headers = {
            **TUS,
            **NAMED,
            **OFFSET_OCTET_STREAM,
            "upload-length": "10",
            "upload-concat": "partial",
        }
        await send_request(app, workers[0], "POST", "/files", headers=headers, content=b"x" * 7)

    shown = await only_upload(workers)
    assert (shown.bytes_transferred, shown.total_bytes) == (14, None)


async def test_tus_termination_cancels(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], 30)
    await patch(app, workers[0], path, 0, b"x" * 10)

    async def knows_the_bytes() -> bool:
        shown = await uploads(workers[1])
        return [each.bytes_transferred for each in shown] == [10]

    await wait_until_async(knows_the_bytes)
    await send_request(app, workers[1], "DELETE", path, headers=TUS)

    cancelled = await only_upload(workers, S.CANCELLED)
    assert cancelled.bytes_transferred == 10
    later = await patch(app, workers[1], path, 10, b"x")
    assert later.status == 404
    assert (await only_upload(workers, S.CANCELLED)).attempt == 1


async def test_transfer_of_another_owner_is_not_reported(workers: list[ProgressTracker]) -> None:
    app = TusApp()
    path = await create(app, workers[0], 30)
    bob = Identity("bob")
    await send_request(
        app, workers[0], "PATCH", "/files/9", headers={**TUS, "upload-offset": "7"},
        content=b"x", authenticate=lambda _: bob,
    )  # fmt: skip
    await patch(app, workers[0], path, 0, b"x" * 30)

    assert (await only_upload(workers, S.COMPLETED)).bytes_transferred == 30

    async def has_no_upload() -> bool:
        return not (await workers[0].list(owner=bob, states=set(S))).uploads

    await wait_until_async(has_no_upload)


async def test_content_ranges_on_two_workers_are_one_upload(workers: list[ProgressTracker]) -> None:
    app, path = ContentRangeApp(), "/files/a.bin"
    for index in range(3):
        headers = {"content-range": f"bytes {10 * index}-{10 * index + 9}/30"}
        worker = workers[index % 2]
        server = await send_request(app, worker, "PUT", path, headers=headers, content=b"x" * 10)
        assert server.status == (200 if index == 2 else 308)

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.percent, done.retransmitted_bytes) == (30, 100.0, 0)

    app.files.clear()
    headers = {"content-range": "bytes 0-4/5"}
    await send_request(app, workers[1], "PUT", path, headers=headers, content=b"y" * 5)

    async def is_second_attempt() -> bool:
        second = await only_upload(workers, S.COMPLETED)
        return (second.attempt, second.bytes_transferred) == (2, 5)

    await wait_until_async(is_second_attempt)


async def test_oci_push_completes_with_the_digest(workers: list[ProgressTracker]) -> None:
    app = OciApp()
    start = await send_request(app, workers[0], "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    for index in range(3):
        headers = {"content-range": f"{10 * index}-{10 * index + 9}"} if index else {}
        await send_request(
            app, workers[index % 2], "PATCH", path, headers=headers, content=b"x" * 10
        )
        assert (await only_upload(workers)).total_bytes is None
    await send_request(app, workers[1], "PUT", f"{path}?digest=good")

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes, done.percent) == (30, 30, 100.0)


async def test_oci_mount_single_post_and_cancel(workers: list[ProgressTracker]) -> None:
    app, tracker = OciApp(), workers[0]
    await send_request(app, tracker, "POST", "/v2/a/blobs/uploads/?mount=sha256:1&from=b")
    assert await uploads(tracker) == []
    await send_request(app, tracker, "POST", "/v2/a/blobs/uploads/?digest=good", content=b"x" * 10)
    whole = await only_upload(workers, S.COMPLETED)
    assert (whole.bytes_transferred, whole.total_bytes) == (10, 10)

    start = await send_request(app, tracker, "POST", "/v2/b/blobs/uploads/")
    await send_request(app, tracker, "DELETE", start.headers["location"].partition("?")[0])

    async def have_ended() -> bool:
        return {each.state for each in await uploads(tracker)} == {S.COMPLETED, S.CANCELLED}

    await wait_until_async(have_ended)


async def test_s3_parallel_parts_on_two_workers_are_one_upload(
    workers: list[ProgressTracker],
) -> None:
    app, path = S3App(), "/bucket/key.bin"
    async with anyio.create_task_group() as tasks:
        for number in range(1, 21):
            address = f"{path}?partNumber={number}&uploadId=abc"

            async def put(worker: ProgressTracker, address: str) -> None:
                await send_request(app, worker, "PUT", address, content=b"x" * 100)

            tasks.start_soon(put, workers[number % 2], address)
    await send_request(
        app, workers[0], "PUT", f"{path}?partNumber=3&uploadId=abc", content=b"y" * 100
    )

    async def has_counted_duplicate() -> bool:
        return (await only_upload(workers)).retransmitted_bytes == 100

    await wait_until_async(has_counted_duplicate)
    await send_request(
        app, workers[1], "POST", f"{path}?uploadId=abc", headers=XML, content=b"<xml/>"
    )

    done = await only_upload(workers, S.COMPLETED)
    assert done.parts
    assert (done.parts.received, done.parts.total) == (20, 20)
    assert (done.bytes_transferred, done.total_bytes) == (2000, 2000)
    assert done.filename == "key.bin"


async def test_s3_completion_on_a_worker_without_parts(workers: list[ProgressTracker]) -> None:
    app, path = S3App(), "/bucket/key.bin"
    await send_request(
        app, workers[0], "PUT", f"{path}?partNumber=1&uploadId=abc", content=b"x" * 100
    )

    async def is_paused() -> bool:
        return (await only_upload(workers)).state is S.PAUSED

    await wait_until_async(is_paused)
    await send_request(
        app, workers[1], "POST", f"{path}?uploadId=abc", headers=XML, content=b"<xml/>"
    )

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (100, 100)


async def test_s3_counts_decoded_bytes_and_aborts(workers: list[ProgressTracker]) -> None:
    app, path = S3App(), "/bucket/key.bin"
    headers = {"x-amz-decoded-content-length": "100"}
    address = f"{path}?partNumber=1&uploadId=abc"
    await send_request(app, workers[0], "PUT", address, headers=headers, content=b"x" * 130)
    assert (await only_upload(workers)).bytes_transferred == 100
    await send_request(app, workers[1], "DELETE", f"{path}?uploadId=abc")
    assert (await only_upload(workers, S.CANCELLED)).bytes_transferred == 100


async def test_ietf_append_completes(workers: list[ProgressTracker]) -> None:
    app = IetfApp()
    part, last = {"upload-complete": "?0"}, {"upload-complete": "?1"}
    await send_request(app, workers[0], "POST", "/drafts", headers=part, content=b"x" * 10)
    append = {**last, "upload-offset": "10"}
    await send_request(app, workers[0], "PATCH", "/drafts/0", headers=append, content=b"y" * 10)

    done = await only_upload(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (20, 20)


async def test_cancel_ends_all_requests_of_an_upload(workers: list[ProgressTracker]) -> None:
    app, path = S3App(), "/bucket/key.bin"
    servers = [ScriptedServer(body_messages(b"x" * 100)[:-1]) for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        for number, server in enumerate(servers, 1):
            address = f"{path}?partNumber={number}&uploadId=abc"

            async def put(server: ScriptedServer, address: str) -> None:
                await send_request(app, workers[0], "PUT", address, server=server)

            tasks.start_soon(put, server, address)
        await wait_until(lambda: all(server.script_ended.is_set() for server in servers))
        shown = await only_upload(workers)
        assert shown.bytes_transferred == 200, shown
        await workers[0].cancel(shown.upload_id, owner=ALICE)
    assert [server.status for server in servers] == [409, 409]
    assert (await only_upload(workers, S.CANCELLED)).bytes_transferred == 200


async def test_without_protocols_each_request_is_an_upload() -> None:
    tracker = ProgressTracker()
    headers = {"content-range": "bytes 0-9/30", "upload-id": "a"}
    server = await send_request(
        ContentRangeApp(), tracker, "PUT", "/a", headers=headers, content=b"x", protocols=()
    )
    assert upload_id_of(server) == "a"
    assert (await only_upload([tracker])).total_bytes == 1
