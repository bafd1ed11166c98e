"""An upload in several requests: pauses, faults, retries, and requests at the same time."""

from __future__ import annotations

import pytest
from attrs import define, evolve

from tests._support.open_requests import OpenRequest
from tests._support.protocol_apps import (
    ContentRangeApp,
    FileApp,
    OciApp,
    ResponseHead,
    TusApp,
    send_request,
    upload_id_of,
)
from tests._support.records import record
from tests._support.scripted_server import ALICE, Receive, Scope, Send, body_messages
from tests._support.simulation import Simulation
from upload_progress import Identity, UploadProgress, UploadState
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._tracking import outcomes
from upload_progress._tracking import registry as registry_module
from upload_progress._tracking.live_record import current_snapshot, record_of, records_with
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import CANCELLED_SECONDS
from upload_progress._tracking.status import Moment, Reporting
from upload_progress.asgi import current_upload
from upload_progress.connection import Connection
from upload_progress.protocols import (
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    Tus,
)
from upload_progress.throttling import NEVER

pytestmark = pytest.mark.anyio

S = UploadState
TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}
PATH = "/files/0"


async def only_upload(sim: Simulation) -> UploadProgress:
    [shown] = (await sim.tracker.list(owner=ALICE, states=set(S))).uploads
    return shown


def live_upload_id(sim: Simulation) -> str:
    [live] = sim.internals.registry.everything()
    return live.upload_id


async def create(sim: Simulation, app: TusApp, length: int = 30) -> None:
    headers = {**TUS, "upload-length": str(length)}
    assert (await send_request(app, sim.tracker, "POST", "/files", headers=headers)).status == 201


async def patch(sim: Simulation, app: TusApp, offset: int, content: bytes) -> int | None:
    headers = {**TUS, **OCTETS, "upload-offset": str(offset)}
    server = await send_request(app, sim.tracker, "PATCH", PATH, headers=headers, content=content)
    return server.status


@define(eq=False)
class Request(OpenRequest):
    """One request of an upload."""

    def begin(self) -> None:
        """Begin to receive."""
        self.upload.begin(self.transfer)

    def add(self, size: int) -> None:
        """Receive *size* bytes."""
        self.transfer.meter.add(size)

    def end(self, outcome: TransferOutcome) -> None:
        """End with that outcome."""
        outcomes.end_transfer(self.upload, self.transfer, outcome)


def transfer(sim: Simulation, head: TransferHead, requested_id: str | None = None) -> Request:
    """Return a request of which no byte has arrived."""
    return Request(
        sim.internals.admission.open_transfer(
            head,
            Tus(),
            requested_id=requested_id,
            is_proxied=False,
            total_bytes=head.total_bytes,
            filename=head.filename,
        )
    )


def upload_of(request: Request) -> LiveUpload:
    """Return the upload to which *request* belongs."""
    return request.upload


def part(number: int, total: int | None = None) -> TransferHead:
    return TransferHead(
        "s3",
        TransferKind.BYTES,
        "/b/k?uploadId=a",
        part=str(number),
        total_bytes=total,
        is_sequential=False,
    )


async def test_upload_pauses_between_requests_and_resumes(sim: Simulation) -> None:
    app = TusApp()
    await create(sim, app)
    await patch(sim, app, 0, b"x" * 10)
    await sim.run(1.5)
    assert (await only_upload(sim)).state is S.RECEIVING

    await sim.run(1)
    paused = await only_upload(sim)
    assert (paused.state, paused.bytes_transferred, paused.stalled) == (S.PAUSED, 10, False)
    assert len(sim.internals.registry) == 0

    await patch(sim, app, 10, b"y" * 20)
    await sim.run(1)
    completed = await only_upload(sim)
    assert (completed.state, completed.bytes_transferred, completed.attempt) == (S.COMPLETED, 30, 1)
    assert completed.created_at == paused.created_at
    assert completed.started_at == paused.started_at
    assert [event.state for event in sim.events(completed.upload_id)][-1] is S.COMPLETED
    sequences = [event.sequence for event in sim.events(completed.upload_id)]
    assert sequences == sorted(set(sequences))


async def test_late_request_to_a_completed_upload_changes_nothing(sim: Simulation) -> None:
    app = TusApp()
    await create(sim, app, 10)
    await patch(sim, app, 0, b"x" * 10)
    await sim.run(5)
    completed = await only_upload(sim)
    assert completed.state is S.COMPLETED

    assert await patch(sim, app, 0, b"y" * 5) == 409
    await sim.run(5)

    late = await only_upload(sim)
    assert (late.state, late.attempt, late.bytes_transferred) == (S.COMPLETED, 1, 10)
    assert len(sim.internals.registry) == 0


async def test_application_fails_the_upload(sim: Simulation) -> None:
    class FailingApp(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if scope["method"] == "PATCH":
                current_upload(scope).fail("not today")
            return await super().respond(scope, receive)

    app = FailingApp()
    await create(sim, app)
    await patch(sim, app, 0, b"x" * 10)

    failed = await only_upload(sim)
    assert failed.state is S.FAILED
    assert failed.error is not None
    assert failed.error.message == "not today"


async def test_interrupted_creation_fails(sim: Simulation) -> None:
    app = TusApp()
    headers = {**TUS, **OCTETS, "upload-length": "30"}
    messages = [*body_messages(b"x" * 10)[:-1], {"type": "http.disconnect"}]
    await send_request(app, sim.tracker, "POST", "/files", headers=headers, messages=messages)

    failed = await only_upload(sim)
    assert (failed.state, failed.bytes_transferred) == (S.FAILED, 10)


async def test_requests_are_counted_during_a_store_outage(sim: Simulation) -> None:
    app = TusApp()
    await create(sim, app)
    sim.store.fault = "raise"
    await patch(sim, app, 0, b"x" * 10)
    await sim.run(1)
    assert (await sim.tracker.get(live_upload_id(sim), owner=ALICE)).bytes_transferred == 10

    sim.store.fault = None
    await patch(sim, app, 10, b"y" * 20)
    await sim.run(8)
    assert (await only_upload(sim)).state is S.COMPLETED


async def test_requests_with_the_same_upload_id_are_merged(sim: Simulation) -> None:
    creation = TransferHead(
        "tus", TransferKind.CREATE, resource_may_be_part=True, part_total_bytes=30
    )
    first = transfer(sim, creation, "named")
    second = transfer(sim, evolve(creation, filename="a", carries_bytes=False), "named")
    third = transfer(sim, TransferHead("tus", TransferKind.BYTES, PATH), "named")
    third.begin()
    for each in (first, second, third):
        assert sim.internals.admission.admit(upload_of(each), ALICE)
    assert upload_of(first) is upload_of(second) is upload_of(third)
    second.begin()
    assert upload_of(first).started_at is not None
    assert len(sim.internals.registry) == 1


async def test_second_creation_of_an_upload_is_the_next_attempt(sim: Simulation) -> None:
    """The client has lost the response to the first one, and uploads to another resource."""
    creation = TransferHead("tus", TransferKind.CREATE, total_bytes=30)
    first, second = transfer(sim, creation, "named"), transfer(sim, creation, "named")
    for each in (first, second):
        assert sim.internals.admission.admit(upload_of(each), ALICE)
        each.begin()
        each.add(5)
    assert upload_of(first) is not upload_of(second)
    shown = await only_upload(sim)
    assert (shown.attempt, shown.bytes_transferred) == (2, 5)


async def test_cancel_stops_a_request_once(sim: Simulation) -> None:
    stopped = list[str]()
    one, other = transfer(sim, part(1)), transfer(sim, part(2))
    for each in (one, other):
        assert sim.internals.admission.admit(upload_of(each), ALICE)
        each.begin()
    one.transfer.on_cancel = lambda: stopped.append("one")
    upload_of(one).cancel()
    upload_of(one).cancel()
    assert stopped == ["one"]
    assert upload_of(one).state is S.CANCELLED


async def test_pieces_of_the_attempt_after_a_cancel_are_not_stopped(sim: Simulation) -> None:
    """The client begins again at byte 0, and pauses before the next piece."""
    app = FileApp()

    async def put(first: int, last: int) -> int | None:
        headers = {"content-range": f"bytes {first}-{last}/30", "upload-id": "named"}
        content = b"x" * (last + 1 - first)
        return (
            await send_request(app, sim.tracker, "PUT", PATH, headers=headers, content=content)
        ).status

    assert await put(0, 9) == 200
    await sim.tracker.cancel("named", owner=ALICE)
    await sim.run(1)
    assert await put(10, 19) == 409

    assert await put(0, 9) == 200
    await sim.run(4)
    assert (await only_upload(sim)).state is S.PAUSED
    assert await put(10, 19) == 200
    assert await put(20, 29) == 200
    await sim.run(1)
    shown = await only_upload(sim)
    assert (shown.state, shown.attempt, shown.bytes_transferred) == (S.COMPLETED, 2, 30)


async def test_client_that_asks_before_it_continues_is_told_of_the_cancel(sim: Simulation) -> None:
    """The query is tracked, and the store not read yet, when the next piece arrives."""
    app = TusApp()
    await create(sim, app)
    await patch(sim, app, 0, b"x" * 10)
    await sim.tracker.cancel((await only_upload(sim)).upload_id, owner=ALICE)
    await sim.run(1)

    assert (await send_request(app, sim.tracker, "HEAD", PATH, headers=TUS)).status == 410
    assert await patch(sim, app, 10, b"x" * 20) == 410
    await sim.run(1)
    shown = await only_upload(sim)
    assert (shown.state, shown.bytes_transferred) == (S.CANCELLED, 10)


async def test_cancel_at_this_worker_stops_no_upload_that_began_elsewhere(sim: Simulation) -> None:
    """After a while only the store knows whether the cancelled upload is still the newest one."""
    key = UploadKey(ALICE.id, "named")
    now = Moment(sim.clock.monotonic(), sim.clock.time())
    sim.internals.registry.remember_cancelled(key, now)
    head = TransferHead("range", TransferKind.BYTES, PATH, offset=10, resource_is_unique=False)
    early = transfer(sim, head, "named")
    assert sim.internals.admission.admit(upload_of(early), ALICE)
    assert early.transfer.is_stopped
    await sim.run(CANCELLED_SECONDS + 1)

    late = transfer(sim, head, "named")
    assert sim.internals.admission.admit(upload_of(late), ALICE)
    assert not late.transfer.is_stopped


async def test_end_at_another_worker_is_not_published_again(sim: Simulation) -> None:
    """A watcher here sees it with a sequence that contains the versions of this worker."""
    subscription = sim.internals.subscribe()
    subscription.add_owner(ALICE.id)
    app = FileApp()

    async def put(first: int, last: int) -> None:
        headers = {"content-range": f"bytes {first}-{last}/30", "upload-id": "named"}
        content = b"x" * (last + 1 - first)
        await send_request(app, sim.tracker, "PUT", PATH, headers=headers, content=content)

    for first in (0, 10):
        await put(first, first + 9)
        await sim.run(1)
    [own] = await sim.memory.load(UploadKey(ALICE.id, "named"))
    assert own.sequence > 1
    now = sim.clock.time()
    end = evolve(
        own,
        transfer_id="other-worker",
        sequence=1,
        state=S.COMPLETED,
        byte_ranges=(("", 20, 30, True),),
        started_at=now,
        finished_at=now,
        worker=None,
    )
    await sim.memory.save([end])
    await put(15, 19)
    await sim.run(1)

    published = [each.sequence for each in sim.events("named")]
    assert published == sorted(set(published))
    assert sim.events("named")[-1].state is S.RECEIVING
    shown = subscription.take()[-1].progress
    assert (shown.state, shown.bytes_transferred) == (S.COMPLETED, 30)
    assert shown.sequence > published[-1]


async def test_upload_stalls_if_no_request_receives_bytes(sim: Simulation) -> None:
    one, other = transfer(sim, part(1)), transfer(sim, part(2))
    for each in (one, other):
        assert sim.internals.admission.admit(upload_of(each), ALICE)
        each.begin()
        each.add(5)
        each.transfer.meter.is_waiting = True
    await sim.run(35)
    assert (await only_upload(sim)).stalled
    other.transfer.meter.received_bytes += 5
    other.upload.check_due(other.transfer)
    await sim.run(1)
    shown = await only_upload(sim)
    assert (shown.stalled, shown.bytes_transferred) == (False, 15)


async def test_bytes_to_the_next_gate_are_divided_among_requests(sim: Simulation) -> None:
    transfers = [transfer(sim, part(number, 10_000_000)) for number in (1, 2)]
    for each in transfers:
        assert sim.internals.admission.admit(upload_of(each), ALICE)
        each.begin()
    await sim.run(1)
    gate = upload_of(transfers[0]).meter.gate_bytes
    assert {each.transfer.meter.gate_bytes for each in transfers} == {gate // 2}

    transfers[0].transfer.meter.received_bytes = gate // 2
    upload_of(transfers[0]).check_due(transfers[0].transfer)
    assert [upload_of(transfers[0]).reporting is Reporting.DUE] == [False]
    assert transfers[0].transfer.meter.gate_bytes == gate // 2 + gate // 4
    transfers[1].transfer.meter.received_bytes = gate - gate // 2
    upload_of(transfers[1]).check_due(transfers[1].transfer)
    assert [upload_of(transfers[0]).reporting is Reporting.DUE] == [True]
    assert {each.transfer.meter.gate_bytes for each in transfers} == {NEVER}


async def test_superseded_upload_adds_no_record_to_those_of_other_workers(sim: Simulation) -> None:
    """Its only request was refused before its prior state was loaded."""
    opened = upload_of(transfer(sim, part(1)))
    own = record_of(opened, opened.context.now())
    assert records_with(opened, own) == [own]
    other = evolve(own, owner="ann", transfer_id="elsewhere")
    opened.track("up", "ann")
    opened.prior_records = (other,)
    opened.supersede()
    assert records_with(opened, own) == [other]


async def test_response_sets_the_total(sim: Simulation) -> None:
    """None of the included protocols does this; others may."""
    request = transfer(sim, part(1))
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    request.add(5)
    request.end(TransferOutcome(TransferResult.ACCEPTED, total_bytes=10))
    shown = await only_upload(sim)
    assert (shown.bytes_transferred, shown.total_bytes) == (5, 10)


async def test_claim_of_a_request_sets_the_owner_of_the_upload(sim: Simulation) -> None:
    request = transfer(sim, part(1))
    assert upload_of(request).claim(ALICE)
    request.begin()
    assert (await only_upload(sim)).state is S.RECEIVING


async def test_disconnect_after_the_last_byte_does_not_end_the_request(sim: Simulation) -> None:
    request = transfer(sim, part(1))
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    request.add(5)
    request.upload.end_body(request.transfer)
    outcomes.client_disconnected(request.upload, request.transfer)
    assert upload_of(request).transfers
    outcomes.finish(request.upload, 200, request.transfer)
    assert not upload_of(request).transfers
    outcomes.finish(request.upload, 200, request.transfer)


async def test_chunks_without_an_offset_are_appended(sim: Simulation) -> None:
    app = OciApp()
    start = await send_request(app, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    for _ in range(2):
        await send_request(app, sim.tracker, "PATCH", path, content=b"x" * 10)
        await sim.run(0.5)
    assert (await only_upload(sim)).bytes_transferred == 20
    await send_request(app, sim.tracker, "PUT", f"{path}?digest=good", content=b"y" * 5)
    completed = await only_upload(sim)
    assert completed.state is S.COMPLETED
    assert (completed.bytes_transferred, completed.total_bytes) == (25, 25)


async def test_final_request_of_an_empty_upload_has_a_total(sim: Simulation) -> None:
    """An OCI client may push a blob in the final ``PUT`` alone."""
    app = OciApp()
    start = await send_request(app, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    shown: list[UploadProgress] = []

    class ObservedApp(OciApp):
        async def append(self, path: str, receive: Receive) -> int:
            await sim.run(0.5)
            size = await super().append(path, receive)
            shown.append(await only_upload(sim))
            return size

    observed = ObservedApp(files=app.files)
    await send_request(observed, sim.tracker, "PUT", f"{path}?digest=good", content=b"y" * 5)
    assert [(each.bytes_transferred, each.total_bytes) for each in shown] == [(5, 5)]
    assert (await only_upload(sim)).state is S.COMPLETED


@pytest.mark.parametrize(
    ("offset", "is_refused", "expected"), [(8, False, 20), (11, False, 9), (8, True, 12)]
)
async def test_failed_upload_is_resumed_by_its_id(
    sim: Simulation, offset: int, is_refused: bool, expected: int
) -> None:
    """As ``curl -C`` does: the bytes before count if they have arrived and were not refused."""

    async def failing_app(_scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(1 if is_refused else 2):
            await receive()
        raise ConnectionError

    upload_id = {"upload-id": "chosen-by-curl"}
    messages = [*body_messages(b"x" * 10)[:1], {"type": "http.disconnect"}]
    await send_request(failing_app, sim.tracker, "PUT", "/a", headers=upload_id, messages=messages)
    await sim.run(1)
    before = await only_upload(sim)
    assert (before.state, before.bytes_transferred, before.attempt) == (S.FAILED, 10, 1)

    headers = {**upload_id, "content-range": f"bytes {offset}-19/20"}
    app = FileApp()
    await send_request(app, sim.tracker, "PUT", "/a", headers=headers, content=b"x" * (20 - offset))
    resumed = await only_upload(sim)
    assert (resumed.bytes_transferred, resumed.attempt, resumed.total_bytes) == (expected, 2, 20)
    assert (resumed.state is S.COMPLETED) == (expected == 20)


@pytest.mark.parametrize("named", range(16), ids="{:04b}".format)
async def test_id_in_some_of_the_requests_of_a_tus_upload(sim: Simulation, named: int) -> None:
    """The bytes of the resource are counted once, whether a request names the upload or not."""
    app, seen = TusApp(), []
    requests = [
        ("PATCH", PATH, {**OCTETS, "upload-offset": "0"}, b"x" * 20),
        ("HEAD", PATH, {}, b""),
        ("PATCH", PATH, {**OCTETS, "upload-offset": "20"}, b"x" * 10),
        ("HEAD", PATH, {}, b""),
    ]
    name = {"upload-id": "chosen"}
    headers = {**TUS, **name, "upload-length": "30"}
    await send_request(app, sim.tracker, "POST", "/files", headers=headers)
    for number, (method, path, own, content) in enumerate(requests):
        headers = {**TUS, **own, **(name if named >> number & 1 else {})}
        server = await send_request(
            app, sim.tracker, method, path, headers=headers, content=content
        )
        assert server.status in {200, 204}
        shown = await only_upload(sim)
        seen.append((shown.upload_id, shown.bytes_transferred, shown.total_bytes))

    assert seen == [("chosen", 20, 30)] * 2 + [("chosen", 30, 30)] * 2
    assert shown.state is S.COMPLETED


async def test_id_chosen_by_the_client_is_remembered_for_the_resource(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_RESOURCES", 1)
    app = ContentRangeApp()
    for path, upload_id in (("/a", "chosen-for-a"), ("/b", "chosen-for-b")):
        headers = {"content-range": "bytes 0-9/20", "upload-id": upload_id}
        server = await send_request(
            app, sim.tracker, "PUT", path, headers=headers, content=b"x" * 10
        )
        assert upload_id_of(server) == upload_id
    headers = {"content-range": "bytes 10-19/20"}
    server = await send_request(app, sim.tracker, "PUT", "/b", headers=headers, content=b"y" * 10)
    assert upload_id_of(server) == "chosen-for-b"
    # The oldest resource is forgotten: its requests get the id that follows from the resource.
    server = await send_request(app, sim.tracker, "PUT", "/a", headers=headers, content=b"y" * 10)
    assert upload_id_of(server).startswith("range-")


async def test_upload_without_an_owner_is_received(sim: Simulation) -> None:
    def no_identity(_connection: Connection) -> Identity | None:
        return None

    app = TusApp()
    for upload_id in ({}, {"upload-id": "chosen"}):
        headers = {**TUS, **upload_id, "upload-length": "30"}
        server = await send_request(
            app, sim.tracker, "POST", "/files", headers=headers, authenticate=no_identity
        )
        assert server.status == 201
        assert "upload-id" not in server.headers
    assert len(sim.internals.registry) == 0


async def test_request_without_bytes_does_not_begin_the_upload(sim: Simulation) -> None:
    request = transfer(sim, TransferHead("tus", TransferKind.CREATE, carries_bytes=False))
    request.begin()
    assert upload_of(request).state is S.PENDING
    assert request.transfer.content_bytes == 0


async def test_abort_cancels_the_upload(sim: Simulation) -> None:
    head = TransferHead("s3", TransferKind.ABORT, "/b/k?uploadId=a", carries_bytes=False)
    request = transfer(sim, head)
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    request.upload.end_body(request.transfer)
    request.end(TransferOutcome(TransferResult.ABORTED))

    assert (await only_upload(sim)).state is S.CANCELLED


# --- other workers --------------------------------------------------------------------------------


async def begin_with_record_of_another_worker(
    sim: Simulation,
) -> tuple[Request, TransferRecord]:
    """Begin a request of an upload of which another worker has stored the first 10 bytes."""
    request = transfer(sim, part(2), "up")
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    stored = record(
        owner=ALICE.id,
        protocol="s3",
        received_bytes=10,
        byte_ranges=(("1", 0, 10, True),),
        total_bytes=30,
        filename="a.bin",
        group="g",
    )
    await sim.memory.save([stored])
    return request, stored


async def test_bytes_of_another_worker_are_added(sim: Simulation) -> None:
    request, _ = await begin_with_record_of_another_worker(sim)
    request.add(5)
    await sim.run(1)

    shown = await only_upload(sim)
    assert (shown.bytes_transferred, shown.total_bytes) == (15, 30)
    assert (shown.filename, shown.group) == ("a.bin", "g")


async def test_end_at_another_worker_pauses_the_upload(sim: Simulation) -> None:
    request, stored = await begin_with_record_of_another_worker(sim)
    await sim.run(1)
    ended = evolve(stored, sequence=2, state=S.FAILED, finished_at=sim.clock.time(), worker=None)
    await sim.memory.save([ended])
    outcomes.app_raised(request.upload, request.transfer)
    await sim.run(1)

    assert upload_of(request).has_ended_elsewhere
    assert (await only_upload(sim)).state is S.FAILED
    assert len(sim.internals.registry) == 0


async def test_final_request_completes_the_parts_of_another_worker(sim: Simulation) -> None:
    """Here their number is not known before the store has been read."""
    head = TransferHead("s3", TransferKind.COMPLETE, "/b/k?uploadId=a", carries_bytes=False)
    request = transfer(sim, head, "up")
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    parts = (("1", 0, 10, True), ("2", 0, 5, True))
    await sim.memory.save([record(owner=ALICE.id, protocol="s3", byte_ranges=parts)])
    request.begin()
    request.end(TransferOutcome(TransferResult.COMPLETED))
    assert not upload_of(request).is_ended
    await sim.run(1)

    shown = await only_upload(sim)
    assert (shown.state, shown.bytes_transferred) == (S.COMPLETED, 15)


async def test_bytes_that_the_server_confirms_are_counted(sim: Simulation) -> None:
    """Whichever worker received the rest of the part."""
    request = transfer(sim, part(1))
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    request.add(5)
    request.end(TransferOutcome(TransferResult.ACCEPTED, offset=20))

    assert (await only_upload(sim)).bytes_transferred == 20


async def test_record_of_an_earlier_request_is_continued(sim: Simulation) -> None:
    app = TusApp()
    await create(sim, app)
    await patch(sim, app, 0, b"x" * 10)
    await sim.run(5)
    [before] = await sim.memory.load(UploadKey(ALICE.id, (await only_upload(sim)).upload_id))

    await patch(sim, app, 10, b"y" * 5)
    await sim.run(1)

    [after] = await sim.memory.load(before.key)
    assert after.sequence > before.sequence
    assert {each[1:] for each in after.byte_ranges} == {(0, 15, True)}
    assert after.created_at == before.created_at


@pytest.mark.usefixtures("short_call_timeout")
async def test_next_attempt_starts_before_the_last_one_is_stored(sim: Simulation) -> None:
    sim.store.fault = "raise"
    head = TransferHead("range", TransferKind.BYTES, "/a", resource_is_unique=False)
    first = transfer(sim, head, "up")
    assert sim.internals.admission.admit(upload_of(first), ALICE)
    first.begin()
    first.add(10)
    upload_of(first).mark_failed("virus")
    outcomes.finish(first.upload, 200, first.transfer)
    await sim.run(1)

    second = transfer(sim, head, "up")
    assert sim.internals.admission.admit(upload_of(second), ALICE)
    second.begin()
    second.add(5)

    assert upload_of(second) is not upload_of(first)
    shown = current_snapshot(upload_of(second))
    assert (shown.attempt, shown.bytes_transferred) == (2, 5)


# --- parts with a size of their own ---------------------------------------------------------------


async def create_parts(sim: Simulation) -> LiveUpload:
    """Create two partial uploads of 10 and 20 bytes."""
    sizes = {"/files/1": 10, "/files/2": 20}
    for path, size in sizes.items():
        head = TransferHead(
            "tus", TransferKind.CREATE, resource_may_be_part=True, part_total_bytes=size
        )
        request = transfer(sim, head, "up")
        assert sim.internals.admission.admit(upload_of(request), ALICE)
        request.begin()
        assert outcomes.read_response(request.upload, request.transfer, 201, {"location": path})
        outcomes.finish(request.upload, 201, request.transfer)
    return upload_of(request)


async def test_sizes_of_parts_add_up_to_the_total(sim: Simulation) -> None:
    """Of partial uploads (tus concatenation) each announces its own size."""
    assert (await create_parts(sim)).is_divided
    # Another part may follow.
    assert (await only_upload(sim)).total_bytes is None

    head = TransferHead("tus", TransferKind.COMPLETE, "/files/3", carries_bytes=False)
    final = transfer(sim, head, "up")
    assert sim.internals.admission.admit(upload_of(final), ALICE)
    final.begin()
    assert (await only_upload(sim)).total_bytes == 30


async def test_size_of_a_part_is_not_the_total(sim: Simulation) -> None:
    """A client that resumes asks for the offset of each part, before and after a pause."""
    await create_parts(sim)
    head = TransferHead(
        "tus", TransferKind.QUERY, "/files/1", carries_bytes=False, resource_may_be_part=True
    )
    answer = TransferOutcome(TransferResult.ACCEPTED, offset=10, total_bytes=10)
    for _ in range(2):
        query = transfer(sim, head, "up")
        assert sim.internals.admission.admit(upload_of(query), ALICE)
        query.begin()
        query.end(answer)
        await sim.run(5)

        shown = await only_upload(sim)
        assert (shown.bytes_transferred, shown.total_bytes) == (10, None)


# --- requests that say something about an upload of which nothing is known ------------------------


async def test_final_request_completes_an_upload_that_no_worker_has_seen(sim: Simulation) -> None:
    head = TransferHead("s3", TransferKind.COMPLETE, "/b/k?uploadId=a", carries_bytes=False)
    request = transfer(sim, head)
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    await sim.run(0.3)
    assert (await only_upload(sim)).state is S.RECEIVING

    request.end(TransferOutcome(TransferResult.COMPLETED))
    await sim.run(0.3)

    assert (await only_upload(sim)).state is S.COMPLETED


async def test_redirected_creation_waits_for_its_repetition(sim: Simulation) -> None:
    request = transfer(sim, TransferHead("tus", TransferKind.CREATE, carries_bytes=True))
    assert sim.internals.admission.admit(upload_of(request), ALICE)
    request.begin()
    request.add(5)
    await sim.run(0.3)

    outcomes.read_response(request.upload, request.transfer, 307, {"location": "/elsewhere"})
    outcomes.finish(request.upload, 307, request.transfer)
    await sim.run(0.3)

    shown = await only_upload(sim)
    assert (shown.state, shown.bytes_transferred, shown.error) == (S.PENDING, 0, None)


async def test_larger_upload_than_announced_completes_with_its_size(sim: Simulation) -> None:
    head = TransferHead("ietf", TransferKind.BYTES, "/a", offset=0, total_bytes=5, is_last=True)
    request = transfer(sim, head)
    assert sim.internals.admission.admit(request.opened, ALICE)
    request.begin()
    request.add(12)
    request.end(TransferOutcome(TransferResult.COMPLETED))
    await sim.run(1)

    shown = await only_upload(sim)
    assert (shown.state, shown.bytes_transferred, shown.total_bytes) == (S.COMPLETED, 12, 12)
