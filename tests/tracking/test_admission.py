"""Admission: ids, owners and limits of new uploads."""

from __future__ import annotations

import pytest

from tests._support.simulation import ANN, Simulation
from upload_progress import Limits, UploadNotFound, UploadState
from upload_progress._model.models import UploadKey, new_upload_id
from upload_progress._tracking import outcomes
from upload_progress.identity import CapabilityIdentity, Identity

pytestmark = pytest.mark.anyio

S = UploadState


async def test_newer_upload_of_an_id_is_the_next_attempt(sim: Simulation) -> None:
    """The older transfer goes on, and is not reported any more."""
    first = sim.begin("up", total=20)
    sim.add(first, 10)
    await sim.run(0.5)
    second = sim.begin("up")
    sim.add(second, 5)
    sim.add(first, 10)
    await sim.run(0.5)
    shown = await sim.tracker.get("up", owner="ann")
    assert (shown.attempt, shown.bytes_transferred, shown.total_bytes) == (2, 5, 20)

    first.end_body()
    outcomes.finish(first, 200)
    await sim.run(0.5)
    assert (await sim.tracker.get("up", owner="ann")).state is S.RECEIVING
    outcomes.client_disconnected(second)
    await sim.run(0.5)

    [listed] = (await sim.tracker.list(owner="ann")).uploads
    assert (listed.attempt, listed.state, listed.bytes_transferred) == (2, S.FAILED, 5)
    states = [(event.attempt, event.state) for event in sim.events("up")]
    assert (1, S.COMPLETED) not in states
    sequences = [event.sequence for event in sim.events("up")]
    assert sequences == sorted(set(sequences))
    # The store has dropped the records of the older attempt.
    [record] = await sim.memory.load(UploadKey("ann", "up"))
    assert record.state is S.FAILED
    assert len(sim.internals.registry) == 0


@pytest.mark.usefixtures("short_call_timeout")
async def test_ended_uploads_that_wait_for_the_store_do_not_count() -> None:
    sim = Simulation(limits=Limits(tracked_per_owner=3, tracked_total=6))
    sim.store.fault = "raise"
    for _ in range(5):
        outcomes.client_disconnected(sim.begin())
        await sim.run()

    open_uploads = [sim.begin()]
    assert not sim.internals.admission.admit(sim.internals.admission.open(), ANN)
    assert sim.tracker.statistics().untracked == 1
    assert len(sim.internals.registry) == 5 + len(open_uploads)


async def test_capability_accepts_only_ids_that_are_hard_to_guess(sim: Simulation) -> None:
    capability = CapabilityIdentity()
    guessable, good = (
        sim.internals.admission.open(requested_id="me"),
        sim.internals.admission.open(requested_id="A1" * 64),
    )
    named = sim.internals.admission.open(requested_id="me")
    named.id_is_sent = True
    strong = new_upload_id()
    held = sim.internals.admission.open(requested_id=strong)

    assert sim.internals.admission.admit(guessable, capability)
    assert guessable.upload_id != "me"
    assert sim.internals.admission.admit(good, capability)
    assert not sim.internals.admission.admit(named, capability)
    assert sim.internals.admission.admit(held, capability)
    assert held.upload_id == strong
    assert (await sim.tracker.get(strong, owner=capability)).upload_id == strong
    with pytest.raises(UploadNotFound):
        await sim.tracker.get("me", owner=capability)
    anonymous = sim.internals.admission.open()
    sim.internals.admission.admit(anonymous, Identity("anonymous"))
    assert (await sim.tracker.list(owner=capability)).uploads == ()
    assert len((await sim.tracker.list(owner="anonymous")).uploads) == 1


async def test_anonymous_uploads_count_for_the_address_of_their_client() -> None:
    """Each has another owner."""
    sim = Simulation(limits=Limits(tracked_per_owner=2))
    admission = sim.internals.admission

    def admit(client: str) -> bool:
        return admission.admit(admission.open(), CapabilityIdentity(client=client))

    assert [admit("1.2.3.4") for _ in range(3)] == [True, True, False]
    assert admit("1.2.3.5")
    assert [admit("") for _ in range(3)] == [True, True, True]
    for upload in sim.internals.registry.everything():
        upload.begin()
        outcomes.client_disconnected(upload)
    assert [admit("1.2.3.4") for _ in range(3)] == [True, True, False]
