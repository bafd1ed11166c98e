"""Metrics and spans of OpenTelemetry, received by its SDK in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests._support.protocol_apps import ContentRangeApp, send_request
from tests._support.simulation import ENDINGS, Simulation, end_upload
from upload_progress import ProgressTracker, Upload
from upload_progress.instrumentation._figures import DISTRIBUTIONS, FIGURES
from upload_progress.instrumentation.opentelemetry import instrument

pytestmark = pytest.mark.anyio

PREFIX = "upload_progress."


@define(eq=False)
class Telemetry:
    """Receives the metrics and spans of one tracker."""

    sim: Simulation = field(factory=Simulation)
    reader: InMemoryMetricReader = field(factory=InMemoryMetricReader)
    exporter: InMemorySpanExporter = field(factory=InMemorySpanExporter)
    tracers: TracerProvider = field(factory=TracerProvider)

    def __attrs_post_init__(self) -> None:
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        instrument(self.sim.tracker, meter_provider=meters, tracer_provider=self.tracers)

    def points(self) -> dict[str, Sequence[object]]:
        """Return the points of each metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric.data.data_points for metric in scope.metrics}

    def spans(self) -> list[ReadableSpan]:
        """Return the spans of uploads that have ended."""
        return [each for each in self.exporter.get_finished_spans() if each.name == "upload"]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


async def test_every_metric_is_reported(telemetry: Telemetry) -> None:
    sim = telemetry.sim
    subscription = sim.subscription("up")
    live = sim.begin("up", total=10)
    sim.add(live, 10)
    sim.clock.advance(2)
    end_upload(live, "completed")
    await sim.run(1)
    subscription.close()
    points = telemetry.points()

    names = [each.name for each in FIGURES] + [each.name for each in DISTRIBUTIONS.values()]
    assert points.keys() == {PREFIX + name for name in names}
    received = points[f"{PREFIX}received_bytes"][0]
    assert isinstance(received, NumberDataPoint)
    assert received.value == 10
    durations = points[f"{PREFIX}upload_duration"][0]
    assert isinstance(durations, HistogramDataPoint)
    assert (durations.count, durations.sum) == (1, 2.0)
    ends = {
        (point.attributes["state"], point.attributes["code"]): point.value
        for point in points[f"{PREFIX}uploads_ended"]
        if isinstance(point, NumberDataPoint) and point.attributes
    }
    assert ends.pop(("completed", "")) == 1
    assert set(ends.values()) == {0}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_span_ends_with_its_upload(telemetry: Telemetry, ending: str) -> None:
    live = telemetry.sim.begin("up", total=10)
    telemetry.sim.add(live, 4)
    end_upload(live, ending)
    await telemetry.sim.run(1)
    (span,) = telemetry.spans()

    state, code = ENDINGS[ending]
    expected = {f"{PREFIX}state": str(state)}
    if code is not None:
        expected[f"{PREFIX}error_code"] = str(code)
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == ("end", expected)
    assert span.status.status_code is (
        StatusCode.ERROR if str(state) == "failed" else StatusCode.UNSET
    )
    assert dict(span.attributes or {}) == {
        f"{PREFIX}upload_id": "up",
        f"{PREFIX}total_bytes": 10,
        f"{PREFIX}received_bytes": 4,
        f"{PREFIX}attempt": 1,
    }


async def test_stages_are_events(telemetry: Telemetry) -> None:
    live = telemetry.sim.begin("up")
    async with Upload(live).stage("scanning", total=2) as stage:
        stage.advance(2)
        async with Upload(live).stage("hashing"):
            pass
    end_upload(live, "completed")
    (span,) = telemetry.spans()

    names = [(event.attributes or {}).get(f"{PREFIX}stage") for event in span.events]
    assert names == ["scanning", "hashing", "scanning", None]


async def test_span_is_a_child_of_the_request_and_linked_to_further_ones(
    telemetry: Telemetry,
) -> None:
    """The two requests of one upload have spans of their own."""
    tracer = telemetry.tracers.get_tracer("server")
    app, requests = ContentRangeApp(), []
    for content_range, content in (("0-4/10", b"01234"), ("5-9/10", b"56789")):
        headers = {"content-range": f"bytes {content_range}"}
        with tracer.start_as_current_span("request") as request:
            requests.append(request.get_span_context())
            await send_request(
                app, telemetry.sim.tracker, "PUT", "/a", headers=headers, content=content
            )
    (span,) = telemetry.spans()

    assert span.parent is not None
    assert span.parent.span_id == requests[0].span_id
    assert [link.context.span_id for link in span.links] == [requests[1].span_id]


async def test_upload_that_was_there_before_has_no_span() -> None:
    sim = Simulation()
    live = sim.begin("up")
    telemetry = Telemetry(sim)
    live.show_stage(None)
    sim.internals.measurements.join(live)
    end_upload(live, "completed")
    await sim.run(1)

    assert telemetry.spans() == []


async def test_span_ends_when_the_upload_is_superseded(telemetry: Telemetry) -> None:
    telemetry.sim.begin("up")
    telemetry.sim.begin("up")
    (span,) = telemetry.spans()

    assert span.events == ()


def test_global_providers_are_used_by_default() -> None:
    """They do nothing until an application sets them."""
    tracker = ProgressTracker()
    instrument(tracker)
