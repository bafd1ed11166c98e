"""Metrics for Prometheus."""

from collections.abc import Iterator
from typing import Final

from upload_progress._runtime.optional import require

require("prometheus_client", extra="prometheus")

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from upload_progress._internals import internals_of
from upload_progress._tracking.measurements import Histogram
from upload_progress.instrumentation._figures import DISTRIBUTIONS, FIGURES, Figure, Kind
from upload_progress.tracker import ProgressTracker

__all__ = ["ProgressCollector"]

_PREFIX: Final = "upload_progress_"


class ProgressCollector(Collector):
    """Collects the metrics of one tracker when Prometheus asks for them.

    It costs nothing between two scrapes; one scrape takes time in proportion to the number of live
    uploads. It may be called by any thread. Several processes have several collectors: see the
    page "Metrics and traces" of the documentation.

    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from upload_progress import ProgressTracker
    >>> registry = CollectorRegistry()
    >>> registry.register(ProgressCollector(ProgressTracker()))
    >>> b"upload_progress_received_bytes_total 0.0" in generate_latest(registry)
    True

    Args:
        tracker: The tracker.
    """

    def __init__(self, tracker: ProgressTracker) -> None:
        self._tracker = tracker

    def collect(self) -> Iterator[Metric]:
        """Return all metrics with their current values."""
        statistics = self._tracker.statistics()
        for figure in FIGURES:
            family = _family(figure)
            for labels, value in figure.read(statistics):
                family.add_metric(labels, value)
            yield family
        histograms = internals_of(self._tracker).measurements.histograms
        for distribution, measured in DISTRIBUTIONS.items():
            name = f"{_PREFIX}{measured.name}_{measured.unit_name}"
            yield _histogram(name, measured.help, histograms[distribution])


def _family(figure: Figure) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if figure.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(_PREFIX + figure.name, figure.help, labels=figure.labels)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    """Return a histogram, whose buckets Prometheus counts up from the smallest."""
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    buckets, count = list[tuple[str, float]](), 0
    for bound, added in zip(bounds, list(histogram.counts), strict=True):
        count += added
        buckets.append((bound, float(count)))
    family = HistogramMetricFamily(name, text)
    family.add_metric([], buckets, histogram.total)
    return family
