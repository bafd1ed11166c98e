"""An upload in many requests, under a standing clock: what time, faults and retries do to it."""

from __future__ import annotations

import random

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.protocol_apps import (
    ContentRangeApp,
    FileApp,
    OciApp,
    ResponseHead,
    TusApp,
    send_request,
    upload_id_of,
)
from tests._support.scripted_server import ALICE, Receive, Scope, Send, body_messages
from tests._support.simulation import Simulation
from upload_progress import Identity, UploadProgress, UploadState
from upload_progress._model.fold import as_of, fold
from upload_progress._model.models import ByteRange, TransferRecord
from upload_progress._tracking import registry as registry_module
from upload_progress._tracking.multi_request_upload import MultiRequestUpload, Transfer
from upload_progress.asgi import current_upload
from upload_progress.connection import Connection
from upload_progress.protocols import (
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    Tus,
)
from upload_progress.throttling import NEVER, Meter
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

S = UploadState
TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}
PATH = "/files/0"


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


async def the_one(sim: Simulation) -> UploadProgress:
    [shown] = (await sim.tracker.list(owner=ALICE, states=set(S))).uploads
    return shown


async def create(sim: Simulation, shop: TusApp, length: int = 30) -> None:
    headers = {**TUS, "upload-length": str(length)}
    assert (await send_request(shop, sim.tracker, "POST", "/files", headers=headers)).status == 201


async def patch(sim: Simulation, shop: TusApp, offset: int, content: bytes) -> int | None:
    headers = {**TUS, **OCTETS, "upload-offset": str(offset)}
    server = await send_request(shop, sim.tracker, "PATCH", PATH, headers=headers, content=content)
    return server.status


def transfer(
    sim: Simulation, transfer_head: TransferHead, requested_id: str | None = None
) -> Transfer:
    """Return one request, before anything of it has come."""
    opened = internals_of(sim.tracker).admission.open_transfer(
        transfer_head,
        requested_id=requested_id,
        is_proxied=False,
        total_bytes=transfer_head.total_bytes,
    )
    return Transfer(opened, transfer_head, Tus(), Meter(sim.tracker.config.policy))


def whole(request: Transfer) -> MultiRequestUpload:
    """Return the upload to which *request* belongs."""
    assert isinstance(request.upload, MultiRequestUpload)
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


async def test_it_rests_between_two_requests_then_pauses_and_goes_on(sim: Simulation) -> None:
    shop = TusApp()
    await create(sim, shop)
    await patch(sim, shop, 0, b"x" * 10)
    await sim.run(1.5)
    assert (await the_one(sim)).state is S.RECEIVING

    await sim.run(1)
    paused = await the_one(sim)
    assert (paused.state, paused.bytes_transferred, paused.stalled) == (S.PAUSED, 10, False)
    assert len(sim.parts.registry) == 0

    await patch(sim, shop, 10, b"y" * 20)
    await sim.run(1)
    done = await the_one(sim)
    assert (done.state, done.bytes_transferred, done.attempt) == (S.COMPLETED, 30, 1)
    assert done.created_at == paused.created_at
    assert done.started_at == paused.started_at
    assert [event.state for event in sim.events(done.upload_id)][-1] is S.COMPLETED
    sequences = [event.sequence for event in sim.events(done.upload_id)]
    assert sequences == sorted(set(sequences))


async def test_what_comes_late_to_a_whole_upload_changes_nothing(sim: Simulation) -> None:
    shop = TusApp()
    await create(sim, shop, 10)
    await patch(sim, shop, 0, b"x" * 10)
    await sim.run(5)
    done = await the_one(sim)
    assert done.state is S.COMPLETED

    assert await patch(sim, shop, 0, b"y" * 5) == 409
    await sim.run(5)

    late = await the_one(sim)
    assert (late.state, late.attempt, late.bytes_transferred) == (S.COMPLETED, 1, 10)
    assert len(sim.parts.registry) == 0


async def test_an_application_may_fail_it(sim: Simulation) -> None:
    class Strict(TusApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            if scope["method"] == "PATCH":
                current_upload(scope).fail("not today")
            return await super().respond(scope, receive)

    shop = Strict()
    await create(sim, shop)
    await patch(sim, shop, 0, b"x" * 10)

    failed = await the_one(sim)
    assert failed.state is S.FAILED
    assert failed.error is not None
    assert failed.error.message == "not today"


async def test_a_creation_that_breaks_off_has_failed(sim: Simulation) -> None:
    shop = TusApp()
    headers = {**TUS, **OCTETS, "upload-length": "30"}
    messages = [*body_messages(b"x" * 10)[:-1], {"type": "http.disconnect"}]
    await send_request(shop, sim.tracker, "POST", "/files", headers=headers, messages=messages)

    gone = await the_one(sim)
    assert (gone.state, gone.bytes_transferred) == (S.FAILED, 10)


async def test_a_stragglers_word_is_none_where_the_store_is_away(sim: Simulation) -> None:
    shop = TusApp()
    await create(sim, shop)
    sim.store.fault = "raise"
    await patch(sim, shop, 0, b"x" * 10)
    await sim.run(1)
    assert (await sim.tracker.get((await the_one_here(sim)), owner=ALICE)).bytes_transferred == 10

    sim.store.fault = None
    await patch(sim, shop, 10, b"y" * 20)
    await sim.run(8)
    assert (await the_one(sim)).state is S.COMPLETED


async def the_one_here(sim: Simulation) -> str:
    [live] = sim.parts.registry.everything()
    return live.upload_id


async def test_requests_that_name_one_upload_are_one(sim: Simulation) -> None:
    """A client may name what it creates; whoever creates it twice has one upload."""
    first = transfer(sim, TransferHead("tus", TransferKind.CREATE, total_bytes=30), "named")
    second = transfer(
        sim,
        TransferHead("tus", TransferKind.CREATE, total_bytes=30, filename="a", carries_bytes=False),
        "named",
    )
    third = transfer(sim, TransferHead("tus", TransferKind.BYTES, PATH), "named")
    third.begin()
    for each in (first, second, third):
        assert internals_of(sim.tracker).admission.admit(whole(each), ALICE)
    assert whole(first) is whole(second) is whole(third)
    second.begin()
    assert whole(first).started_at is not None
    assert len(sim.parts.registry) == 1


async def test_cancel_cuts_what_can_be_cut_and_only_once(sim: Simulation) -> None:
    cuts = list[str]()
    one, other = transfer(sim, part(1)), transfer(sim, part(2))
    for each in (one, other):
        assert internals_of(sim.tracker).admission.admit(whole(each), ALICE)
        each.begin()
    one.on_cancel = lambda: cuts.append("one")
    whole(one).cancel()
    whole(one).cancel()
    assert cuts == ["one"]
    assert whole(one).state is S.CANCELLED


async def test_it_stalls_when_none_of_its_requests_brings_anything(sim: Simulation) -> None:
    one, other = transfer(sim, part(1)), transfer(sim, part(2))
    for each in (one, other):
        assert internals_of(sim.tracker).admission.admit(whole(each), ALICE)
        each.begin()
        each.meter.add(5)
        each.meter.is_waiting = True
    await sim.run(35)
    assert (await the_one(sim)).stalled
    other.meter.received_bytes += 5
    other.check_due()
    await sim.run(1)
    shown = await the_one(sim)
    assert (shown.stalled, shown.bytes_transferred) == (False, 15)


async def test_the_gate_of_the_whole_is_dealt_out(sim: Simulation) -> None:
    transfers = [transfer(sim, part(number, 10_000_000)) for number in (1, 2)]
    for each in transfers:
        assert internals_of(sim.tracker).admission.admit(whole(each), ALICE)
        each.begin()
    await sim.run(1)
    gate = whole(transfers[0]).meter.gate_bytes
    assert {each.meter.gate_bytes for each in transfers} == {gate // 2}

    transfers[0].meter.received_bytes = gate // 2
    transfers[0].check_due()
    assert [whole(transfers[0]).is_due] == [False]
    assert transfers[0].meter.gate_bytes == gate // 2 + gate // 4
    transfers[1].meter.received_bytes = gate - gate // 2
    transfers[1].check_due()
    assert [whole(transfers[0]).is_due] == [True]
    assert {each.meter.gate_bytes for each in transfers} == {NEVER}


async def test_what_was_refused_adds_nothing_to_what_others_tell(sim: Simulation) -> None:
    """A request that the server refused before anything was known of its upload."""
    opened = whole(transfer(sim, part(1)))
    own = opened.record(opened.context.now())
    assert opened.records_with(own) == [own]
    other = evolve(own, owner="ann", transfer_id="elsewhere")
    opened.prior_records = (other,)
    opened.is_superseded = True
    assert opened.records_with(own) == [other]


async def test_an_answer_may_tell_the_total(sim: Simulation) -> None:
    """As a protocol of a third party may read it."""
    transfer_head = transfer(sim, part(1))
    assert internals_of(sim.tracker).admission.admit(whole(transfer_head), ALICE)
    transfer_head.begin()
    transfer_head.meter.add(5)
    whole(transfer_head).end_transfer(
        transfer_head, TransferOutcome(TransferResult.ACCEPTED, total_bytes=10)
    )
    shown = await the_one(sim)
    assert (shown.bytes_transferred, shown.total_bytes) == (5, 10)


async def test_whoever_claims_a_piece_has_the_upload(sim: Simulation) -> None:
    transfer_head = transfer(sim, part(1))
    assert whole(transfer_head).claim(ALICE)
    transfer_head.begin()
    assert (await the_one(sim)).state is S.RECEIVING


async def test_a_client_that_goes_after_its_last_byte_is_awaited(sim: Simulation) -> None:
    transfer_head = transfer(sim, part(1))
    assert internals_of(sim.tracker).admission.admit(whole(transfer_head), ALICE)
    transfer_head.begin()
    transfer_head.meter.add(5)
    transfer_head.end_body()
    transfer_head.client_disconnected()
    assert whole(transfer_head).transfers
    transfer_head.finish(200)
    assert not whole(transfer_head).transfers
    transfer_head.finish(200)


async def test_pieces_without_a_place_go_to_the_end(sim: Simulation) -> None:
    shop = OciApp()
    start = await send_request(shop, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    for _ in range(2):
        await send_request(shop, sim.tracker, "PATCH", path, content=b"x" * 10)
        await sim.run(0.5)
    assert (await the_one(sim)).bytes_transferred == 20
    await send_request(shop, sim.tracker, "PUT", f"{path}?digest=good", content=b"y" * 5)
    done = await the_one(sim)
    assert (done.state, done.bytes_transferred, done.total_bytes) == (S.COMPLETED, 25, 25)


async def test_a_push_in_one_request_has_a_total(sim: Simulation) -> None:
    """The request that ends a push is all of it, where nothing came before."""
    shop = OciApp()
    start = await send_request(shop, sim.tracker, "POST", "/v2/a/blobs/uploads/")
    path = start.headers["location"].partition("?")[0]
    shown: list[UploadProgress] = []

    class Looking(OciApp):
        async def append(self, path: str, receive: Receive) -> int:
            await sim.run(0.5)
            size = await super().append(path, receive)
            shown.append(await the_one(sim))
            return size

    looking = Looking(files=shop.files)
    await send_request(looking, sim.tracker, "PUT", f"{path}?digest=good", content=b"y" * 5)
    assert [(each.bytes_transferred, each.total_bytes) for each in shown] == [(5, 5)]
    assert (await the_one(sim)).state is S.COMPLETED


@pytest.mark.parametrize(("offset", "told"), [(8, 20), (11, 9)])
async def test_what_was_broken_off_goes_on_by_its_name(
    sim: Simulation, offset: int, told: int
) -> None:
    """curl -C: what had come of the upload that failed is there, if the client says so."""

    async def broken(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        raise ConnectionError

    named = {"upload-id": "chosen-by-curl"}
    messages = [*body_messages(b"x" * 10)[:1], {"type": "http.disconnect"}]
    await send_request(broken, sim.tracker, "PUT", "/a", headers=named, messages=messages)
    await sim.run(1)
    before = await the_one(sim)
    assert (before.state, before.bytes_transferred, before.attempt) == (S.FAILED, 10, 1)

    headers = {**named, "content-range": f"bytes {offset}-19/20"}
    shop = FileApp()
    await send_request(
        shop, sim.tracker, "PUT", "/a", headers=headers, content=b"x" * (20 - offset)
    )
    again = await the_one(sim)
    assert (again.bytes_transferred, again.attempt, again.total_bytes) == (told, 2, 20)
    assert (again.state is S.COMPLETED) == (told == 20)


async def test_an_id_that_the_client_chose_goes_with_the_address(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_RESOURCES", 1)
    shop = ContentRangeApp()
    for path, upload_id in (("/a", "chosen-for-a"), ("/b", "chosen-for-b")):
        headers = {"content-range": "bytes 0-9/20", "upload-id": upload_id}
        server = await send_request(
            shop, sim.tracker, "PUT", path, headers=headers, content=b"x" * 10
        )
        assert upload_id_of(server) == upload_id
    headers = {"content-range": "bytes 10-19/20"}
    server = await send_request(shop, sim.tracker, "PUT", "/b", headers=headers, content=b"y" * 10)
    assert upload_id_of(server) == "chosen-for-b"
    # Only so many are remembered: what is forgotten goes by its address again.
    server = await send_request(shop, sim.tracker, "PUT", "/a", headers=headers, content=b"y" * 10)
    assert upload_id_of(server).startswith("range-")


async def test_what_nobody_owns_has_an_address_too(sim: Simulation) -> None:
    """An upload of nobody is received like any other, whatever it is named."""

    def nobody(_connection: Connection) -> Identity | None:
        return None

    shop = TusApp()
    for named in ({}, {"upload-id": "chosen"}):
        headers = {**TUS, **named, "upload-length": "30"}
        server = await send_request(
            shop, sim.tracker, "POST", "/files", headers=headers, authenticate=nobody
        )
        assert server.status == 201
        assert "upload-id" not in server.headers
    assert len(sim.parts.registry) == 0


async def test_a_piece_without_bytes_begins_nothing(sim: Simulation) -> None:
    transfer_head = transfer(sim, TransferHead("tus", TransferKind.CREATE, carries_bytes=False))
    transfer_head.begin()
    assert whole(transfer_head).state is S.PENDING
    assert transfer_head.content_bytes == 0


@define
class Told:
    """What some workers wrote of one upload."""

    records: list[TransferRecord]
    byte_ranges: set[tuple[str, int]]


@st.composite
def tellings(draw: st.DrawFn) -> Told:
    """Return the versions that up to three writers stored, each a prefix of the next."""
    records, covered = list[TransferRecord](), set[tuple[str, int]]()
    for worker in range(draw(st.integers(1, 3))):
        byte_ranges = tuple[ByteRange, ...]()
        for sequence in range(1, draw(st.integers(1, 4)) + 1):
            named, start = draw(st.sampled_from(["", "1", "2"])), draw(st.integers(0, 20))
            stop = start + draw(st.integers(1, 9))
            byte_ranges = (*byte_ranges, (named, start, stop, draw(st.booleans())))
            records.append(
                TransferRecord(
                    owner="ann",
                    upload_id="up",
                    transfer_id=f"w{worker}",
                    attempt=1,
                    sequence=sequence,
                    state=S.RECEIVING,
                    protocol="s3",
                    byte_ranges=byte_ranges,
                    created_at=1.0,
                    updated_at=2.0,
                )
            )
        covered |= {(name, at) for name, start, stop, _ in byte_ranges for at in range(start, stop)}
    return Told(records, covered)


@given(tellings(), st.randoms(use_true_random=False))
def test_any_order_and_any_duplicate_fold_to_the_same(told: Told, chance: random.Random) -> None:
    again = [*told.records, *chance.choices(told.records, k=3)]
    chance.shuffle(again)

    folded = fold(again, now=3.0)

    assert folded == fold(told.records, now=3.0)
    assert folded is not None
    assert folded.bytes_transferred == len(told.byte_ranges)
    assert folded.retransmitted_bytes >= 0


def test_what_lost_its_worker_waits_for_the_next() -> None:
    record = TransferRecord(
        owner="ann",
        upload_id="up",
        transfer_id="w",
        attempt=1,
        sequence=1,
        state=S.RECEIVING,
        protocol="tus",
        stalled=True,
        created_at=1.0,
        updated_at=2.0,
        worker="w",
        lease_until=5.0,
    )
    assert as_of(record, 5.0 - 0.1) == record
    lost = as_of(record, 5.0)
    assert (lost.state, lost.stalled, lost.error) == (S.PAUSED, False, None)
    assert as_of(evolve(record, lease_until=None), 9.0).state is S.RECEIVING
