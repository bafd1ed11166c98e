"""Metrics for Prometheus: what the collector returns, and what a real Prometheus makes of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests._support.simulation import Simulation, end_upload
from tests.instrumentation.traffic import SENT, send_uploads
from upload_progress import ProgressTracker
from upload_progress.instrumentation._figures import DISTRIBUTIONS, FIGURES, Kind
from upload_progress.instrumentation.prometheus import ProgressCollector

pytestmark = pytest.mark.anyio

PREFIX = "upload_progress_"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(tracker: ProgressTracker) -> Samples:
    """Return the samples of one scrape by name and labels."""
    registry = CollectorRegistry()
    registry.register(ProgressCollector(tracker))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def value_of(samples: Samples, name: str, **labels: str) -> float:
    """Return the value of one sample."""
    return samples[PREFIX + name, tuple(sorted(labels.items()))]


async def test_sums_agree_with_what_was_sent() -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        await send_uploads(tracker)
        samples = scrape(tracker)
    after = scrape(tracker)

    for each in (samples, after):
        assert value_of(each, "received_bytes_total") == SENT.received_bytes
        assert value_of(each, "accepted_bytes_total") == SENT.accepted_bytes
        ends = {labels: value for (name, labels), value in each.items() if "_ended_total" in name}
        expected = {
            (("code", code), ("state", state)): count for (state, code), count in SENT.ends.items()
        }
        assert {labels: value for labels, value in ends.items() if value} == expected
        assert value_of(each, "upload_duration_seconds_count") == sum(SENT.ends.values())
        assert value_of(each, "open_bytes") == 0
    assert value_of(after, "stored_records_total") >= sum(SENT.ends.values())


def test_every_metric_is_there_before_anything_happens() -> None:
    """The first increase of a series that was not there before would not be seen."""
    names = {name for name, _ in scrape(ProgressTracker())}
    suffix = {Kind.COUNTER: "_total", Kind.GAUGE: ""}
    figures = {f"{PREFIX}{each.name}{suffix[each.kind]}" for each in FIGURES}
    distributions = {f"{PREFIX}{each.name}_{each.unit_name}" for each in DISTRIBUTIONS.values()}

    assert figures | {f"{each}_bucket" for each in distributions} <= names


def test_labels_have_no_values_that_clients_choose() -> None:
    labels = {label for each in FIGURES for label in each.labels}

    assert labels == {"state", "code", "arrival", "backend", "transport", "kind"}


async def test_buckets_count_up() -> None:
    sim = Simulation()
    for seconds in (0.05, 2, 5000):
        live = sim.begin()
        sim.clock.advance(seconds)
        end_upload(live, "completed")
    samples = scrape(sim.tracker)

    def bucket(bound: str) -> float:
        return value_of(samples, "upload_duration_seconds_bucket", le=bound)

    assert [bucket(each) for each in ("0.1", "1.0", "3.0", "3600.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert value_of(samples, "upload_duration_seconds_sum") == pytest.approx(5002.05)
