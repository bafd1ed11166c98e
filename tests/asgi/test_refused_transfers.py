"""A refused request of an upload in several requests: what is shown is what the application has."""

from __future__ import annotations

import anyio
import pytest

from tests._support.protocol_apps import FileApp, ResponseHead, send_request
from tests._support.scripted_server import ALICE, App, Receive, Scope, Send, body_messages
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of

pytestmark = pytest.mark.anyio

S = UploadState
TUS = {"tus-resumable": "1.0.0"}
TUS_NAMED = {**TUS, "upload-id": "up"}
OCTETS = {"content-type": "application/offset+octet-stream"}
SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=a"}
OPEN = {S.RECEIVING, S.PAUSED}
"""An upload is paused two seconds after the last request at any worker."""
RAISES = 0
MAY_GO_ON = [401, 403, 409, 412, 416, 423, 425, 429, 460, 500, 503, 507, RAISES]
ENDS = [400, 404, 410, 413, 415, 422]


class Respond(FileApp):
    """Reads the body and responds with what it was given."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.response: ResponseHead = status, headers or {}

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        await super().respond(scope, receive)
        if self.response[0] == RAISES:
            raise RuntimeError
        return self.response


class Worker:
    """Sends requests to two workers that share a store, and shows the upload at both."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.trackers = [ProgressTracker(store=self.store) for _ in range(2)]
        self.requests = 0

    async def send(
        self, app: App, method: str, path: str, headers: dict[str, str], content: bytes = b""
    ) -> None:
        """Send one request, to one worker after the other."""
        tracker = self.trackers[self.requests % len(self.trackers)]
        self.requests += 1
        try:
            await send_request(app, tracker, method, path, headers=headers, content=content)
        except RuntimeError:
            assert isinstance(app, Respond)
            assert app.response[0] == RAISES
        # An end is the last version: what another worker has not stored before is not shown.
        await internals_of(tracker).flusher.flush(everything=True)

    async def shown(self) -> UploadProgress:
        """Return what both workers show."""
        for _ in range(2):
            for tracker in self.trackers:
                await internals_of(tracker).flusher.flush(everything=True)
        shown = [await self.only(tracker) for tracker in self.trackers]
        assert len({(each.state, each.bytes_transferred) for each in shown}) == 1
        return shown[0]

    async def only(self, tracker: ProgressTracker) -> UploadProgress:
        """Return Alice's only upload."""
        [found] = (await tracker.list(owner=ALICE, states=set(S))).uploads
        return found


@pytest.fixture
def worker() -> Worker:
    """Return two workers."""
    return Worker()


async def start_tus(worker: Worker, total: int = 20) -> None:
    """Create an upload and send its first 10 bytes."""
    created = Respond(201, {"location": "/files/1"})
    await worker.send(created, "POST", "/files", {**TUS, "upload-length": str(total)})
    await patch(worker, Respond(204, {"upload-offset": "10"}), 0)


async def patch(worker: Worker, app: App, offset: int) -> None:
    """Send 10 bytes."""
    headers = {**TUS, **OCTETS, "upload-offset": str(offset)}
    await worker.send(app, "PATCH", "/files/1", headers, bytes(10))


async def put_range(worker: Worker, app: App, content_range: str, content: bytes) -> None:
    """Send a part of a file."""
    headers = {"content-range": f"bytes {content_range}"}
    await worker.send(app, "PUT", "/files/a", headers, content)


def check_refused(progress: UploadProgress, status: int, has: int) -> None:
    """Check that only *has* bytes are shown, and that the upload ended if it cannot go on."""
    assert progress.bytes_transferred == has
    assert progress.state in ({S.FAILED} if status in ENDS else OPEN)
    if status in ENDS:
        assert progress.error is not None
        assert (progress.error.code, progress.error.http_status) == ("rejected", status)
    else:
        assert progress.error is None


@pytest.mark.parametrize("status", [*MAY_GO_ON, *ENDS])
async def test_last_tus_request_is_refused(worker: Worker, status: int) -> None:
    await start_tus(worker)
    await patch(worker, Respond(status), 10)

    check_refused(await worker.shown(), status, 10)


@pytest.mark.parametrize("status", MAY_GO_ON)
async def test_refused_tus_request_is_repeated(worker: Worker, status: int) -> None:
    await start_tus(worker)
    await patch(worker, Respond(status), 10)
    await patch(worker, Respond(204, {"upload-offset": "20"}), 10)

    done = await worker.shown()
    assert (done.state, done.bytes_transferred, done.percent) == (S.COMPLETED, 20, 100.0)
    assert (done.attempt, done.retransmitted_bytes) == (1, 10)


@pytest.mark.parametrize("status", [*MAY_GO_ON, *ENDS])
async def test_last_content_range_is_refused(worker: Worker, status: int) -> None:
    await put_range(worker, Respond(308, {"range": "bytes=0-9"}), "0-9/20", bytes(10))
    await put_range(worker, Respond(status), "10-19/20", bytes(10))

    check_refused(await worker.shown(), status, 10)


@pytest.mark.parametrize("status", [400, 413, 422, 500, 507, RAISES])
async def test_first_request_of_an_upload_is_refused(worker: Worker, status: int) -> None:
    """Nothing was accepted before: there is nothing that could be continued."""
    await put_range(worker, Respond(status), "0-19/20", bytes(20))

    failed = await worker.shown()
    assert (failed.state, failed.bytes_transferred) == (S.FAILED, 0)
    assert failed.error is not None
    code = "app_error" if status == RAISES else "rejected"
    assert (failed.error.code, failed.error.http_status) == (code, status or None)

    await put_range(worker, Respond(201), "0-19/20", bytes(20))
    done = await worker.shown()
    assert (done.state, done.attempt, done.bytes_transferred) == (S.COMPLETED, 2, 20)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 409, 416])
async def test_refused_request_to_an_unknown_upload_is_no_upload(
    worker: Worker, status: int
) -> None:
    await patch(worker, Respond(status), 10)
    for tracker in worker.trackers:
        await internals_of(tracker).flusher.flush(everything=True)
        assert not (await tracker.list(owner=ALICE, states=set(S))).uploads


@pytest.mark.parametrize("has", [0, 10, 13, 19])
async def test_application_has_less_than_was_sent(worker: Worker, has: int) -> None:
    await start_tus(worker)
    await patch(worker, Respond(204, {"upload-offset": str(max(10, has))}), 10)

    shown = await worker.shown()
    assert (shown.state, shown.bytes_transferred) == (S.RECEIVING, max(10, has))
    await patch(worker, Respond(204, {"upload-offset": "20"}), max(10, has))
    assert (await worker.shown()).state is S.COMPLETED


async def test_range_of_the_response_counts(worker: Worker) -> None:
    await put_range(worker, Respond(308, {"range": "bytes=0-4"}), "0-9/20", bytes(10))
    assert (await worker.shown()).bytes_transferred == 5

    await put_range(worker, Respond(308), "5-19/20", bytes(15))
    shown = await worker.shown()
    assert (shown.bytes_transferred, shown.state) == (5, S.RECEIVING)


@pytest.mark.parametrize("status", [400, 403])
async def test_oci_push_is_refused(worker: Worker, status: int) -> None:
    created = Respond(202, {"location": "/v2/a/blobs/uploads/1"})
    await worker.send(created, "POST", "/v2/a/blobs/uploads/", {})
    accepted = Respond(202, {"range": "0-9"})
    await worker.send(accepted, "PATCH", "/v2/a/blobs/uploads/1", {}, bytes(10))
    last = "/v2/a/blobs/uploads/1?digest=sha256:1"
    await worker.send(Respond(status), "PUT", last, {}, bytes(5))

    shown = await worker.shown()
    assert (shown.state, shown.bytes_transferred) == (S.FAILED, 10)


@pytest.mark.parametrize(
    ("status", "headers", "state"),
    [
        (500, {"upload-complete": "?1"}, S.FAILED),
        (422, {}, S.FAILED),
        (500, {}, S.PAUSED),
        (409, {"upload-offset": "10"}, S.PAUSED),
    ],
)
async def test_ietf_append_is_refused(
    worker: Worker, status: int, headers: dict[str, str], state: UploadState
) -> None:
    """A response with ``Upload-Complete: ?1`` is final, also an error."""
    del worker.trackers[1]
    first = {"upload-complete": "?0", "upload-length": "20"}
    created = Respond(201, {"location": "/drafts/1", "upload-offset": "10", **first})
    await worker.send(created, "POST", "/drafts", first, bytes(10))
    last = {"upload-complete": "?1", "upload-offset": "10"}
    await worker.send(Respond(status, headers), "PATCH", "/drafts/1", last, bytes(10))

    shown = await worker.shown()
    assert (shown.state, shown.bytes_transferred) == (state, 10)


@pytest.mark.parametrize(
    ("status", "state"), [(400, S.FAILED), (404, S.FAILED), (500, S.RECEIVING), (503, S.RECEIVING)]
)
async def test_s3_upload_is_not_completed(worker: Worker, status: int, state: UploadState) -> None:
    for number in (1, 2):
        path = f"/b/k?partNumber={number}&uploadId=u"
        await worker.send(Respond(200), "PUT", path, {}, bytes(10))
    await worker.send(Respond(status), "POST", "/b/k?uploadId=u", SIGNED)

    shown = await worker.shown()
    assert (shown.state, shown.bytes_transferred) == (state, 20)


async def test_refused_s3_part_is_not_counted(worker: Worker) -> None:
    await worker.send(Respond(200), "PUT", "/b/k?partNumber=1&uploadId=u", {}, bytes(10))
    await worker.send(Respond(500), "PUT", "/b/k?partNumber=2&uploadId=u", {}, bytes(10))

    shown = await worker.shown()
    assert (shown.bytes_transferred, shown.retransmitted_bytes) == (10, 10)
    assert shown.parts is not None
    assert shown.parts.received == 1


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_refused_termination_changes_nothing(worker: Worker, status: int) -> None:
    await start_tus(worker)
    await worker.send(Respond(status), "DELETE", "/files/1", TUS)

    shown = await worker.shown()
    assert (shown.finished_at, shown.bytes_transferred) == (None, 10)


async def test_watcher_sees_refused_bytes_disappear() -> None:
    tracker = ProgressTracker()
    states: list[tuple[UploadState, int]] = []
    sent: list[int] = []

    async def refuse(_scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await receive()
        await internals_of(tracker).flusher.flush(everything=True)
        sent.append((await tracker.get(created.upload_id, owner=ALICE)).bytes_transferred)
        await send({"type": "http.response.start", "status": 409, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    worker = Worker()
    worker.trackers = [tracker, tracker]
    async with tracker.lifespan():
        await start_tus(worker)
        [created] = (await tracker.list(owner=ALICE, states=set(S))).uploads
        async with tracker.watch(created.upload_id, owner=ALICE) as updates:
            first = await anext(updates)
            states.append((first.state, first.bytes_transferred))
            await send_request(
                refuse,
                tracker,
                "PATCH",
                "/files/1",
                headers={**TUS, **OCTETS, "upload-offset": "10"},
                messages=body_messages(bytes(5), bytes(5)),
            )
            async for progress in updates:
                states.append((progress.state, progress.bytes_transferred))
                if progress.state is S.PAUSED:
                    break

    assert sent == [20]
    assert states[0][1] == 10
    assert states[-1] == (S.PAUSED, 10)


@pytest.mark.parametrize("status", [409, 413])
async def test_exception_after_the_response_changes_nothing(worker: Worker, status: int) -> None:
    """The response decides, also if the earlier records are loaded only after the exception."""

    async def respond_and_raise(scope: Scope, receive: Receive, send: Send) -> None:
        await Respond(status)(scope, receive, send)
        raise RuntimeError

    await start_tus(worker)
    await worker.shown()
    worker.trackers = [ProgressTracker(store=worker.store)]
    with pytest.raises(RuntimeError):
        await send_request(
            respond_and_raise,
            worker.trackers[0],
            "PATCH",
            "/files/1",
            headers={**TUS, **OCTETS, "upload-offset": "10"},
            content=bytes(10),
        )

    check_refused(await worker.shown(), status, 10)


async def test_cancelled_application_is_no_refusal() -> None:
    """Some servers cancel the application when the client disconnects: it can go on."""
    tracker = ProgressTracker()
    worker = Worker()
    worker.trackers = [tracker]

    async def wait(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await send_request(
            wait,
            tracker,
            "PUT",
            "/files/a",
            headers={"content-range": "bytes 0-19/20"},
            messages=body_messages(bytes(10), bytes(10)),
        )
    shown = await worker.shown()
    assert (shown.state, shown.bytes_transferred, shown.error) == (S.PAUSED, 10, None)


# --- a request to an address that does not exist, under the id of another upload ------------------


@pytest.mark.parametrize("at_same_worker", [True, False])
@pytest.mark.parametrize("method", ["PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize("status", [404, 410, 403, 409, 500, RAISES])
async def test_refused_request_to_another_address_replaces_nothing(
    worker: Worker, method: str, status: int, at_same_worker: bool
) -> None:
    """The client names the upload by an id: only that tells that both requests belong together."""
    await create_named(worker, 1)
    await patch_named(worker, Respond(204, {"upload-offset": "10"}), 1, 0)
    worker.requests += at_same_worker
    headers = TUS_NAMED if method != "PATCH" else {**TUS_NAMED, **OCTETS, "upload-offset": "0"}
    content = bytes(10) if method == "PATCH" else b""
    await worker.send(Respond(status), method, "/files/none", headers, content)

    shown = await worker.shown()
    assert (shown.attempt, shown.bytes_transferred, shown.state in OPEN) == (1, 10, True)
    await patch_named(worker, Respond(204, {"upload-offset": "20"}), 1, 10)
    assert ((await worker.shown()).attempt, (await worker.shown()).state) == (1, S.COMPLETED)


@pytest.mark.parametrize("at_same_worker", [True, False])
async def test_request_to_another_address_is_undecided_until_it_is_answered(
    worker: Worker, at_same_worker: bool
) -> None:
    await create_named(worker, 1)
    await patch_named(worker, Respond(204, {"upload-offset": "10"}), 1, 0)
    worker.requests += at_same_worker
    tracker = worker.trackers[worker.requests % 2]
    seen: list[tuple[int, int]] = []

    class Look(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            answer = await super().respond(scope, receive)
            for each in worker.trackers:
                await internals_of(each).flusher.flush(everything=True)
                shown = await each.get("up", owner=ALICE)
                seen.append((shown.attempt, shown.bytes_transferred))
            return answer

    await patch_named(worker, Look(404), 2, 0)
    assert seen == [(1, 10), (1, 10)]
    await patch_named(worker, Look(204, {"upload-offset": "10"}), 2, 0)

    assert seen == [(1, 10)] * 4
    shown = await worker.shown()
    assert (shown.attempt, shown.bytes_transferred) == (2, 10)
    assert not internals_of(tracker).registry._waiting


async def test_request_to_another_address_follows_the_upload_that_ends_meanwhile(
    worker: Worker,
) -> None:
    """Its creation was not seen. Once the other upload has ended, it is the next attempt."""
    del worker.trackers[1]
    [tracker] = worker.trackers
    await create_named(worker, 1)
    seen: list[tuple[int, UploadState]] = []

    class Look(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            await internals_of(tracker).flusher.flush(everything=True)
            await patch_named(worker, Respond(204, {"upload-offset": "20"}), 1, 0, 20)
            shown = await tracker.get("up", owner=ALICE)
            seen.append((shown.attempt, shown.state))
            return await super().respond(scope, receive)

    await patch_named(worker, Look(204, {"upload-offset": "10"}), 2, 0)

    assert seen == [(2, S.RECEIVING)]
    shown = await worker.shown()
    assert (shown.attempt, shown.bytes_transferred) == (2, 10)


async def create_named(worker: Worker, number: int) -> None:
    """Create an upload of 20 bytes, named by the client."""
    created = Respond(201, {"location": f"/files/{number}"})
    await worker.send(created, "POST", "/files", {**TUS_NAMED, "upload-length": "20"})


async def patch_named(worker: Worker, app: App, number: int, offset: int, size: int = 10) -> None:
    """Send bytes of an upload that the client names."""
    headers = {**TUS_NAMED, **OCTETS, "upload-offset": str(offset)}
    await worker.send(app, "PATCH", f"/files/{number}", headers, bytes(size))


async def test_requests_to_other_addresses_wait_together(worker: Worker) -> None:
    del worker.trackers[1]
    registry = internals_of(worker.trackers[0]).registry
    waiting: list[int] = []

    class Nested(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            answer = await super().respond(scope, receive)
            waiting.append(sum(map(len, registry._waiting.values())))
            if len(waiting) < 3:
                await send_request(
                    Nested(404), worker.trackers[0], "PATCH", "/files/2", headers=headers
                )
            return answer

    headers = {**TUS_NAMED, **OCTETS, "upload-offset": "0"}
    await create_named(worker, 1)

    class Whole(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            answer = await super().respond(scope, receive)
            await internals_of(worker.trackers[0]).flusher.flush(everything=True)
            await send_request(
                Nested(404), worker.trackers[0], "PATCH", "/files/3", headers=headers
            )
            return answer

    await patch_named(worker, Whole(204, {"upload-offset": "20"}), 1, 0, 20)

    assert waiting == [1, 2, 3]
    assert not registry._waiting
    shown = await worker.shown()
    assert (shown.attempt, shown.state) == (1, S.COMPLETED)


async def test_request_that_a_cancel_stops_begins_no_other_upload(worker: Worker) -> None:
    """Its address is not that of the upload: the owner has cancelled what the id names."""
    del worker.trackers[1]
    await create_named(worker, 1)
    await patch_named(worker, Respond(204, {"upload-offset": "10"}), 1, 0)
    await worker.trackers[0].cancel("up", owner=ALICE)
    await patch_named(worker, Respond(204, {"upload-offset": "10"}), 2, 0)

    shown = await worker.shown()
    assert (shown.attempt, shown.state) == (1, S.CANCELLED)


async def test_creation_is_shown_after_the_refusal_of_a_request_to_nothing(worker: Worker) -> None:
    """The request had begun after the creation, and has ended before it."""
    del worker.trackers[1]

    class Create(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            answer = await super().respond(scope, receive)
            await patch_named(worker, Nothing(404), 2, 0)
            return answer

    class Nothing(Respond):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            answer = await super().respond(scope, receive)
            await internals_of(worker.trackers[0]).flusher.flush(everything=True)
            return answer

    headers = {**TUS_NAMED, "upload-length": "20"}
    await worker.send(Create(201, {"location": "/files/1"}), "POST", "/files", headers)

    shown = await worker.shown()
    assert (shown.state, shown.total_bytes) == (S.PENDING, 20)
