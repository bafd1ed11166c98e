"""The outbox: events wait for the publisher, the newest of each upload."""

from __future__ import annotations

import pytest

from tests._support.simulation import Simulation
from upload_progress import UploadState
from upload_progress.testing import Fault

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.mark.parametrize("fault", ["raise", "hang"])
@pytest.mark.usefixtures("short_call_timeout")
async def test_publisher_outage_delays_the_last_event_of_each_upload(
    sim: Simulation, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """One event per upload waits at most, and the end is not lost."""
    sim.publisher.fault = fault
    for number in range(20):
        live = sim.begin(f"up{number}", total=100)
        await sim.run(0.5)
        live.client_disconnected()
        await sim.run(0.5)
    assert len(sim.internals.flusher.outbox.waiting) == 20
    assert len(sim.internals.registry) == 0

    sim.publisher.fault = None
    await sim.run(6)

    for number in range(20):
        assert [event.state for event in sim.events(f"up{number}")] == [S.FAILED]
    assert len(caplog.records) == 1
    assert sim.internals.flusher.is_idle
