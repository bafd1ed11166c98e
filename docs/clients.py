"""The table of real clients: what each sent, and what was shown of it.

The tests with real clients write what they saw to ``build/clients.json``; this takes it over:
``python -m docs.clients``. Each of those tests also compares what it saw with what is taken over
here, so that the table is always that of the last run, but for the clients' versions.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
SEEN = HERE / "generated" / "clients.json"
RUN = HERE.parent / "build" / "clients.json"
COLUMNS = {
    "client": "Client",
    "version": "Version",
    "sends": "Sends",
    "shown": "Shown as",
    "between": "While it arrives",
    "end": "In the end",
    "back": "Comes back",
    "killed": "Killed half-way and started again",
}

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    """Return what a run has seen."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def clients_table() -> str:
    """Return the table."""
    lines = [COLUMNS.values(), ("---",) * len(COLUMNS)]
    lines += [[row[name] for name in COLUMNS] for row in rows_of(SEEN)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Take over what the last run has seen."""
    SEEN.write_text(RUN.read_text(encoding="utf-8"), encoding="utf-8")
    (HERE / "generated" / "clients.md").write_text(clients_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
