"""The edge of a tracker gets the events that the broker gets, also while that is away."""

from __future__ import annotations

import logging

import pytest

from tests.reporting.test_outbox import report
from upload_progress import ProgressTracker, UploadState
from upload_progress._internals import internals_of
from upload_progress._model.cloudevents import CloudEvent
from upload_progress.testing import FaultyPublisher

pytestmark = pytest.mark.anyio


async def upload(tracker: ProgressTracker) -> None:
    async with tracker.lifespan(), tracker.track(owner="alice", total_bytes=1) as upload:
        upload.advance(1)


def ends(events: list[CloudEvent]) -> int:
    return sum(each.data.state is UploadState.COMPLETED for each in events)


@pytest.mark.parametrize("has_broker", [True, False])
async def test_edge_gets_events_while_the_broker_is_away(*, has_broker: bool) -> None:
    broker, edge = FaultyPublisher("raise"), FaultyPublisher()
    tracker = ProgressTracker(publisher=broker if has_broker else None, edge=edge)

    await upload(tracker)

    assert ends(edge.events) == 1
    assert ends(broker.events) == 0
    failures = tracker.statistics().backend_failures
    assert failures["edge"] == 0
    assert bool(failures.get("publisher")) is has_broker


async def test_broker_gets_events_while_the_edge_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    broker, edge = FaultyPublisher(), FaultyPublisher("raise")
    tracker = ProgressTracker(publisher=broker, edge=edge)

    await upload(tracker)

    assert ends(broker.events) == 1
    assert tracker.statistics().backend_failures["edge"] > 0
    assert "the push server is not available" in caplog.text
    assert "stopped before the push server had accepted" in caplog.text


async def test_what_the_store_refuses_is_dropped_for_the_edge_too() -> None:
    tracker = ProgressTracker(publisher=FaultyPublisher("raise"), edge=FaultyPublisher("raise"))
    outbox = internals_of(tracker).flusher.outbox
    update = report("ann")
    await outbox.send({update.topic: update})
    assert len(outbox) == 2

    outbox.drop(update.topic, 1)

    assert len(outbox) == 0
