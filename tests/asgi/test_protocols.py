"""Uploads in many requests, through the middleware: one upload, whatever happens to a request."""

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
OCTETS = {"content-type": "application/offset+octet-stream"}


def broken(*chunks: bytes) -> list[Message]:
    """Return the messages of a body that breaks off."""
    return [*body_messages(*chunks)[:-1], {"type": "http.disconnect"}]


@pytest.fixture
async def workers() -> AsyncIterator[list[ProgressTracker]]:
    """Return the trackers of two workers that share a store."""
    store = MemoryStore()
    trackers = [ProgressTracker(store=store) for _ in range(2)]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        yield trackers


async def uploads(tracker: ProgressTracker) -> list[UploadProgress]:
    """Return all of Alice's."""
    return list((await tracker.list(owner=ALICE, states=set(S))).uploads)


async def the_one(
    trackers: list[ProgressTracker], state: UploadState | None = None
) -> UploadProgress:
    """Return Alice's only upload, as each worker shows it, once it is in *state* everywhere."""
    shown: list[UploadProgress] = []

    with anyio.fail_after(10):
        while True:
            shown = [each for tracker in trackers for each in await uploads(tracker)]
            if len({each.upload_id for each in shown}) == 1 and all(
                state in {None, each.state} for each in shown
            ):
                return shown[0]
            await anyio.sleep(0.01)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *condition* holds, which is looked at after a moment."""
    with anyio.fail_after(10):
        holds = False
        while not holds:
            await anyio.sleep(0.01)
            holds = await condition()


async def create(shop: TusApp, tracker: ProgressTracker, length: int | None) -> str:
    size = {"upload-defer-length": "1"} if length is None else {"upload-length": str(length)}
    named = {"upload-metadata": "filetype YQ==,filename d29ybGQudHh0"}
    server = await send_request(shop, tracker, "POST", "/files", headers={**TUS, **size, **named})
    assert server.status == 201
    return server.headers["location"].removeprefix("http://example.org")


async def patch(
    shop: TusApp, tracker: ProgressTracker, path: str, offset: int, content: bytes
) -> ScriptedServer:
    headers = {**TUS, **OCTETS, "upload-offset": str(offset)}
    return await send_request(shop, tracker, "PATCH", path, headers=headers, content=content)


async def test_tus_is_one_upload_on_two_workers(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], 30)
    created = await the_one(workers, S.PENDING)
    assert (created.filename, created.total_bytes) == ("world.txt", 30)

    ids = {
        upload_id_of(await patch(shop, workers[index % 2], path, 10 * index, b"x" * 10))
        for index in range(3)
    }

    done = await the_one(workers, S.COMPLETED)
    assert ids == {done.upload_id} == {created.upload_id}
    assert (done.bytes_transferred, done.total_bytes, done.percent) == (30, 30, 100.0)
    assert (done.retransmitted_bytes, done.attempt, done.parts) == (0, 1, None)
    assert done.filename == "world.txt"


async def test_tus_pauses_and_resumes_where_the_server_is(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], 30)
    headers = {**TUS, **OCTETS, "upload-offset": "0"}
    await send_request(
        shop, workers[0], "PATCH", path, headers=headers, messages=broken(b"x" * 10, b"y" * 5)
    )
    paused = await the_one(workers, S.PAUSED)
    assert paused.bytes_transferred == 15
    assert paused.error is None

    del shop.files[path][12:]
    await patch(shop, workers[1], path, 12, b"z" * 18)

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.retransmitted_bytes, done.attempt) == (30, 3, 1)


async def test_a_refused_offset_changes_nothing(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], 30)
    await patch(shop, workers[0], path, 0, b"x" * 10)
    for offset in (5, 20, 2**63, 0):
        refused = await patch(shop, workers[1], path, offset, b"y" * 20)
        assert refused.status == 409
        shown = await the_one(workers)
        assert not shown.finished_at

    await patch(shop, workers[0], path, 10, b"z" * 20)

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (30, 30)


async def test_a_length_that_comes_later(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], None)
    await patch(shop, workers[0], path, 0, b"x" * 10)
    assert (await the_one(workers)).total_bytes is None
    headers = {**TUS, **OCTETS, "upload-offset": "10", "upload-length": "20"}
    await send_request(shop, workers[1], "PATCH", path, headers=headers, content=b"y" * 10)

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (20, 20)


async def test_creation_with_upload_goes_on_under_its_id(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    headers = {**TUS, **OCTETS, "upload-length": "20"}
    first = await send_request(
        shop, workers[0], "POST", "/files", headers=headers, content=b"x" * 10
    )
    last = await patch(shop, workers[0], "/files/0", 10, b"y" * 10)

    done = await the_one(workers, S.COMPLETED)
    assert upload_id_of(first) == upload_id_of(last) == done.upload_id
    assert done.bytes_transferred == 20


async def partial(shop: TusApp, tracker: ProgressTracker, length: int) -> str:
    """Create what is to be a part of the upload ``named``."""
    headers = {**TUS, **NAMED, "upload-length": str(length), "upload-concat": "partial"}
    server = await send_request(shop, tracker, "POST", "/files", headers=headers)
    assert upload_id_of(server) == NAMED["upload-id"]
    return server.headers["location"].removeprefix("http://example.org")


async def test_partial_uploads_of_one_name_are_one(workers: list[ProgressTracker]) -> None:
    """tus' concatenation: parts on two workers, each announced by itself, made one in the end."""
    shop = TusApp()
    paths = [await partial(shop, workers[index % 2], 10 * (index + 1)) for index in range(3)]
    for index, path in enumerate(paths):
        headers = {**TUS, **OCTETS, **NAMED, "upload-offset": "0"}
        content = b"x" * (10 * (index + 1) - 5)
        await send_request(
            shop, workers[index % 2], "PATCH", path, headers=headers, content=content
        )
        assert (await the_one(workers)).state is not S.COMPLETED
    for index, path in enumerate(paths):
        headers = {**TUS, **OCTETS, **NAMED, "upload-offset": str(10 * (index + 1) - 5)}
        await send_request(shop, workers[1], "PATCH", path, headers=headers, content=b"y" * 5)

    async def is_all_there() -> bool:
        shown = await the_one(workers)
        assert not shown.finished_at
        return (shown.bytes_transferred, shown.total_bytes, shown.parts) == (60, 60, None)

    await eventually(is_all_there)
    headers = {**TUS, **NAMED, "upload-concat": f"final;{' '.join(paths)}"}
    final = await send_request(shop, workers[0], "POST", "/files", headers=headers)

    assert final.status == 201
    done = await the_one(workers, S.COMPLETED)
    assert (done.upload_id, done.percent, done.attempt) == (NAMED["upload-id"], 100.0, 1)
    assert (done.bytes_transferred, done.total_bytes, done.retransmitted_bytes) == (60, 60, 0)


async def test_partial_uploads_without_a_name_are_several(workers: list[ProgressTracker]) -> None:
    shop, paths = TusApp(), list[str]()
    for _ in range(2):
        headers = {**TUS, "upload-length": "10", "upload-concat": "partial"}
        server = await send_request(shop, workers[0], "POST", "/files", headers=headers)
        paths.append(server.headers["location"].removeprefix("http://example.org"))
        await patch(shop, workers[0], paths[-1], 0, b"x" * 10)
    headers = {**TUS, "upload-concat": f"final;{' '.join(paths)}"}
    await send_request(shop, workers[0], "POST", "/files", headers=headers)

    async def are_completed() -> bool:
        shown = await uploads(workers[1])
        return [(each.state, each.total_bytes) for each in shown] == [(S.COMPLETED, 10)] * 2

    await eventually(are_completed)


async def test_a_partial_upload_may_begin_with_its_creation(
    workers: list[ProgressTracker],
) -> None:
    shop = TusApp()
    for _ in range(2):
        headers = {**TUS, **NAMED, **OCTETS, "upload-length": "10", "upload-concat": "partial"}
        await send_request(shop, workers[0], "POST", "/files", headers=headers, content=b"x" * 7)

    shown = await the_one(workers)
    assert (shown.bytes_transferred, shown.total_bytes) == (14, 20)


async def test_termination_cancels(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], 30)
    await patch(shop, workers[0], path, 0, b"x" * 10)
    await send_request(shop, workers[1], "DELETE", path, headers=TUS)

    gone = await the_one(workers, S.CANCELLED)
    assert gone.bytes_transferred == 10
    late = await patch(shop, workers[1], path, 10, b"x")
    assert late.status == 404
    assert (await the_one(workers, S.CANCELLED)).attempt == 1


async def test_somebody_elses_resource_stays_theirs(workers: list[ProgressTracker]) -> None:
    shop = TusApp()
    path = await create(shop, workers[0], 30)
    bob = Identity("bob")
    await send_request(
        shop, workers[0], "PATCH", "/files/9", headers={**TUS, "upload-offset": "7"},
        content=b"x", authenticate=lambda _: bob,
    )  # fmt: skip
    await patch(shop, workers[0], path, 0, b"x" * 30)

    assert (await the_one(workers, S.COMPLETED)).bytes_transferred == 30

    async def is_gone() -> bool:
        return not (await workers[0].list(owner=bob, states=set(S))).uploads

    await eventually(is_gone)


async def test_content_range_in_order_on_two_workers(workers: list[ProgressTracker]) -> None:
    shop, path = ContentRangeApp(), "/files/a.bin"
    for index in range(3):
        headers = {"content-range": f"bytes {10 * index}-{10 * index + 9}/30"}
        worker = workers[index % 2]
        server = await send_request(shop, worker, "PUT", path, headers=headers, content=b"x" * 10)
        assert server.status == (200 if index == 2 else 308)

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.percent, done.retransmitted_bytes) == (30, 100.0, 0)

    shop.files.clear()
    headers = {"content-range": "bytes 0-4/5"}
    await send_request(shop, workers[1], "PUT", path, headers=headers, content=b"y" * 5)

    async def is_again() -> bool:
        again = await the_one(workers, S.COMPLETED)
        return (again.attempt, again.bytes_transferred) == (2, 5)

    await eventually(is_again)


async def test_oci_pushes_a_blob(workers: list[ProgressTracker]) -> None:
    shop = OciApp()
    start = await send_request(shop, workers[0], "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    for index in range(3):
        headers = {"content-range": f"{10 * index}-{10 * index + 9}"} if index else {}
        await send_request(
            shop, workers[index % 2], "PATCH", path, headers=headers, content=b"x" * 10
        )
        assert (await the_one(workers)).total_bytes is None
    bad = await send_request(shop, workers[0], "PUT", f"{path}?digest=bad")
    assert bad.status == 400
    assert not (await the_one(workers)).finished_at
    await send_request(shop, workers[1], "PUT", f"{path}?digest=good")

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes, done.percent) == (30, 30, 100.0)


async def test_oci_mounts_push_at_once_and_cancel(workers: list[ProgressTracker]) -> None:
    shop, tracker = OciApp(), workers[0]
    await send_request(shop, tracker, "POST", "/v2/a/blobs/uploads/?mount=sha256:1&from=b")
    assert await uploads(tracker) == []
    await send_request(shop, tracker, "POST", "/v2/a/blobs/uploads/?digest=good", content=b"x" * 10)
    whole = await the_one(workers, S.COMPLETED)
    assert (whole.bytes_transferred, whole.total_bytes) == (10, 10)

    start = await send_request(shop, tracker, "POST", "/v2/b/blobs/uploads/")
    await send_request(shop, tracker, "DELETE", start.headers["location"].partition("?")[0])

    async def are_over() -> bool:
        return {each.state for each in await uploads(tracker)} == {S.COMPLETED, S.CANCELLED}

    await eventually(are_over)


async def test_s3_parts_in_parallel_on_two_workers(workers: list[ProgressTracker]) -> None:
    shop, path = S3App(), "/bucket/key.bin"
    async with anyio.create_task_group() as tasks:
        for number in range(1, 21):
            address = f"{path}?partNumber={number}&uploadId=abc"

            async def put(worker: ProgressTracker, address: str) -> None:
                await send_request(shop, worker, "PUT", address, content=b"x" * 100)

            tasks.start_soon(put, workers[number % 2], address)
    await send_request(
        shop, workers[0], "PUT", f"{path}?partNumber=3&uploadId=abc", content=b"y" * 100
    )
    await send_request(shop, workers[1], "POST", f"{path}?uploadId=abc", content=b"<xml/>")

    done = await the_one(workers, S.COMPLETED)

    async def is_added_up() -> bool:
        return (await the_one(workers)).retransmitted_bytes == 100

    await eventually(is_added_up)
    done = await the_one(workers, S.COMPLETED)
    assert done.parts
    assert (done.parts.received, done.parts.total) == (20, 20)
    assert (done.bytes_transferred, done.total_bytes) == (2000, 2000)
    assert done.filename == "key.bin"


async def test_s3_is_made_by_a_worker_that_took_no_part(workers: list[ProgressTracker]) -> None:
    shop, path = S3App(), "/bucket/key.bin"
    await send_request(
        shop, workers[0], "PUT", f"{path}?partNumber=1&uploadId=abc", content=b"x" * 100
    )

    async def is_paused() -> bool:
        return (await the_one(workers)).state is S.PAUSED

    await eventually(is_paused)
    await send_request(shop, workers[1], "POST", f"{path}?uploadId=abc", content=b"<xml/>")

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (100, 100)


async def test_s3_counts_decoded_bytes_and_aborts(workers: list[ProgressTracker]) -> None:
    shop, path = S3App(), "/bucket/key.bin"
    headers = {"x-amz-decoded-content-length": "100"}
    address = f"{path}?partNumber=1&uploadId=abc"
    await send_request(shop, workers[0], "PUT", address, headers=headers, content=b"x" * 130)
    assert (await the_one(workers)).bytes_transferred == 100
    await send_request(shop, workers[1], "DELETE", f"{path}?uploadId=abc")
    assert (await the_one(workers, S.CANCELLED)).bytes_transferred == 100


async def test_the_draft(workers: list[ProgressTracker]) -> None:
    shop = IetfApp()
    part, last = {"upload-complete": "?0"}, {"upload-complete": "?1"}
    await send_request(shop, workers[0], "POST", "/drafts", headers=part, content=b"x" * 10)
    append = {**last, "upload-offset": "10"}
    await send_request(shop, workers[0], "PATCH", "/drafts/0", headers=append, content=b"y" * 10)

    done = await the_one(workers, S.COMPLETED)
    assert (done.bytes_transferred, done.total_bytes) == (20, 20)


async def test_owner_cancels_all_requests(workers: list[ProgressTracker]) -> None:
    shop, path = S3App(), "/bucket/key.bin"
    servers = [ScriptedServer(body_messages(b"x" * 100)[:-1]) for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        for number, server in enumerate(servers, 1):
            address = f"{path}?partNumber={number}&uploadId=abc"

            async def put(server: ScriptedServer, address: str) -> None:
                await send_request(shop, workers[0], "PUT", address, server=server)

            tasks.start_soon(put, server, address)
        await wait_until(lambda: all(server.script_ended.is_set() for server in servers))
        shown = await the_one(workers)
        assert shown.bytes_transferred == 200, shown
        await workers[0].cancel(shown.upload_id, owner=ALICE)
    assert [server.status for server in servers] == [409, 409]
    assert (await the_one(workers, S.CANCELLED)).bytes_transferred == 200


async def test_without_protocols_each_request_is_an_upload() -> None:
    tracker = ProgressTracker()
    headers = {"content-range": "bytes 0-9/30", "upload-id": "a"}
    server = await send_request(
        ContentRangeApp(), tracker, "PUT", "/a", headers=headers, content=b"x", protocols=()
    )
    assert upload_id_of(server) == "a"
    assert (await the_one([tracker])).total_bytes == 1
