"""The table of metrics, created from their definitions."""

from __future__ import annotations

from upload_progress.instrumentation._figures import DISTRIBUTIONS, FIGURES, Figure, Kind

__all__ = ["metrics_table"]

PREFIX = "upload_progress_"


def metrics_table() -> str:
    """Return a table of all metrics, as Prometheus shows them."""
    rows = [
        "| metric | type | labels | what it says |",
        "| --- | --- | --- | --- |",
        *(f"| `{_name(each)}` | {each.kind} | {_labels(each)} | {each.help} |" for each in FIGURES),
        *(
            f"| `{PREFIX}{each.name}_{each.unit_name}` | histogram |  | {each.help} |"
            for each in DISTRIBUTIONS.values()
        ),
    ]
    return "\n".join(rows) + "\n"


def _name(figure: Figure) -> str:
    return f"{PREFIX}{figure.name}{'_total' if figure.kind is Kind.COUNTER else ''}"


def _labels(figure: Figure) -> str:
    return ", ".join(f"`{each}`" for each in figure.labels)
