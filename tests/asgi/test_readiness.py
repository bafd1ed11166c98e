"""Readiness for probes: open uploads, and the longest remaining time."""

from __future__ import annotations

import json

import pytest

from tests._support.asgi_client import RecordingSend, http_scope, never
from tests._support.simulation import Simulation, end_upload
from upload_progress import ProgressTracker, Readiness
from upload_progress.asgi import ReadinessEndpoint

pytestmark = pytest.mark.anyio


async def ask(tracker: ProgressTracker) -> tuple[int, dict[str, object]]:
    """Return status and content of the endpoint."""
    send = RecordingSend()
    await ReadinessEndpoint(tracker)(http_scope("/ready"), never, send)
    start, body = send.sent
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"cache-control"] == b"no-store"
    return start["status"], json.loads(body["body"])


async def test_open_uploads_and_their_longest_remaining_time_are_told() -> None:
    sim = Simulation()
    slow, fast, unknown = (
        sim.begin("slow", total=1000),
        sim.begin("fast", total=1000),
        sim.begin("unknown"),
    )
    end_upload(sim.begin("ended", total=10), "completed")
    for _ in range(40):
        sim.add(slow, 1)
        sim.add(fast, 10)
        sim.add(unknown, 1)
        await sim.run(0.1)
    readiness = sim.tracker.readiness()

    assert (readiness.is_ready, readiness.open_uploads) == (True, 3)
    assert readiness.longest_eta_seconds == pytest.approx(96, abs=5)
    assert await ask(sim.tracker) == (
        200,
        {
            "is_ready": True,
            "open_uploads": 3,
            "longest_eta_seconds": readiness.longest_eta_seconds,
        },
    )


async def test_upload_is_open_until_its_end() -> None:
    sim = Simulation()
    live = sim.begin("up", total=10)
    live.end_body()
    before = sim.tracker.readiness().open_uploads
    end_upload(live, "completed")

    assert (before, sim.tracker.readiness().open_uploads) == (1, 0)


async def test_drained_worker_is_not_ready() -> None:
    tracker = ProgressTracker()
    tracker.drain()

    assert tracker.readiness() == Readiness(
        is_ready=False, open_uploads=0, longest_eta_seconds=None
    )
    assert await ask(tracker) == (
        503,
        {"is_ready": False, "open_uploads": 0, "longest_eta_seconds": None},
    )
