"""How a live upload continues or supersedes what other workers have stored under its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve

from tests._support.records import record
from tests._support.simulation import ANN, Simulation
from upload_progress import Upload, UploadNotFound, UploadProgress, UploadState
from upload_progress._model.models import ErrorCode, TransferRecord, UploadError, UploadKey
from upload_progress._model.state import ABORTED, CANCELLED, DISCONNECTED
from upload_progress._tracking import outcomes
from upload_progress._tracking.continuation import overruling
from upload_progress._tracking.live_record import current_snapshot
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.protocols import (
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    Tus,
)

pytestmark = pytest.mark.anyio

S = UploadState
ACCEPTED = TransferOutcome(TransferResult.ACCEPTED)
REFUSED = TransferOutcome(TransferResult.REFUSED)
CREATE = TransferHead("tus", TransferKind.CREATE, carries_bytes=False, completes_at_total=True)
PATCH = TransferHead("tus", TransferKind.BYTES, "/files/1", offset=10)
RANGE = TransferHead("range", TransferKind.BYTES, "/a", offset=0, resource_is_unique=False)


def save_at_once(
    sim: Simulation,
    monkeypatch: pytest.MonkeyPatch,
    **changes: Any,  # noqa: ANN401  # any field
) -> None:
    """Let another worker store an upload of the same id just before this one does.

    It has received 7 bytes, and has begun now, unless *changes* say otherwise.
    """
    now = sim.clock.time()
    times = {"created_at": now, "started_at": now, "updated_at": now}
    other = record("up", received_bytes=7, **{**times, **changes})

    async def save(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        await sim.memory.save([other])
        monkeypatch.undo()
        return await sim.memory.save(records)

    monkeypatch.setattr(sim.store, "save", save)


def part(number: int) -> TransferHead:
    address = "/b/k?uploadId=a"
    return TransferHead("s3", TransferKind.BYTES, address, part=str(number), is_sequential=False)


def open_request(sim: Simulation, head: TransferHead, upload_id: str | None = "up") -> LiveUpload:
    """Return a request of an upload in several requests, whose owner is not known yet."""
    return sim.internals.admission.open_transfer(
        head, Tus(), requested_id=upload_id, is_proxied=False, total_bytes=head.total_bytes
    )


def admit(sim: Simulation, opened: LiveUpload) -> LiveUpload:
    """Let Ann be the owner; return the upload to which the request belongs."""
    assert sim.internals.admission.admit(opened, ANN)
    return opened.merged_into or opened


def receive(sim: Simulation, head: TransferHead, size: int) -> LiveUpload:
    """Receive a request of Ann that the application accepts; return its upload."""
    opened = open_request(sim, head)
    live = admit(sim, opened)
    transfer = opened.opened_by
    live.begin(transfer)
    transfer.meter.add(size)
    outcomes.end_transfer(live, transfer, ACCEPTED)
    return live


async def store(
    sim: Simulation,
    protocol: str | None = "tus",
    **changes: Any,  # noqa: ANN401  # any field
) -> TransferRecord:
    """Store the record of another worker: the application has accepted 10 bytes of 30."""
    now = sim.clock.time()
    described = {"total_bytes": 30, "byte_ranges": (("", 0, 10, True),), "protocol": protocol}
    times = {"created_at": now, "started_at": now, "updated_at": now}
    made = record("up", **{**described, **times, **changes})
    await sim.memory.save([made])
    return made


async def shown(sim: Simulation) -> UploadProgress:
    return await sim.tracker.get("up", owner="ann")


async def test_attempt_that_announces_no_size_has_that_of_the_one_before(sim: Simulation) -> None:
    now = sim.clock.time()
    await store(sim, "range", state=S.FAILED, error=DISCONNECTED, finished_at=now, worker=None)
    live = receive(sim, evolve(RANGE, completes_at_total=True), 10)
    await sim.run(1)

    progress = await shown(sim)
    assert (progress.attempt, progress.total_bytes) == (2, 30)
    assert live.held_series.has_inherited_total


async def test_newer_of_two_uploads_that_begin_at_once_is_the_next_attempt(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    sim.add(live, 4)
    save_at_once(sim, monkeypatch, started_at=sim.clock.time() - 5)
    await sim.run(0.5)

    assert not live.is_superseded
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred, now.total_bytes) == (2, 4, 10)
    assert [each.transfer_id for each in await sim.memory.load(UploadKey("ann", "up"))] == [
        live.transfer_id
    ]


async def test_older_of_two_uploads_that_begin_at_once_is_not_reported(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    sim.add(live, 4)
    save_at_once(sim, monkeypatch, started_at=sim.clock.time() + 5)
    await sim.run(0.5)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)

    assert live.is_superseded
    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.RECEIVING, 7)


async def test_upload_of_which_another_worker_has_the_next_attempt_is_not_reported(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has replaced this one, whatever the clock of its worker says."""
    live = sim.begin("up", 10)
    replaced = {"former_sessions": (live.transfer_id,)}
    save_at_once(sim, monkeypatch, attempt=2, started_at=sim.clock.time() - 5, **replaced)
    await sim.run(0.5)

    assert live.is_superseded
    assert (await shown(sim)).attempt == 2


async def test_newest_upload_follows_older_ones_that_another_worker_has_counted(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker has received three, and has not known of this one."""
    live = sim.begin("up", 10)
    sim.add(live, 4)
    save_at_once(sim, monkeypatch, attempt=3, started_at=sim.clock.time() - 1)
    await sim.run(0.5)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred, live.is_superseded) == (4, 4, False)
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    assert stored.former_sessions == ("t",)


async def test_replaced_upload_is_not_newer_whatever_its_clock_says(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", 10)
    await sim.run(0.5)
    before = record("up", attempt=1, started_at=sim.clock.time() + 5)
    live.replaced = (before.transfer_id,)
    await sim.memory.save([evolve(before, attempt=2, received_bytes=7)])

    live.mark_due()
    await sim.run(0.5)

    assert (await shown(sim)).attempt == 3
    assert not live.is_superseded


# An owner who is known late


async def test_older_upload_whose_owner_is_known_late_changes_nothing(sim: Simulation) -> None:
    late = sim.internals.admission.open(requested_id="up")
    late.begin()
    late.meter.add(7)
    await sim.run(1)
    newer = sim.begin("up", 10)
    sim.add(newer, 4)

    assert admit(sim, late) is late
    late.end_body()
    outcomes.finish(late, 200)
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.attempt, now.bytes_transferred) == (S.RECEIVING, 1, 4)


async def test_older_upload_whose_owner_is_known_late_does_not_supersede_another_worker(
    sim: Simulation,
) -> None:
    late = sim.internals.admission.open(requested_id="up")
    late.begin()
    await sim.run(1)
    await store(sim, None, received_bytes=4)

    admit(sim, late)
    await sim.run(1)

    assert late.is_superseded
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (1, 4)
    assert len(sim.internals.registry) == 0


async def test_stage_of_a_request_whose_owner_is_known_late_is_shown(sim: Simulation) -> None:
    live = receive(sim, part(1), 10)
    late = open_request(sim, part(2))
    late.begin()
    async with Upload(late).stage("scanning"):
        assert admit(sim, late) is live
        assert live.current_stage
        assert live.current_stage.stage.name == "scanning"


async def test_request_that_ended_before_its_owner_is_known_is_counted(sim: Simulation) -> None:
    live = receive(sim, part(1), 10)
    late = open_request(sim, part(2))
    late.begin()
    late.opened_by.meter.add(5)
    outcomes.end_transfer(late, late.opened_by, ACCEPTED)

    assert admit(sim, late) is live
    await sim.run(3)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.PAUSED, 15)


async def test_late_failure_to_create_leaves_the_upload_of_another_worker(sim: Simulation) -> None:
    late = open_request(sim, CREATE)
    late.begin()
    outcomes.end_transfer(late, late.opened_by, REFUSED)
    await sim.run(1)
    await store(sim)

    admit(sim, late)
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.attempt, now.bytes_transferred) == (S.RECEIVING, 1, 10)
    assert len(sim.internals.registry) == 0


# Requests of several workers


async def test_creation_under_the_id_of_another_session_is_the_next_attempt(
    sim: Simulation,
) -> None:
    await store(sim, state=S.PAUSED, worker=None)
    opened = open_request(sim, CREATE)
    live = admit(sim, opened)
    live.begin()
    outcomes.end_transfer(live, opened.opened_by, TransferOutcome(TransferResult.CREATED))
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred, now.total_bytes) == (2, 0, None)


async def test_request_of_an_upload_that_was_cancelled_at_another_worker_is_stopped(
    sim: Simulation,
) -> None:
    now = sim.clock.time()
    await store(sim, state=S.CANCELLED, finished_at=now, error=CANCELLED, worker=None)
    opened = open_request(sim, PATCH)
    transfer = opened.opened_by
    transfer.on_cancel = lambda: setattr(transfer.meter, "gate_bytes", 0)
    admit(sim, opened).begin()
    await sim.run(2)

    assert transfer.is_stopped
    # The next chunk finds it.
    assert transfer.meter.gate_bytes == 0
    assert (await shown(sim)).state is S.CANCELLED


async def test_plain_request_that_had_begun_when_another_worker_cancelled_is_stopped(
    sim: Simulation,
) -> None:
    late = sim.internals.admission.open(requested_id="up")
    late.begin()
    began_at = sim.clock.time()
    await sim.run(1)
    ended = {"state": S.CANCELLED, "error": CANCELLED, "worker": None}
    times = {"started_at": began_at - 1, "finished_at": sim.clock.time()}
    await store(sim, None, byte_ranges=(), **times, **ended)
    await sim.run(1)
    assert admit(sim, late) is late
    await sim.run(1)

    assert late.is_superseded
    assert late.opened_by.is_stopped
    assert (await shown(sim)).state is S.CANCELLED


async def test_request_of_an_upload_that_was_just_cancelled_is_stopped(sim: Simulation) -> None:
    live = receive(sim, PATCH, 5)
    live.cancel()
    again = open_request(sim, PATCH)

    assert admit(sim, again) is live
    assert again.opened_by.is_stopped


async def test_request_after_the_end_of_a_cancel_is_stopped_before_its_first_byte(
    sim: Simulation,
) -> None:
    receive(sim, PATCH, 5).cancel()
    await sim.run(1)
    assert len(sim.internals.registry) == 0

    again = open_request(sim, PATCH)
    admit(sim, again)

    assert again.opened_by.is_stopped


async def test_next_attempt_at_another_worker_ends_the_reports_of_this_one(
    sim: Simulation,
) -> None:
    live = receive(sim, PATCH, 5)
    await sim.run()
    await store(sim, attempt=2)

    live.mark_due()
    await sim.run(1)

    assert live.is_superseded
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (2, 10)


async def test_failure_of_an_earlier_upload_that_is_stored_late_does_not_end_this_one(
    sim: Simulation,
) -> None:
    failed_at = sim.clock.time()
    await sim.run(1)
    opened = open_request(sim, RANGE)
    live = admit(sim, opened)
    live.begin()
    opened.opened_by.meter.add(5)
    await sim.run()
    await store(sim, "range", state=S.FAILED, finished_at=failed_at, worker=None)

    live.mark_due()
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.attempt, now.bytes_transferred) == (S.RECEIVING, 2, 5)


async def test_request_that_created_no_upload_is_not_found(sim: Simulation) -> None:
    live = admit(sim, open_request(sim, CREATE))
    live.begin()
    outcomes.end_transfer(live, live.opened_by, REFUSED)

    with pytest.raises(UploadNotFound):
        await sim.tracker.get("up", owner="ann")
    await sim.run(1)
    assert len(sim.internals.registry) == 0


async def test_attempt_that_is_larger_than_the_one_before_has_no_total(sim: Simulation) -> None:
    """It has not announced a size of its own."""
    await store(
        sim,
        "range",
        total_bytes=10,
        state=S.FAILED,
        finished_at=sim.clock.time(),
        worker=None,
    )
    await sim.run(1)
    live = receive(sim, RANGE, 12)
    await sim.run(0.5)

    assert live.attempt == 2
    now = await shown(sim)
    assert (now.bytes_transferred, now.total_bytes, now.percent) == (12, None, None)


async def test_failed_creation_whose_owner_is_known_late_is_no_upload(sim: Simulation) -> None:
    late = open_request(sim, CREATE, None)
    late.begin()
    outcomes.end_transfer(late, late.opened_by, REFUSED)
    await sim.run(1)

    admit(sim, late)
    await sim.run(1)

    assert (await sim.tracker.list(owner="ann")).uploads == ()
    assert len(sim.internals.registry) == 0


async def test_attempt_after_one_that_a_store_outage_hid_is_stored_under_its_number(
    sim: Simulation,
) -> None:
    now = sim.clock.time()
    await store(sim, None, state=S.COMPLETED, finished_at=now, worker=None)
    sim.store.fault = "raise"
    live = sim.begin("up", 10)
    await sim.run(0.5)
    assert live.attempt == 1

    sim.store.fault = None
    sim.internals.flusher.loader.parts.breaker.reset()
    await sim.run(0.1)

    assert [(each.attempt, each.state) for each in sim.writes("up")] == [(2, S.RECEIVING)]


async def test_request_that_announces_another_size_is_another_upload(sim: Simulation) -> None:
    """At an address that belongs to no upload alone."""
    live = receive(sim, evolve(RANGE, total_bytes=30), 5)
    other = open_request(sim, evolve(RANGE, total_bytes=40))

    assert admit(sim, other) is other
    assert live.is_superseded
    assert (other.attempt, other.meter.total_bytes) == (2, 40)


# Rare situations


async def test_new_beginning_of_an_upload_that_was_just_paused_is_another_upload(
    sim: Simulation,
) -> None:
    """It is still live here, as the pause is not stored yet."""
    first = receive(sim, evolve(RANGE, length=10, total_bytes=30), 10)
    receive(sim, evolve(RANGE, offset=10, length=10, total_bytes=30), 10)
    await sim.run(0.5)
    first.pause()

    again = receive(sim, evolve(RANGE, length=10, total_bytes=30), 10)

    assert again is not first
    await sim.run(0.5)
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (2, 10)


async def test_record_of_an_older_attempt_is_no_upload_that_begins_at_once(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        live = sim.begin("up", 10)
        outcomes.client_disconnected(live)
        await sim.run(0.5)
    live = sim.begin("up", 10)
    sim.add(live, 4)
    loads: list[UploadKey] = []
    older = record("up", attempt=1, started_at=sim.clock.time())

    async def load(*keys: UploadKey) -> list[TransferRecord]:
        loads.extend(keys)
        return [older, *await sim.memory.load(*keys)]

    monkeypatch.setattr(sim.store, "load", load)
    await sim.run(0.5)

    now = current_snapshot(live)
    assert loads
    assert (now.attempt, now.bytes_transferred, live.is_superseded) == (3, 4, False)


async def test_bytes_that_were_not_stored_at_the_completion_elsewhere_are_counted(
    sim: Simulation,
) -> None:
    """The size of the upload is not known otherwise."""
    live = receive(sim, part(1), 5)
    second = open_request(sim, part(3))
    admit(sim, second)
    live.begin(second.opened_by)
    second.opened_by.meter.add(7)

    async def save_before_the_completion(
        records: Sequence[TransferRecord],
    ) -> Sequence[TransferRecord]:
        del sim.store.save
        refused = await sim.store.save(records)
        outcomes.end_transfer(live, second.opened_by, ACCEPTED)
        await store(
            sim,
            "s3",
            state=S.COMPLETED,
            total_bytes=None,
            byte_ranges=(("2", 0, 10, True),),
            finished_at=sim.clock.time(),
            worker=None,
        )
        return refused

    sim.store.save = save_before_the_completion  # type: ignore[method-assign]  # once
    await sim.internals.flusher.flush(everything=True)
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.COMPLETED, 22)
    assert live.has_ended_elsewhere


async def test_late_response_with_an_offset_does_not_drop_newer_bytes(sim: Simulation) -> None:
    requests = [open_request(sim, evolve(RANGE, offset=offset, length=10)) for offset in (0, 10)]
    for each in requests:
        live = admit(sim, each)
        live.begin(each.opened_by)
        each.opened_by.meter.add(10)
    accepted = TransferOutcome(TransferResult.ACCEPTED, offset=10)
    outcomes.end_transfer(live, requests[0].opened_by, accepted)
    accepted = TransferOutcome(TransferResult.ACCEPTED, offset=20)
    outcomes.end_transfer(live, requests[1].opened_by, accepted)

    assert (await shown(sim)).bytes_transferred == 20


# A refused request whose upload another worker has created, and not stored yet


def refuse(sim: Simulation, status: int = 410) -> LiveUpload:
    """Receive a request of Ann that the application rejects."""
    live = admit(sim, open_request(sim, PATCH))
    live.begin()
    live.opened_by.status = status
    outcomes.end_transfer(live, live.opened_by, TransferOutcome(TransferResult.REJECTED))
    return live


async def test_rejection_waits_for_the_creation_that_another_worker_stores_later(
    sim: Simulation,
) -> None:
    refuse(sim)
    await sim.run(0.2)
    assert not sim.writes("up")

    await store(sim)
    await sim.run(0.3)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred, now.total_bytes) == (S.FAILED, 10, 30)


async def test_rejection_of_an_upload_that_is_never_stored_is_forgotten(sim: Simulation) -> None:
    refuse(sim)

    await sim.run(1)

    assert not sim.writes("up")
    assert sim.is_at_baseline()


async def test_undecided_upload_is_not_shown_and_not_cancelled_here(sim: Simulation) -> None:
    live = refuse(sim)
    await sim.run(0.2)

    assert outcomes.is_undecided(live)
    assert (await sim.tracker.list(owner="ann")).uploads == ()
    with pytest.raises(UploadNotFound):
        await sim.tracker.cancel("up", owner="ann")
    assert not live.is_ended


async def test_rejection_is_decided_after_an_outage_that_is_longer(sim: Simulation) -> None:
    sim.store.fault = "raise"
    live = refuse(sim, 413)
    await sim.run(1)
    assert not outcomes.is_undecided(live)
    assert not live.is_ended

    sim.store.fault = None
    sim.internals.flusher.loader.parts.breaker.reset()
    await sim.run(0.2)

    assert (await shown(sim)).state is S.FAILED


# --- versions that the store refuses --------------------------------------------------------------


async def test_version_of_an_upload_with_a_newer_attempt_is_not_reported(sim: Simulation) -> None:
    """The message of the other worker was lost."""
    live = sim.begin("up", total=10)
    await sim.run(1)
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    newer = evolve(
        stored,
        attempt=2,
        transfer_id="other",
        worker="other",
        lease_until=None,
        former_sessions=(live.transfer_id,),
    )
    await sim.memory.save([newer])

    sim.add(live, 5)
    live.mark_due()
    await sim.run(2)

    assert live.is_superseded
    assert [event.attempt for event in sim.events("up")] == [1]


async def test_version_that_was_stored_by_a_call_that_seemed_to_fail_is_stored(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = sim.begin("up", total=10)
    await sim.run(1)
    save = sim.store.save

    async def save_and_raise(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        await save(records)
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(sim.store, "save", save_and_raise)
        outcomes.client_disconnected(live)
        await sim.run(0.3)
    await sim.run(5)

    ends = [event for event in sim.events("up") if event.state is S.FAILED]
    assert [end.attempt for end in ends] == [1]
    assert sim.is_at_baseline()


@pytest.mark.parametrize("state", [S.FAILED, S.PAUSED])
async def test_upload_in_several_requests_that_seemed_dead_goes_on(
    sim: Simulation, state: UploadState
) -> None:
    """It was paused, or has expired, in the store."""
    opened = open_request(sim, RANGE)
    live = admit(sim, opened)
    live.begin()
    opened.opened_by.meter.add(5)
    await sim.run(1)
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    expired = UploadError(ErrorCode.EXPIRED, "No byte arrived for too long.")
    await sim.memory.save(
        [
            evolve(
                stored,
                sequence=stored.sequence + 1,
                state=state,
                error=expired if state is S.FAILED else None,
                finished_at=sim.clock.time() if state is S.FAILED else None,
                lease_until=None,
                worker=None,
            )
        ]
    )

    live.mark_due()
    await sim.run(2)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.RECEIVING, 5)
    assert now.attempt == (2 if state is S.FAILED else 1)
    assert now.sequence > stored.sequence + 1


async def test_end_that_the_store_has_already_is_no_news(sim: Simulation) -> None:
    live = sim.begin("up", total=10)
    written = evolve(record("up"), state=S.FAILED, error=ABORTED, finished_at=5.0)
    other_end = evolve(written, error=DISCONNECTED, sequence=9)

    assert not overruling.follow_refusal(live, written, [other_end])
    assert not overruling.follow_refusal(live, written, [])
    assert live.attempt == 1


async def test_end_that_the_store_refused_for_an_older_version_of_this_worker_is_stored_again(
    sim: Simulation,
) -> None:
    """This worker has stored more versions of the upload, before the upload was forgotten here."""
    live = sim.begin("up", total=10)
    await sim.run(1)
    [stored] = await sim.memory.load(UploadKey("ann", "up"))
    before = evolve(stored, sequence=stored.sequence + 5, lease_until=None)
    await sim.memory.save([before])

    outcomes.client_disconnected(live)
    await sim.run(2)

    now = await shown(sim)
    assert (now.state, now.attempt) == (S.FAILED, 1)
    assert now.sequence > before.sequence


async def test_resumed_upload_has_no_bytes_of_a_gap(sim: Simulation) -> None:
    """The failed attempt had 4 bytes, but not the first ones."""
    now = sim.clock.time()
    ranges = (("", 4, 8, True),)
    await store(
        sim, "range", state=S.FAILED, finished_at=now, worker=None, byte_ranges=ranges, attempt=1
    )

    head = evolve(RANGE, offset=4, length=4, total_bytes=30, is_sequential=False)
    receive(sim, head, 4)
    await sim.run(0.5)

    resumed = await shown(sim)
    assert (resumed.attempt, resumed.bytes_transferred) == (2, 4)


async def test_late_request_of_the_attempt_before_changes_nothing(sim: Simulation) -> None:
    late = open_request(sim, evolve(RANGE, offset=10))
    await sim.run(1)
    await store(sim, "range", attempt=2)

    admit(sim, late)
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (2, 10)
    assert late.is_superseded


async def test_late_request_to_another_address_is_of_an_earlier_upload(sim: Simulation) -> None:
    late = open_request(sim, PATCH)
    await sim.run(1)
    live = receive(sim, evolve(PATCH, resource="/files/2", offset=0), 5)

    assert admit(sim, late) is live
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (1, 5)
    assert not live.transfers


async def test_question_about_another_address_begins_nothing(sim: Simulation) -> None:
    live = receive(sim, evolve(PATCH, offset=0), 5)
    question = TransferHead("tus", TransferKind.QUERY, "/files/2", carries_bytes=False)

    assert admit(sim, open_request(sim, question)) is live
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (1, 5)
    assert not live.transfers


async def test_newer_of_two_sessions_that_begin_at_once_is_reported(sim: Simulation) -> None:
    live = receive(sim, evolve(PATCH, offset=0), 5)
    await sim.run(1)
    later = sim.clock.time() + 5
    await store(sim, session="a", created_at=later, started_at=later)
    receive(sim, evolve(PATCH, offset=5), 2)
    await sim.run(1)

    assert live.is_superseded
    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred) == (1, 10)


async def test_request_that_announces_another_size_than_another_worker_knows_is_another_upload(
    sim: Simulation,
) -> None:
    await store(sim, "range")
    receive(sim, evolve(RANGE, offset=10, total_bytes=40), 5)
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.total_bytes) == (2, 40)


async def test_second_of_two_uploads_after_an_announcement_is_the_next_attempt(
    sim: Simulation,
) -> None:
    announced = await sim.tracker.announce(owner="ann", filename="a.bin")
    sim.begin(announced.upload_id, 10)
    sim.begin(announced.upload_id, 20)
    await sim.run(1)

    now = await sim.tracker.get(announced.upload_id, owner="ann")
    assert (now.attempt, now.total_bytes, now.filename) == (2, 20, "a.bin")


async def test_session_that_was_created_before_a_cancel_begins_nothing(sim: Simulation) -> None:
    late = open_request(sim, CREATE)
    live = receive(sim, PATCH, 5)
    outcomes.read_response(late, late.opened_by, 201, {"location": "/files/2"})
    outcomes.end_transfer(late, late.opened_by, late.opened_by.outcome)
    live.cancel()

    assert admit(sim, late) is live
    assert live.held_series.former_sessions == {late.session}
    piece = open_request(sim, TransferHead("tus", TransferKind.BYTES, "/files/2", offset=0))
    assert admit(sim, piece) is live
    assert piece.opened_by.is_stopped


async def test_refused_creation_leaves_no_total(sim: Simulation) -> None:
    opened = open_request(sim, TransferHead("tus", TransferKind.CREATE, total_bytes=50))
    live = admit(sim, opened)
    live.begin()
    await sim.run(0.5)
    opened.opened_by.status = 409
    outcomes.end_transfer(live, opened.opened_by, REFUSED)

    piece = open_request(sim, evolve(PATCH, total_bytes=30))
    assert admit(sim, piece) is live
    assert live.meter.total_bytes == 30
