"""Requests of uploads in many requests that make no sense.

The application's answer stays what it is, the numbers stay true, and nothing of ours raises.
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
OCTETS = {"content-type": "application/offset+octet-stream"}
NUMBERS = ["-1", "-0", "5-4", "1e3", "0x10", "٣", "", " ", "*", str(2**53), str(2**63), "9" * 400]


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    """Return the tracker of a process."""
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


async def uploads(tracker: ProgressTracker, owner: Identity = ALICE) -> list[UploadProgress]:
    """Return all of an owner's, whatever became of them."""
    return list((await tracker.list(owner=owner, states=set(S))).uploads)


async def only(tracker: ProgressTracker) -> UploadProgress:
    """Return Alice's only one."""
    [shown] = await uploads(tracker)
    return shown


def assert_true(shown: UploadProgress) -> None:
    """Check that the numbers of an upload agree with each other."""
    total = shown.total_bytes
    assert 0 <= shown.bytes_transferred <= (2**53 if total is None else total)
    assert shown.percent is None or 0 <= shown.percent <= 100
    assert shown.retransmitted_bytes >= 0


@pytest.mark.parametrize("offset", [*NUMBERS, None])
async def test_a_tus_offset_that_is_none(tracker: ProgressTracker, offset: str | None) -> None:
    class Lenient(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if scope["method"] != "PATCH":
                return await super().respond(scope, receive)
            await self.append(scope["path"], receive)
            return 418, {"upload-offset": offset or "none"}

    shop = Lenient()
    await send_request(shop, tracker, "POST", "/files", headers={**TUS, "upload-length": "30"})
    headers = {**TUS, **OCTETS} | ({} if offset is None else {"upload-offset": offset})
    raw = [(key, value.encode()) for key, value in headers.items()]
    server = await send_request(
        shop, tracker, "PATCH", "/files/0", content=b"x" * 10,
        headers={key: value.decode("latin-1") for key, value in raw},
    )  # fmt: skip

    assert server.status == 418
    shown = await only(tracker)
    assert_true(shown)
    assert shown.total_bytes == 30
    assert not shown.finished_at


@pytest.mark.parametrize("length", NUMBERS)
async def test_a_tus_length_that_is_none(tracker: ProgressTracker, length: str) -> None:
    shop = FileApp()
    raw = length.encode().decode("latin-1")
    server = await send_request(
        shop, tracker, "POST", "/files", headers={**TUS, "upload-length": raw}
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
async def test_a_range_that_is_none(tracker: ProgressTracker, announced: str) -> None:
    """It is an upload like any other, as large as its body."""
    headers = {"content-range": announced, "upload-id": "ranged"}
    server = await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)

    assert server.status == 200
    shown = await only(tracker)
    assert (shown.state, shown.bytes_transferred, shown.total_bytes) == (S.COMPLETED, 10, 10)


async def test_ranges_that_overlap_count_once(tracker: ProgressTracker) -> None:
    for first, last in ((0, 9), (5, 14), (0, 9), (14, 19)):
        headers = {"content-range": f"bytes {first}-{last}/20"}
        content = b"x" * (last - first + 1)
        await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=content)

    shown = await only(tracker)
    assert (shown.state, shown.bytes_transferred) == (S.COMPLETED, 20)
    assert shown.retransmitted_bytes == 5 + 10 + 1


async def test_a_range_that_the_server_will_not_have(tracker: ProgressTracker) -> None:
    shop = ContentRangeApp()
    headers = {"content-range": "bytes 0-9/30"}
    await send_request(shop, tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
    headers = {"content-range": "bytes 0-9/30"}
    server = await send_request(shop, tracker, "PUT", "/a", headers=headers, content=b"x" * 10)

    assert server.status == 416
    shown = await only(tracker)
    assert (shown.state, shown.bytes_transferred) == (S.PAUSED, 10)


async def test_a_total_that_changes_stays_the_first(tracker: ProgressTracker) -> None:
    for total in (30, 20, 40):
        headers = {"content-range": f"bytes 0-9/{total}"}
        await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
        assert_true(await only(tracker))

    shown = await only(tracker)
    assert (shown.total_bytes, shown.bytes_transferred, shown.finished_at) == (30, 10, None)


async def test_more_than_was_announced_never_exceeds_the_total(tracker: ProgressTracker) -> None:
    headers = {"content-range": "bytes 0-9/20"}
    await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 1000)

    shown = await only(tracker)
    assert (shown.bytes_transferred, shown.total_bytes) == (10, 20)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "1.5", "", "x", str(2**63)])
async def test_a_part_without_a_number_is_no_part(tracker: ProgressTracker, number: str) -> None:
    await send_request(S3App(), tracker, "PUT", "/b/k?partNumber=1&uploadId=a", content=b"x" * 10)
    address = f"/b/k?partNumber={number}&uploadId=a"
    server = await send_request(S3App(), tracker, "PUT", address, content=b"x" * 10)

    assert server.status == 200
    shown = await only(tracker)
    assert shown.bytes_transferred == 10
    assert shown.parts
    assert shown.parts.received == 1


async def test_a_part_twice_at_once_counts_once(tracker: ProgressTracker) -> None:
    shop, address = S3App(), "/b/k?partNumber=1&uploadId=a"
    async with anyio.create_task_group() as tasks:
        for content in (b"x" * 10, b"y" * 20):

            async def put(content: bytes) -> None:
                await send_request(shop, tracker, "PUT", address, content=content)

            tasks.start_soon(put, content)

    shown = await only(tracker)
    assert (shown.bytes_transferred, shown.retransmitted_bytes) == (20, 10)
    assert shown.parts
    assert shown.parts.received == 1


async def test_the_resource_of_somebody_else_stays_theirs() -> None:
    """Bob appends to what Alice created: the server refuses, and Alice's is where it was."""
    sim, bob = Simulation(), Identity("bob")

    class Private(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if ("x-user", "bob") in {(k.decode(), v.decode()) for k, v in scope["headers"]}:
                await self.append("/files/0", receive)
                return 404, {}
            return await super().respond(scope, receive)

    def whose(connection: Connection) -> Identity:
        return Identity(connection.header("x-user") or "alice")

    shop = Private()
    ann = {"x-user": "alice"}
    length = {"upload-length": "30"}
    await send_request(
        shop, sim.tracker, "POST", "/files", headers={**TUS, **ann, **length}, authenticate=whose
    )
    for attempt in range(2):
        headers = {**TUS, **OCTETS, "upload-offset": "0", "x-user": "bob"}
        if attempt:
            [hers] = await uploads(sim.tracker, Identity("alice"))
            headers["upload-id"] = hers.upload_id
        server = await send_request(
            shop, sim.tracker, "PATCH", "/files/0", headers=headers, content=b"x" * 10,
            authenticate=whose,
        )  # fmt: skip
        assert server.status == 404
    await sim.run(5)

    [hers] = await uploads(sim.tracker, Identity("alice"))
    assert (hers.bytes_transferred, hers.finished_at) == (0, None)
    assert await uploads(sim.tracker, bob) == []
    assert len(sim.parts.registry) <= 1


@pytest.mark.parametrize("listed", ["/files/99", "https://elsewhere.example/files/0", ";;", "%ff"])
async def test_a_final_post_of_what_is_not_there(listed: str) -> None:
    sim = Simulation()
    headers = {**TUS, "upload-concat": f"final;{listed}"}
    server = await send_request(FileApp(), sim.tracker, "POST", "/files", headers=headers)
    assert server.status == 200
    for shown in await uploads(sim.tracker):
        assert (shown.bytes_transferred, shown.finished_at) == (0, None)
    await sim.run(5)

    assert await uploads(sim.tracker) == []
    assert len(sim.parts.registry) == 0


async def test_a_digest_that_does_not_match_ends_nothing() -> None:
    sim, shop = Simulation(), OciApp()
    start = await send_request(shop, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    await send_request(shop, sim.tracker, "PATCH", path, content=b"x" * 10)
    bad = await send_request(shop, sim.tracker, "PUT", f"{path}?digest=bad")
    assert bad.status == 400
    await sim.run(5)

    shown = await only(sim.tracker)
    assert (shown.state, shown.bytes_transferred) == (S.PAUSED, 10)


async def test_a_mixture_of_protocols_is_as_many_uploads(tracker: ProgressTracker) -> None:
    """The first protocol that knows a request has it; what another sends is its own."""
    everything = {
        **TUS,
        **OCTETS,
        "upload-offset": "0",
        "upload-complete": "?0",
        "content-range": "bytes 0-9/30",
        "x-amz-decoded-content-length": "10",
    }
    address = "/v2/a/blobs/uploads/1?uploadId=a&partNumber=1"
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        server = await send_request(
            FileApp(), tracker, method, address, headers=everything, content=b"x" * 10
        )
        assert server.status == 200
    for each in await uploads(tracker):
        assert_true(each)


async def test_one_name_for_two_protocols_is_two_uploads(tracker: ProgressTracker) -> None:
    named = {"upload-id": "chosen"}
    headers = {**named, "content-range": "bytes 0-9/30"}
    await send_request(FileApp(), tracker, "PUT", "/a", headers=headers, content=b"x" * 10)
    headers = {**named, **TUS, **OCTETS, "upload-offset": "0", "upload-length": "30"}
    server = await send_request(
        FileApp(), tracker, "PATCH", "/files/0", headers=headers, content=b"x" * 10
    )

    assert server.status == 200
    for each in await uploads(tracker):
        assert_true(each)
        assert each.total_bytes == 30


async def test_a_draft_that_is_given_up(tracker: ProgressTracker) -> None:
    shop = IetfApp()
    await send_request(
        shop, tracker, "POST", "/drafts", headers={"upload-complete": "?0"}, content=b"x" * 10
    )
    gone = {"upload-draft-interop-version": "8"}
    assert (await send_request(shop, tracker, "DELETE", "/drafts/0", headers=gone)).status == 204

    shown = await only(tracker)
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
            *("0-9", "PATCH", OCTETS["content-type"], "final;/files/0", "filename YQ=="),
        ]
    ),
)
STEPS = st.lists(
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


@given(STEPS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_series_of_requests_leaves_true_numbers(
    steps: list[tuple[str, str, dict[str, str], int, int, bool]],
) -> None:
    sim, before = Simulation(), dict[str, UploadProgress]()
    for method, path, headers, size, status, breaks in steps:

        class Any(FileApp):
            async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
                await super().respond(scope, receive)
                return status, {"location": "/files/0", "upload-offset": str(size)}  # noqa: B023  # answered in this round

        messages = body_messages(b"x" * size)
        if breaks:
            messages = [*messages[:-1], {"type": "http.disconnect"}]
        server = await send_request(
            Any(), sim.tracker, method, path, headers=headers, messages=messages
        )
        assert [each.get("status", status) for each in server.sent] == [status] * (
            0 if breaks else 2
        )
        await sim.run(0.5)
        for shown in await uploads(sim.tracker):
            assert_true(shown)
            earlier = before.get(shown.upload_id, shown)
            assert (shown.attempt, shown.bytes_transferred) >= (
                earlier.attempt,
                earlier.bytes_transferred,
            )
            before[shown.upload_id] = shown
    await sim.run(10)
    assert all(each.state is not S.RECEIVING for each in await uploads(sim.tracker))
