"""Invalid transfers of uploads in several requests.

The response of the application is unchanged, the numbers are consistent, and nothing raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests._support.protocol_apps import (
    ContentRangeApp,
    FileApp,
    IetfApp,
    OciApp,
    ResponseHead,
    S3App,
    TusApp,
    send_request,
)
from tests._support.scripted_server import ALICE, Receive, Scope, body_messages
from tests._support.simulation import Simulation
from upload_progress import Identity, ProgressTracker, UploadProgress, UploadState
from upload_progress.connection import Connection

pytestmark = pytest.mark.anyio

S = UploadState
TUS = {"tus-resumable": "1.0.0"}
OFFSET_OCTET_STREAM = {"content-type": "application/offset+octet-stream"}
INVALID_NUMBERS = [
    "-1",
    "-0",
    "5-4",
    "1e3",
    "0x10",
    "٣",
    "",
    " ",
    "*",
    str(2**53),
    str(2**63),
    "9" * 400,
]


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    """Return a running tracker."""
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


async def uploads(tracker: ProgressTracker, owner: Identity = ALICE) -> list[UploadProgress]:
    """Return all uploads of an owner, in any state."""
    return list((await tracker.list(owner=owner, states=set(S))).uploads)


async def only_upload(tracker: ProgressTracker) -> UploadProgress:
    """Return Alice's only upload."""
    [shown] = await uploads(tracker)
    return shown


def assert_consistent(shown: UploadProgress) -> None:
    """Check that the numbers of an upload are consistent."""
    total = shown.total_bytes
    assert 0 <= shown.bytes_transferred <= (2**53 if total is None else total)
    assert shown.percent is None or 0 <= shown.percent <= 100
    assert shown.retransmitted_bytes >= 0


@pytest.mark.parametrize("offset", [*INVALID_NUMBERS, None])
async def test_invalid_tus_offset_is_refused_by_the_server(
    tracker: ProgressTracker, offset: str | None
) -> None:
    class Lenient(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if scope["method"] != "PATCH":
                return await super().respond(scope, receive)
            await self.append(scope["path"], receive)
            return 409, {"upload-offset": offset or "none"}

    app = Lenient()
    await send_request(app, tracker, "POST", "/files", headers={**TUS, "upload-length": "30"})
    headers = {**TUS, **OFFSET_OCTET_STREAM} | ({} if offset is None else {"upload-offset": offset})
    raw = [(key, value.encode()) for key, value in headers.items()]
    server = await send_request(
        app, tracker, "PATCH", "/files/0", content=b"x" * 10,
        headers={key: value.decode("latin-1") for key, value in raw},
    )  # fmt: skip

    assert server.status == 409
    shown = await only_upload(tracker)
    assert_consistent(shown)
    assert shown.total_bytes == 30
    assert not shown.finished_at


@pytest.mark.parametrize("length", INVALID_NUMBERS)
async def test_invalid_tus_length_is_ignored(tracker: ProgressTracker, length: str) -> None:
    app = FileApp()
    raw = length.encode().decode("latin-1")
    server = await send_request(
        app, tracker, "POST", "/files", headers={**TUS, "upload-length": raw}
    )

    assert server.status == 200
    assert all(each.total_bytes is None for each in await uploads(tracker))


@pytest.mark.parametrize(
    "announced",
    [
        "bytes -1-9/30",
        "bytes 9-1/30",
        "bytes 0-9/5",
        "bytes 30-39/30",
        "bytes */*",
        "bytes 0-/30",
        "bytes 0-9/-1",
        f"bytes {2**63}-{2**63 + 9}/{2**64}",
        f"bytes 0-{2**63}/*",
        "pages 0-9/30",
        "",
    ],
)
async def test_invalid_content_range_is_a_part_of_unknown_size(
    tracker: ProgressTracker, announced: str
) -> None:
    """It is no whole upload: nobody knows whether more follows."""
    headers = {"content-range": announced, "upload-id": "ranged"}
    server = await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)

    assert server.status == 200
    shown = await only_upload(tracker)
    assert (shown.finished_at, shown.bytes_transferred, shown.total_bytes) == (None, 10, None)


async def test_overlapping_ranges_count_once(tracker: ProgressTracker) -> None:
    for first, last in ((0, 9), (5, 14), (5, 9), (14, 19)):
        headers = {"content-range": f"bytes {first}-{last}/20"}
        content = b"x" * (last - first + 1)
        await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=content)

    shown = await only_upload(tracker)
    assert (shown.state, shown.bytes_transferred) == (S.COMPLETED, 20)
    assert shown.retransmitted_bytes == 5 + 5 + 1


async def test_refused_range_is_not_counted(tracker: ProgressTracker) -> None:
    app = ContentRangeApp()
    headers = {"content-range": "bytes 0-9/30"}
    await send_request(app, tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
    headers = {"content-range": "bytes 0-9/30"}
    server = await send_request(app, tracker, "PUT", "/a", headers=headers, content=b"x" * 10)

    assert server.status == 416
    shown = await only_upload(tracker)
    assert (shown.state, shown.bytes_transferred) == (S.PAUSED, 10)


async def test_other_total_is_another_upload(tracker: ProgressTracker) -> None:
    for total in (30, 20, 40):
        headers = {"content-range": f"bytes 0-9/{total}"}
        await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
        assert_consistent(await only_upload(tracker))

    shown = await only_upload(tracker)
    assert (shown.attempt, shown.total_bytes, shown.bytes_transferred) == (3, 40, 10)
    assert shown.finished_at is None


async def test_larger_body_does_not_exceed_the_range(tracker: ProgressTracker) -> None:
    headers = {"content-range": "bytes 0-9/20"}
    await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 1000)

    shown = await only_upload(tracker)
    assert (shown.bytes_transferred, shown.total_bytes) == (10, 20)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "1.5", "", "x", str(2**63)])
async def test_invalid_part_number_is_not_a_part(tracker: ProgressTracker, number: str) -> None:
    await send_request(S3App(), tracker, "PUT", "/b/k?partNumber=1&uploadId=a", content=b"x" * 10)
    address = f"/b/k?partNumber={number}&uploadId=a"
    server = await send_request(S3App(), tracker, "PUT", address, content=b"x" * 10)

    assert server.status == 200
    shown = await only_upload(tracker)
    assert shown.bytes_transferred == 10
    assert shown.parts
    assert shown.parts.received == 1


async def test_concurrent_duplicate_part_counts_once(tracker: ProgressTracker) -> None:
    """The request that ends last replaces the other one; trio runs tasks in a random order."""
    app, address = S3App(), "/b/k?partNumber=1&uploadId=a"
    async with anyio.create_task_group() as tasks:
        for content in (b"x" * 10, b"y" * 20):

            async def put(content: bytes) -> None:
                await send_request(app, tracker, "PUT", address, content=content)

            tasks.start_soon(put, content)

    shown = await only_upload(tracker)
    assert shown.bytes_transferred in {10, 20}
    assert shown.retransmitted_bytes == 10
    assert shown.parts
    assert shown.parts.received == 1


async def test_transfer_of_another_owner_is_separate() -> None:
    """Bob appends to an upload of Alice: the server refuses, and her upload is unchanged."""
    sim, bob = Simulation(), Identity("bob")

    class Private(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if ("x-user", "bob") in {(k.decode(), v.decode()) for k, v in scope["headers"]}:
                await self.append("/files/0", receive)
                return 404, {}
            return await super().respond(scope, receive)

    def authenticate(connection: Connection) -> Identity:
        return Identity(connection.header("x-user") or "alice")

    app = Private()
    ann = {"x-user": "alice"}
    length = {"upload-length": "30"}
    await send_request(
        app,
        sim.tracker,
        "POST",
        "/files",
        headers={**TUS, **ann, **length},
        authenticate=authenticate,
    )
    for attempt in range(2):
        headers = {**TUS, **OFFSET_OCTET_STREAM, "upload-offset": "0", "x-user": "bob"}
        if attempt:
            [alices] = await uploads(sim.tracker, Identity("alice"))
            headers["upload-id"] = alices.upload_id
        server = await send_request(
            app, sim.tracker, "PATCH", "/files/0", headers=headers, content=b"x" * 10,
            authenticate=authenticate,
        )  # fmt: skip
        assert server.status == 404
    await sim.run(5)

    [alices] = await uploads(sim.tracker, Identity("alice"))
    assert (alices.bytes_transferred, alices.finished_at) == (0, None)
    assert await uploads(sim.tracker, bob) == []
    assert len(sim.internals.registry) <= 1


@pytest.mark.parametrize("listed", ["/files/99", "https://elsewhere.example/files/0", ";;", "%ff"])
async def test_final_post_of_unknown_parts_creates_no_upload(listed: str) -> None:
    sim = Simulation()
    headers = {**TUS, "upload-concat": f"final;{listed}"}
    server = await send_request(FileApp(), sim.tracker, "POST", "/files", headers=headers)
    assert server.status == 200
    assert await uploads(sim.tracker) == []
    await sim.run(5)

    assert await uploads(sim.tracker) == []
    assert len(sim.internals.registry) == 0


async def test_wrong_digest_fails_the_upload() -> None:
    sim, app = Simulation(), OciApp()
    start = await send_request(app, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    await send_request(app, sim.tracker, "PATCH", path, content=b"x" * 10)
    bad = await send_request(app, sim.tracker, "PUT", f"{path}?digest=bad")
    assert bad.status == 400
    await sim.run(5)

    shown = await only_upload(sim.tracker)
    assert (shown.state, shown.bytes_transferred) == (S.FAILED, 10)
    assert shown.error is not None
    assert (shown.error.code, shown.error.http_status) == ("rejected", 400)


async def test_headers_of_several_protocols_are_consistent(tracker: ProgressTracker) -> None:
    """The first protocol that reads a request is used."""
    mixed_headers = {
        **TUS,
        **OFFSET_OCTET_STREAM,
        "upload-offset": "0",
        "upload-complete": "?0",
        "content-range": "bytes 0-9/30",
        "x-amz-decoded-content-length": "10",
    }
    address = "/v2/a/blobs/uploads/1?uploadId=a&partNumber=1"
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        server = await send_request(
            FileApp(), tracker, method, address, headers=mixed_headers, content=b"x" * 10
        )
        assert server.status == 200
    for each in await uploads(tracker):
        assert_consistent(each)


async def test_same_id_in_two_protocols_is_consistent(tracker: ProgressTracker) -> None:
    named = {"upload-id": "chosen"}
    headers = {**named, "content-range": "bytes 0-9/30"}
    await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
    headers = {**named, **TUS, **OFFSET_OCTET_STREAM, "upload-offset": "0", "upload-length": "30"}
    server = await send_request(
        FileApp(), tracker, "PATCH", "/files/0", headers=headers, content=b"x" * 10
    )

    assert server.status == 200
    for each in await uploads(tracker):
        assert_consistent(each)
        assert each.total_bytes == 30


async def test_ietf_delete_cancels(tracker: ProgressTracker) -> None:
    app = IetfApp()
    await send_request(
        app, tracker, "POST", "/drafts", headers={"upload-complete": "?0"}, content=b"x" * 10
    )
    delete_headers = {"upload-draft-interop-version": "8"}
    assert (
        await send_request(app, tracker, "DELETE", "/drafts/0", headers=delete_headers)
    ).status == 204

    shown = await only_upload(tracker)
    assert (shown.state, shown.bytes_transferred) == (S.CANCELLED, 10)


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "tus-resumable",
            "upload-offset",
            "upload-length",
            "upload-complete",
            "upload-concat",
            "upload-metadata",
            "content-range",
            "content-type",
            "x-amz-decoded-content-length",
            "x-http-method-override",
        ]
    ),
    st.sampled_from(
        [
            *("1.0.0", "?0", "?1", "0", "5", "30", "-1", str(2**63), "bytes 0-9/30", "bytes 5-9/*"),
            *(
                "0-9",
                "PATCH",
                OFFSET_OCTET_STREAM["content-type"],
                "final;/files/0",
                "filename YQ==",
            ),
        ]
    ),
)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "HEAD"]),
        st.sampled_from(
            [
                "/files",
                "/files/0",
                "/v2/a/blobs/uploads/",
                "/v2/a/blobs/uploads/1?digest=d",
                "/b/k?partNumber=1&uploadId=a",
                "/b/k?partNumber=2&uploadId=a",
                "/b/k?uploadId=a",
            ]
        ),
        HEADERS,
        st.integers(0, 40),
        st.sampled_from([200, 201, 204, 308, 400, 404, 409, 416, 500]),
        st.booleans(),
    ),
    max_size=8,
)


@given(REQUESTS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_sequence_of_requests_is_consistent(
    requests: list[tuple[str, str, dict[str, str], int, int, bool]],
) -> None:
    sim, before = Simulation(), dict[str, UploadProgress]()
    for method, path, headers, size, status, disconnects in requests:

        class AnyResponse(FileApp):
            async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
                await super().respond(scope, receive)
                return status, {"location": "/files/0", "upload-offset": str(size)}  # noqa: B023  # called in the same iteration

        messages = body_messages(b"x" * size)
        if disconnects:
            messages = [*messages[:-1], {"type": "http.disconnect"}]
        server = await send_request(
            AnyResponse(), sim.tracker, method, path, headers=headers, messages=messages
        )
        assert [each.get("status", status) for each in server.sent] == [status] * (
            0 if disconnects else 2
        )
        await sim.run(0.5)
        for shown in await uploads(sim.tracker):
            assert_consistent(shown)
            earlier = before.get(shown.upload_id, shown)
            assert (shown.attempt, shown.bytes_transferred) >= (
                earlier.attempt,
                earlier.bytes_transferred,
            )
            before[shown.upload_id] = shown
    await sim.run(10)
    assert all(each.state is not S.RECEIVING for each in await uploads(sim.tracker))
