"""The order in which requests of one upload count whose owners are known late."""

from __future__ import annotations

import anyio
import pytest
from attrs import evolve

from tests._support.simulation import ANN, Simulation
from upload_progress import UploadProgress, UploadState
from upload_progress._tracking import outcomes
from upload_progress._tracking.admission import AdmissionOrder
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
COMPLETED = TransferOutcome(TransferResult.COMPLETED)
REFUSED = TransferOutcome(TransferResult.REFUSED)
CREATE = TransferHead("tus", TransferKind.CREATE, total_bytes=10)
PATCH = TransferHead("tus", TransferKind.BYTES, "/files/1", offset=0)


def open_request(sim: Simulation, head: TransferHead) -> LiveUpload:
    """Return a request of an upload in several requests, whose owner is not known yet."""
    return sim.internals.admission.open_transfer(
        head, Tus(), requested_id="up", is_proxied=False, total_bytes=head.total_bytes
    )


def receive(opened: LiveUpload, size: int, outcome: TransferOutcome) -> None:
    """Receive the whole request, which gets that outcome."""
    live = opened.merged_into or opened
    live.begin(opened.opened_by)
    opened.opened_by.meter.add(size)
    outcomes.end_transfer(live, opened.opened_by, outcome)


async def shown(sim: Simulation) -> UploadProgress:
    return await sim.tracker.get("up", owner="ann")


def test_request_is_preceded_by_earlier_ones_of_the_same_upload(sim: Simulation) -> None:
    order = AdmissionOrder()
    first, second = open_request(sim, CREATE), open_request(sim, PATCH)
    other = sim.internals.admission.open(requested_id="another")
    order.enter(second)
    assert not order.is_preceded(first)
    order.enter(first)
    assert order.is_preceded(second)
    assert order.has_next(second)
    assert not order.is_preceded(other)

    order.leave(first)
    assert not order.is_preceded(second)
    assert not order.has_next(second)
    order.leave(second)
    assert len(order) == 0


async def admitted_in_order(
    requests: list[LiveUpload], known: list[LiveUpload]
) -> list[LiveUpload]:
    """Return in which order *requests* are admitted, whose owners are known in that of *known*."""
    order, admitted = AdmissionOrder(), list[LiveUpload]()

    async def admit(upload: LiveUpload) -> None:
        await order.wait(upload)
        admitted.append(upload)
        order.leave(upload)

    for each in requests:
        order.enter(each)
    async with anyio.create_task_group() as tasks:
        for each in known:
            tasks.start_soon(admit, each)
            await anyio.wait_all_tasks_blocked()
    assert len(order) == 0
    return admitted


async def test_requests_that_have_waited_are_admitted_in_the_order_of_their_ends(
    sim: Simulation,
) -> None:
    first, second, third, running = requests = [open_request(sim, PATCH) for _ in range(4)]
    for each, ended_at in ((first, 3.0), (second, 2.0), (third, 1.0)):
        each.opened_by.ended_at = ended_at
    admitted = await admitted_in_order(requests, [running, third, second, first])
    assert admitted == [third, second, first, running]
    assert await admitted_in_order(requests, requests) == requests


async def test_requests_after_a_creation_wait_for_those_before_it(sim: Simulation) -> None:
    """Also if they have ended before, and have an id that the creation does not have."""
    before, creation, after = requests = [
        open_request(sim, each) for each in (PATCH, CREATE, PATCH)
    ]
    for each, ended_at in ((before, 3.0), (creation, 2.0), (after, 1.0)):
        each.opened_by.ended_at = ended_at
    assert await admitted_in_order(requests, [after, creation, before]) == requests


async def test_request_waits_under_both_of_its_ids(sim: Simulation) -> None:
    """One request before it names the resource only, the other one the upload only."""
    by_resource = sim.internals.admission.open_transfer(
        PATCH, Tus(), requested_id=None, is_proxied=False
    )
    by_id, by_both = open_request(sim, CREATE), open_request(sim, PATCH)
    requests = [by_resource, by_id, by_both]
    for known in ([by_both, by_id, by_resource], [by_both, by_resource, by_id]):
        assert (await admitted_in_order(requests, known))[-1] is by_both


async def test_creation_in_order_is_another_upload_although_its_resource_is_known(
    sim: Simulation,
) -> None:
    piece, creation = open_request(sim, PATCH), open_request(sim, CREATE)
    creation.held_series.resource_id = piece.resource_id
    for each, outcome in ((piece, ACCEPTED), (creation, TransferOutcome(TransferResult.CREATED))):
        assert sim.internals.admission.admit(each, ANN)
        receive(each, 4, outcome)
    await sim.run(1)

    now = await shown(sim)
    assert (now.attempt, now.bytes_transferred, now.total_bytes) == (2, 4, 10)


async def test_late_end_counts_from_when_it_happened(sim: Simulation) -> None:
    first, last, next_one = (open_request(sim, each) for each in (CREATE, PATCH, CREATE))
    receive(first, 0, TransferOutcome(TransferResult.CREATED))
    receive(last, 10, COMPLETED)
    ended_at = sim.clock.time()
    await sim.run(2)
    assert sim.internals.admission.admit(first, ANN)
    assert sim.internals.admission.admit(last, ANN)
    finished_at = (await shown(sim)).finished_at
    assert finished_at is not None
    assert finished_at.timestamp() == pytest.approx(ended_at)

    assert sim.internals.admission.admit(next_one, ANN)
    receive(next_one, 3, ACCEPTED)
    await sim.run(1)
    assert (await shown(sim)).attempt == 2


async def test_abort_of_an_upload_that_the_store_shows_as_whole_changes_nothing(
    sim: Simulation,
) -> None:
    head = evolve(PATCH, total_bytes=10, completes_at_total=True)
    first = open_request(sim, evolve(head, total_bytes=10))
    assert sim.internals.admission.admit(first, ANN)
    receive(first, 4, ACCEPTED)
    await sim.run(5)
    last = open_request(sim, evolve(head, total_bytes=None, offset=4))
    assert sim.internals.admission.admit(last, ANN)
    receive(last, 6, ACCEPTED)
    abort = open_request(sim, TransferHead("tus", TransferKind.ABORT, "/files/1"))
    assert sim.internals.admission.admit(abort, ANN)
    receive(abort, 0, TransferOutcome(TransferResult.ABORTED))
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.COMPLETED, 10)


async def test_rejection_is_kept_after_a_refusal_of_a_request_that_changes_nothing(
    sim: Simulation,
) -> None:
    first = open_request(sim, evolve(PATCH, total_bytes=10))
    assert sim.internals.admission.admit(first, ANN)
    receive(first, 4, ACCEPTED)
    await sim.run(5)
    second = open_request(sim, evolve(PATCH, offset=4))
    assert sim.internals.admission.admit(second, ANN)
    second.opened_by.status = 413
    receive(second, 6, TransferOutcome(TransferResult.REJECTED))
    abort = open_request(sim, TransferHead("tus", TransferKind.ABORT, "/files/1"))
    assert sim.internals.admission.admit(abort, ANN)
    receive(abort, 0, REFUSED)
    await sim.run(1)

    now = await shown(sim)
    assert now.error is not None
    assert (now.state, now.error.http_status) == (S.FAILED, 413)


async def test_new_beginning_after_a_completion_of_which_nothing_is_known_is_another_upload(
    sim: Simulation,
) -> None:
    head = TransferHead("s3", TransferKind.COMPLETE, "/a", resource_is_unique=False)
    last = open_request(sim, head)
    assert sim.internals.admission.admit(last, ANN)
    receive(last, 0, COMPLETED)
    beginning = open_request(sim, evolve(head, kind=TransferKind.BYTES, offset=0))
    assert sim.internals.admission.admit(beginning, ANN)
    assert beginning.merged_into is None
    receive(beginning, 4, ACCEPTED)
    await sim.run(1)

    now = await shown(sim)
    assert (now.state, now.bytes_transferred) == (S.RECEIVING, 4)
