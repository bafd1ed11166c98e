"""Metrics and traces for OpenTelemetry."""

import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from upload_progress._runtime.optional import require

require("opentelemetry", extra="opentelemetry")

from attrs import define, field
from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
    get_meter,
)
from opentelemetry.trace import (
    Span,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    get_current_span,
    get_tracer,
)

from upload_progress._internals import internals_of
from upload_progress._model.models import UploadState
from upload_progress._reporting.statistics import Statistics
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.measurements import BOUNDS, Distribution, UploadObserver
from upload_progress.instrumentation._figures import DISTRIBUTIONS, FIGURES, Figure, Kind
from upload_progress.tracker import ProgressTracker

__all__ = ["instrument"]

_PREFIX: Final = "upload_progress."
_SCOPE: Final = "upload_progress"
_RECENT_SECONDS: Final = 0.05


def instrument(
    tracker: ProgressTracker,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> None:
    """Report the metrics of *tracker*, and one span for each of its uploads.

    Call it once, when the application starts. A span lasts from the first request of an upload to
    its end, or until this worker does not follow the upload any more. It is a child of the span
    of that request, and has links to the spans of further requests. Stages and the end are events
    of it. There is no span per chunk.

    >>> from upload_progress import ProgressTracker
    >>> instrument(ProgressTracker())

    Args:
        tracker: The tracker.
        meter_provider: Receives the metrics; the global one by default.
        tracer_provider: Receives the spans; the global one by default.
    """
    meter = get_meter(_SCOPE, meter_provider=meter_provider)
    recent = _RecentStatistics(tracker)
    for figure in FIGURES:
        _create_instrument(meter, figure, recent)
    tracer = get_tracer(_SCOPE, tracer_provider=tracer_provider)
    observers = internals_of(tracker).measurements.observers
    observers += [_DistributionRecorder(meter), _SpanRecorder(tracer)]


def _create_instrument(meter: Meter, figure: Figure, recent: "_RecentStatistics") -> None:
    is_counter = figure.kind is Kind.COUNTER
    create = meter.create_observable_counter if is_counter else meter.create_observable_gauge
    create(
        _PREFIX + figure.name,
        callbacks=[_observer(figure, recent)],
        unit=figure.unit,
        description=figure.help,
    )


@define(eq=False, repr=False)
class _RecentStatistics:
    """Reads the counters once for all instruments that are observed at the same time."""

    tracker: ProgressTracker
    _read_at: float = field(default=-inf, init=False)
    _statistics: Statistics = field(init=False)

    def get(self) -> Statistics:
        now = time.monotonic()
        if now - self._read_at > _RECENT_SECONDS:
            self._read_at, self._statistics = now, self.tracker.statistics()
        return self._statistics


def _observer(
    figure: Figure, recent: _RecentStatistics
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for labels, value in figure.read(recent.get()):
            yield Observation(value, dict(zip(figure.labels, labels, strict=True)))

    return observe


class _DistributionRecorder(UploadObserver):
    """Records the values of distributions."""

    def __init__(self, meter: Meter) -> None:
        self._histograms: dict[Distribution, Histogram] = {
            distribution: meter.create_histogram(
                _PREFIX + measured.name,
                unit=measured.unit,
                description=measured.help,
                explicit_bucket_boundaries_advisory=BOUNDS[distribution],
            )
            for distribution, measured in DISTRIBUTIONS.items()
        }

    def on_value(self, distribution: Distribution, value: float) -> None:
        """Record a value."""
        self._histograms[distribution].record(value)


@define(eq=False, repr=False)
class _SpanRecorder(UploadObserver):
    """Records a span for each upload, as long as this worker follows it."""

    tracer: Tracer
    _open: dict[LiveUpload, Span] = field(factory=dict, init=False)

    def on_tracked(self, upload: LiveUpload) -> None:
        """Begin the span of an upload."""
        attributes: dict[str, str | int] = {f"{_PREFIX}upload_id": upload.upload_id}
        if upload.meter.total_bytes is not None:
            attributes[f"{_PREFIX}total_bytes"] = upload.meter.total_bytes
        self._open[upload] = self.tracer.start_span("upload", attributes=attributes)

    def on_request(self, upload: LiveUpload) -> None:
        """Link the span of a further request."""
        request, span = get_current_span().get_span_context(), self._open.get(upload)
        if request.is_valid and span is not None:
            span.add_link(request)

    def on_stage(self, upload: LiveUpload) -> None:
        """Add an event for a stage that begins."""
        span = self._open.get(upload)
        if span is not None and upload.current_stage is not None:
            span.add_event("stage", {f"{_PREFIX}stage": upload.current_stage.stage.name})

    def on_end(self, upload: LiveUpload) -> None:
        """Add an event for the end, and end the span."""
        span = self._open.get(upload)
        if span is None:
            return
        event: dict[str, str | int] = {f"{_PREFIX}state": str(upload.state)}
        if upload.error is not None:
            event[f"{_PREFIX}error_code"] = str(upload.error.code)
        span.add_event("end", event)
        if upload.state is UploadState.FAILED and upload.error is not None:
            span.set_status(Status(StatusCode.ERROR, str(upload.error.code)))
        self.on_removed(upload)

    def on_removed(self, upload: LiveUpload) -> None:
        """End the span of an upload that has ended, or may go on at another worker."""
        span = self._open.pop(upload, None)
        if span is not None:
            span.set_attribute(f"{_PREFIX}received_bytes", upload.received_bytes)
            span.set_attribute(f"{_PREFIX}attempt", upload.attempt)
            span.end()
