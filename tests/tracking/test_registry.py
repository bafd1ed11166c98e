"""The registry of live uploads, and the index of resources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import ANN, Simulation
from upload_progress import Limits
from upload_progress._model.models import UploadKey
from upload_progress._tracking import outcomes
from upload_progress._tracking import registry as registry_module
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import ResourceIndex


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "remove"]), st.integers(0, 4))))
def test_only_uploads_that_have_not_ended_count_for_the_owner(steps: list[tuple[str, int]]) -> None:
    """Also if they are removed before they end."""
    sim = Simulation(limits=Limits(tracked_per_owner=3))
    registry = sim.internals.registry
    uploads: list[LiveUpload] = []
    for step, number in steps:
        if step == "begin":
            live = sim.internals.admission.open(requested_id=f"upload-{number}")
            # An upload takes the place of an older one of the same id.
            others = [each for each in registry.of_owner("ann") if each.upload_id != live.upload_id]
            had_room = sum(not each.is_ended for each in others) < 3
            assert sim.internals.admission.admit(live, ANN) is had_room
            uploads.append(live)
        for each in uploads[number : number + 1]:
            if step == "end":
                outcomes.app_cancelled(each)
            elif step == "remove":
                registry.remove(each)

    for each in uploads:
        registry.remove(each)
    assert not len(registry)
    assert not registry._open


def test_uploads_of_an_owner_are_listed_newest_first(sim: Simulation) -> None:
    uploads = [sim.begin(f"up{number}") for number in range(3)]
    registry = sim.internals.registry

    assert registry.of_owner("ann") == uploads[::-1]
    assert registry.everything() == uploads
    assert registry.of_owner("bob") == []


def test_superseded_upload_is_not_removed_from_its_successor(sim: Simulation) -> None:
    first = sim.begin("up")
    outcomes.client_disconnected(first)
    second = sim.begin("up")
    registry = sim.internals.registry

    registry.remove(first)

    assert registry.find("ann", "up") is second
    assert len(registry) == 1


def test_total_number_of_uploads_is_limited() -> None:
    sim = Simulation(limits=Limits(tracked_total=2))
    sim.begin()
    sim.begin()

    assert not sim.internals.registry.has_room("bob")


# --- resources ------------------------------------------------------------------------------------


def test_oldest_resource_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MAX_RESOURCES", 2)
    index = ResourceIndex()
    for resource_id in ("a", "b", "a", "c"):
        index.remember("ann", resource_id, f"upload-of-{resource_id}")

    assert index.find("ann", "a") == "upload-of-a"
    assert index.find("ann", "b") is None
    assert index.find("ann", "c") == "upload-of-c"


def test_resource_belongs_to_its_owner() -> None:
    index = ResourceIndex()
    index.remember("ann", "a", "up")

    assert index.find("bob", "a") is None


def test_number_of_remembered_cancels_is_limited(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_RESOURCES", 2)
    registry = sim.internals.registry
    for number in range(3):
        sim.begin(f"up{number}").cancel()

    keys, now = [UploadKey("ann", f"up{number}") for number in range(3)], sim.clock.monotonic()
    known = [registry.find_cancel(key, now) is not None for key in keys]
    assert known == [False, True, True]
