"""The registry of live uploads, and the index of resources."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests._support.simulation import (
    ANN,
    Simulation,
)
from upload_progress import (
    Limits,
)
from upload_progress._tracking.live_upload import LiveUpload


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "remove"]), st.integers(0, 4))))
def test_only_uploads_that_have_not_ended_count_for_the_owner(steps: list[tuple[str, int]]) -> None:
    """Also if they are removed before they end."""
    sim = Simulation(limits=Limits(tracked_per_owner=3))
    registry = sim.internals.registry
    uploads: list[LiveUpload] = []
    for step, number in steps:
        if step == "begin":
            live = sim.internals.admission.open(requested_id=f"upload-{number}")
            had_room = sum(not each.is_ended for each in registry.of_owner("ann")) < 3
            assert sim.internals.admission.admit(live, ANN) is had_room
            uploads.append(live)
        for each in uploads[number : number + 1]:
            if step == "end":
                each.app_cancelled()
            elif step == "remove":
                registry.remove(each)

    for each in uploads:
        registry.remove(each)
    assert not len(registry)
    assert not registry._open
