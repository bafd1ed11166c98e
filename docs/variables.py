"""The table of environment variables, created from their definitions."""

from __future__ import annotations

from upload_progress.settings.variables import VARIABLES, Variable

__all__ = ["variables_table"]


def variables_table() -> str:
    """Return a table of all environment variables."""
    rows = ["| variable | option | value |", "| --- | --- | --- |", *map(_row, VARIABLES)]
    return "\n".join(rows) + "\n"


def _row(variable: Variable) -> str:
    option = f"`{variable.option}` of `{variable.group}`"
    return f"| `{variable.name}` | {option} | {variable.form} |"
