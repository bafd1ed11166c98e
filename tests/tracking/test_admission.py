"""Admission: ids, owners and limits of new uploads."""

from __future__ import annotations

import pytest

from tests._support.simulation import ANN, Simulation
from upload_progress import Limits, UploadNotFound, UploadState
from upload_progress._model.models import new_upload_id
from upload_progress.identity import CapabilityIdentity, Identity

pytestmark = pytest.mark.anyio

S = UploadState


async def test_id_in_use_is_replaced_by_a_new_one(sim: Simulation) -> None:
    first, second = sim.begin("up", total=10), sim.begin("up", total=20)
    sim.add(first, 10)
    sim.add(second, 5)
    second.client_disconnected()
    await sim.run(0.5)

    assert second.upload_id != "up"
    assert (await sim.tracker.get("up", owner="ann")).bytes_transferred == 10
    assert (await sim.tracker.get(second.upload_id, owner="ann")).state is S.FAILED


@pytest.mark.usefixtures("short_call_timeout")
async def test_ended_uploads_that_wait_for_the_store_do_not_count() -> None:
    sim = Simulation(limits=Limits(tracked_per_owner=3, tracked_total=6))
    sim.store.fault = "raise"
    for _ in range(5):
        sim.begin().client_disconnected()
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
