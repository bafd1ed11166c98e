"""The Grafana dashboard, created from a list of panels."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

__all__ = ["PANELS", "Panel", "dashboard"]

PREFIX: Final = "upload_progress_"
COLUMNS: Final = 3
WIDTH: Final = 24 // COLUMNS
HEIGHT: Final = 8
SELECTOR: Final = '{job=~"$job"'
BUFFERED: Final = ', arrival="buffered"'


class Panel(NamedTuple):
    """A panel: its title, its unit in Grafana, its description, and queries by their legends."""

    title: str
    unit: str
    description: str
    queries: dict[str, str]


def gauge(name: str, labels: str = "") -> str:
    """Return the query for a gauge, summed over all workers."""
    by = f" by ({labels})" if labels else ""
    return f"sum{by} ({PREFIX}{name}{SELECTOR}}})"


def rate(name: str, labels: str = "", *, where: str = "") -> str:
    """Return the query for the rate of a counter, summed over all workers."""
    by = f" by ({labels})" if labels else ""
    return f"sum{by} (rate({PREFIX}{name}_total{SELECTOR}{where}}}[$__rate_interval]))"


def quantiles(name: str, *quantities: float) -> dict[str, str]:
    """Return the queries for quantiles of a distribution, over all workers."""
    buckets = f"sum by (le) (rate({PREFIX}{name}_bucket{SELECTOR}}}[$__rate_interval]))"
    return {f"{each:.0%}": f"histogram_quantile({each}, {buckets})" for each in quantities}


PANELS: Final = (
    Panel(
        "Open uploads",
        "short",
        "Uploads that workers receive or process.",
        {"{{state}}": gauge("open_uploads", "state"), "stalled": gauge("stalled_uploads")},
    ),
    Panel(
        "Bytes",
        "Bps",
        "Received: all bytes of bodies. Accepted: of uploads that have completed.",
        {"received": rate("received_bytes"), "accepted": rate("accepted_bytes")},
    ),
    Panel(
        "Bytes of open uploads",
        "bytes",
        "Bytes that have arrived of uploads that have not ended.",
        {"arrived": gauge("open_bytes")},
    ),
    Panel(
        "Ends",
        "short",
        "Uploads that end in a second, by final state and error code.",
        {"{{state}} {{code}}": rate("uploads_ended", "state, code")},
    ),
    Panel(
        "Duration",
        "s",
        "From the first byte to the end.",
        quantiles("upload_duration_seconds", 0.5, 0.95),
    ),
    Panel(
        "Rate of an upload",
        "Bps",
        "Average rate, without the time that the application needs after the last byte.",
        quantiles("upload_rate_bytes_per_second", 0.05, 0.5),
    ),
    Panel(
        "Watchers",
        "short",
        "Open WebSockets, event streams, long polls and watch() loops.",
        {"{{transport}}": gauge("subscriptions", "transport")},
    ),
    Panel(
        "Lag of watched updates",
        "s",
        "From a change, here or at another worker, to its delivery.",
        quantiles("update_lag_seconds", 0.5, 0.95),
    ),
    Panel(
        "Held back by proxies",
        "percentunit",
        "Uploads that a proxy delivered at once, of those where it is known.",
        {"buffered": rate("arrivals", where=BUFFERED) + " / " + rate("arrivals")},
    ),
    Panel(
        "Passes of the flusher",
        "s",
        "Time to store and publish what is due.",
        quantiles("flush_duration_seconds", 0.5, 0.95),
    ),
    Panel(
        "Stores and brokers",
        "short",
        "Failures in a second; the number of workers that do not call one at the moment.",
        {
            "{{backend}} failures": rate("backend_failures", "backend"),
            "{{backend}} suspended": gauge("circuit_open", "backend"),
        },
    ),
    Panel(
        "Lost",
        "short",
        "What was not tracked, stored, published or understood, in a second.",
        {
            "untracked uploads": rate("untracked_uploads"),
            "ends not stored": rate("dropped_ends"),
            "{{kind}} events dropped": rate("dropped_events", "kind"),
            "events rejected": rate("rejected_events"),
            "messages rejected": rate("rejected_messages"),
        },
    ),
)


def _panel(number: int, panel: Panel) -> dict[str, object]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _variables() -> list[dict[str, object]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {
            "name": "job",
            "type": "query",
            "label": "Job",
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": f"label_values({PREFIX}open_uploads, job)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
        },
    ]


def dashboard() -> str:
    """Return the dashboard as Grafana imports it."""
    model = {
        "title": "Uploads",
        "uid": "upload-progress",
        "tags": ["upload-progress"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(model, indent=2) + "\n"
