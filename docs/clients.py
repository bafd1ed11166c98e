"""The table of real clients in the documentation.

The tests with real clients write their results to ``build/clients.json``, and ``python -m
docs.clients`` copies them into the documentation. Each of these tests compares its result with the
documentation, except for the version of the client.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENTED = HERE / "generated" / "clients.json"
LAST_RUN = HERE.parent / "build" / "clients.json"
COLUMNS = {
    "client": "Client",
    "version": "Version",
    "sends": "Sends",
    "uploads": "Reported as",
    "progress": "During the upload",
    "states": "Final state",
    "download": "Download",
    "restarted": "Killed midway and restarted",
}

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Return the rows in a file; none if it does not exist."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def clients_table() -> str:
    """Return the table in Markdown."""
    lines = [COLUMNS.values(), ("---",) * len(COLUMNS)]
    lines += [[row[name] for name in COLUMNS] for row in read_rows(DOCUMENTED)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Copy the results of the last run into the documentation."""
    DOCUMENTED.write_text(LAST_RUN.read_text(encoding="utf-8"), encoding="utf-8")
    (HERE / "generated" / "clients.md").write_text(clients_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
