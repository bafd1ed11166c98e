"""Uploads by the shipped protocols, from the first request to the end, on two workers."""

from __future__ import annotations

import pytest

from tests._support.protocol_apps import ResponseHead, ScriptedApp, send_request
from tests._support.scripted_server import ALICE
from tests._support.simulation import Simulation
from tests._support.workers import OK, Workers, facts_of
from upload_progress import UploadState

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def workers() -> Workers:
    """Return two workers."""
    return Workers()


# FilePond

LENGTH = {"upload-length": "30"}


async def send_chunk(
    workers: Workers,
    offset: int,
    headers: dict[str, str] | None = None,
    response: ResponseHead = (204, {}),
) -> None:
    """Send a chunk of 10 bytes, as FilePond does."""
    chunk = {**LENGTH, "upload-offset": str(offset), "upload-name": "a.txt", **(headers or {})}
    await workers.send("PATCH", "/process?patch=7", chunk, 10, response)


@pytest.mark.parametrize("named", [{}, {"upload-id": "named-by-the-client"}])
async def test_filepond_chunks_are_one_upload(workers: Workers, named: dict[str, str]) -> None:
    """The form that creates the upload is none, also if it has the same id."""
    form = {"content-type": "multipart/form-data; boundary=x", **LENGTH, **named}
    await workers.send("POST", "/process", form, 20)
    created = await workers.shown()
    for offset in (0, 10):
        await send_chunk(workers, offset, named)
    open_ = await workers.only()
    await send_chunk(workers, 20, named)

    assert created == []
    assert (open_.finished_at, open_.bytes_transferred) == (None, 20)
    whole = await workers.only()
    assert facts_of(whole) == (S.COMPLETED, 30, 30, 1)
    assert whole.filename == "a.txt"


async def test_filepond_sends_a_refused_chunk_again(workers: Workers) -> None:
    await send_chunk(workers, 0)
    await send_chunk(workers, 10, response=(422, {}))
    refused = await workers.only()
    for offset in (10, 20):
        await send_chunk(workers, offset)

    assert (refused.finished_at, refused.bytes_transferred) == (None, 10)
    whole = await workers.only()
    assert facts_of(whole) == (S.COMPLETED, 30, 30, 1)
    assert whole.retransmitted_bytes == 10


# Azure

AZURE = {"x-ms-version": "2021-08-06"}


async def test_azure_blocks_are_one_upload(workers: Workers) -> None:
    for block in ("Yg", "YQ", "Yg"):
        await workers.send("PUT", f"/c/a.bin?comp=block&blockid={block}", AZURE, 10, (201, {}))
    sent = await workers.only()
    await workers.send("PUT", "/c/a.bin?comp=blocklist", AZURE, 5, (201, {}))

    assert (sent.finished_at, sent.bytes_transferred) == (None, 20)
    whole = await workers.only()
    assert facts_of(whole) == (S.COMPLETED, 20, 20, 1)
    assert (whole.filename, whole.retransmitted_bytes) == ("a.bin", 10)


async def test_smaller_azure_block_replaces_the_earlier_one(workers: Workers) -> None:
    for block, size in (("Yg", 10), ("YQ", 10), ("Yg", 4)):
        path = f"/c/a.bin?comp=block&blockid={block}"
        await workers.send("PUT", path, AZURE, size, (201, {}))

    assert (await workers.only()).bytes_transferred == 14


async def test_part_at_another_worker_replaces_the_earlier_one(workers: Workers) -> None:
    """The newest accepted part counts, at each worker; a refused one replaces nothing."""
    for size, response in ((8, OK), (3, OK), (5, (503, {}))):
        await workers.send("PUT", "/b/k?partNumber=1&uploadId=1", {}, size, response)

    assert facts_of(await workers.only())[:2] == (S.RECEIVING, 3)


async def test_refused_azure_block_list_fails_the_upload(workers: Workers) -> None:
    await workers.send("PUT", "/c/a.bin?comp=block&blockid=YQ", AZURE, 10, (201, {}))
    await workers.send("PUT", "/c/a.bin?comp=blocklist", AZURE, 5, (400, {}))

    assert facts_of(await workers.only())[:2] == (S.FAILED, 10)


# Google's sessions

SESSION = "/upload/b/o?uploadType=resumable&upload_id=abc"


async def create_session(workers: Workers) -> None:
    """Create a session for 30 bytes."""
    announced = {"x-upload-content-type": "text/plain", "x-upload-content-length": "30"}
    location = {"location": f"http://example.org{SESSION}"}
    path = "/upload/b/o?uploadType=resumable&name=a.txt"
    await workers.send("POST", path, announced, 2, (200, location))


async def test_google_session(workers: Workers) -> None:
    await create_session(workers)
    created = await workers.only()
    for first, size, response in [
        (0, 10, (308, {"range": "bytes=0-9"})),
        (10, 20, (308, {"range": "bytes=0-19"})),
        (20, 10, (201, {})),
    ]:
        announced = {"content-range": f"bytes {first}-{first + size - 1}/30"}
        await workers.send("PUT", SESSION, announced, size, response)

    assert facts_of(created) == (S.PENDING, 0, 30, 1)
    assert (created.filename, created.content_type) == ("a.txt", "text/plain")
    whole = await workers.only()
    assert facts_of(whole) == (S.COMPLETED, 30, 30, 1)
    assert whole.upload_id == created.upload_id
    assert whole.filename == "a.txt"


async def test_whole_upload_to_a_google_session(workers: Workers) -> None:
    await create_session(workers)
    await workers.send("PUT", SESSION, {}, 30, (200, {}))

    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)


async def test_google_session_that_is_refused_is_no_upload(workers: Workers) -> None:
    announced = {"x-upload-content-type": "text/plain"}
    await workers.send("POST", "/o?uploadType=resumable", announced, 2, (403, {}))

    assert await workers.shown() == []


# Content-Range


async def test_files_at_one_path_are_told_apart_by_their_query(workers: Workers) -> None:
    for first, name in [(0, "a"), (0, "b"), (10, "b")]:
        await workers.put(f"/upload?file={name}", f"bytes {first}-{first + 9}/20", 10)

    shown = sorted((each.state, each.bytes_transferred) for each in await workers.shown())
    assert shown[0] == (S.COMPLETED, 20)
    assert shown[1][1] == 10
    assert shown[1][0] is not S.COMPLETED


async def test_posted_files_are_told_apart_by_their_names(workers: Workers) -> None:
    for name, first, size, total in [
        ("a.bin", 0, 10, 20),
        ("b.bin", 0, 15, 30),
        ("a.bin", 10, 10, 20),
        ("b.bin", 15, 15, 30),
    ]:
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "content-range": f"bytes {first}-{first + size - 1}/{total}",
        }
        await workers.send("POST", "/upload", headers, size)

    assert sorted((each.filename, *facts_of(each)) for each in await workers.shown()) == [
        ("a.bin", S.COMPLETED, 20, 20, 1),
        ("b.bin", S.COMPLETED, 30, 30, 1),
    ]


async def test_first_range_is_sent_again_after_a_lost_response(workers: Workers) -> None:
    for first in (0, 0, 10, 20):
        await workers.put("/a.bin", f"bytes {first}-{first + 9}/30", 10)

    whole = await workers.only()
    assert facts_of(whole) == (S.COMPLETED, 30, 30, 1)
    assert whole.retransmitted_bytes == 10


async def test_range_with_the_total_as_its_end_completes(workers: Workers) -> None:
    await workers.put("/a.bin", "Bytes: 0-9 / 30", 10)
    await workers.put("/a.bin", "bytes 10-30/30", 20)

    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 1)


async def test_permanent_redirect_of_a_range_accepts_nothing(workers: Workers) -> None:
    await workers.put("/a.bin", "bytes 0-9/30", 10)
    await workers.put("/a.bin", "bytes 10-29/30", 20, (308, {"location": "/b.bin"}))

    moved = await workers.only()
    assert (moved.finished_at, moved.bytes_transferred) == (None, 10)


# S3


async def test_upload_with_a_parameter_of_s3_is_a_plain_upload(workers: Workers) -> None:
    await workers.send("POST", "/upload?uploadId=abc", {"upload-id": "of-the-app"}, 1000)

    plain = await workers.only()
    assert facts_of(plain) == (S.COMPLETED, 1000, 1000, 1)
    assert plain.upload_id == "of-the-app"


# The IETF draft


# OCI


async def test_digest_is_the_name_of_a_blob(workers: Workers) -> None:
    uploads = "/v2/a/blobs/uploads/"
    await workers.send("POST", uploads, {}, 0, (202, {"location": f"{uploads}1?state=0"}))
    await workers.send("PATCH", f"{uploads}1?state=0", {}, 10, (202, {"range": "0-9"}))
    await workers.send("PUT", f"{uploads}1?state=1&digest=sha256:abc", {}, 0, (201, {}))

    blob = await workers.only()
    assert facts_of(blob) == (S.COMPLETED, 10, 10, 1)
    assert blob.filename == "sha256:abc"


@pytest.mark.parametrize("status", [400, 403])
async def test_refused_whole_blob_fails(workers: Workers, status: int) -> None:
    await workers.send("POST", "/v2/a/blobs/uploads/?digest=sha256:a", {}, 10, (status, {}))

    refused = await workers.only()
    assert facts_of(refused)[:2] == (S.FAILED, 0)
    assert refused.error is not None
    assert refused.error.http_status == status


async def test_another_total_is_another_upload(workers: Workers) -> None:
    await workers.put("/a.bin", "bytes 0-9/20", 10)
    await workers.put("/a.bin", "bytes 0-9/30", 10)
    await workers.put("/a.bin", "bytes 10-29/30", 20)

    assert facts_of(await workers.only()) == (S.COMPLETED, 30, 30, 2)


async def test_early_success_completes() -> None:
    """The server has enough: it needs no more bytes."""
    workers = Workers(1)
    first = {"upload-complete": "?0", "upload-length": "30"}
    created = {"location": "/d/1", "upload-complete": "?0"}
    await workers.send("POST", "/d", first, 10, (201, created))
    part = {"upload-complete": "?0", "upload-offset": "10"}
    await workers.send("PATCH", "/d/1", part, 10, (200, {"upload-complete": "?1"}))

    done = await workers.only()
    assert done.state is S.COMPLETED
    assert (done.bytes_transferred, done.total_bytes, done.percent) == (20, 30, 66.6)


async def test_new_beginning_of_a_paused_upload_is_another_upload() -> None:
    sim = Simulation()

    async def put(first: int) -> None:
        headers = {"content-range": f"bytes {first}-{first + 9}/30"}
        app = ScriptedApp(responses=[OK])
        await send_request(app, sim.tracker, "PUT", "/a.bin", headers=headers, content=bytes(10))

    for first in (0, 10):
        await put(first)
    await sim.run(3)
    for first in (0, 10, 20):
        await put(first)

    [shown] = (await sim.tracker.list(owner=ALICE, states=set(S))).uploads
    assert facts_of(shown) == (S.COMPLETED, 30, 30, 2)
