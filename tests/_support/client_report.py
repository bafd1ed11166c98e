"""What was seen of each client: a row of the table in the documentation.

A row is made of what a test has watched, not of what it expects; the test then compares it with
the row in the documentation. A new row, or a changed one, is written to ``build/clients.json``
before that comparison fails: ``python -m docs.clients`` takes it over.
"""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version

from attrs import define, field

from docs.clients import RUN, SEEN, Row, rows_of
from tests._support.upload_watcher import UploadWatcher

__all__ = ["ClientReport", "version_of"]

VERSION_SECONDS = 30


@define
class ClientReport:
    """The rows of this run, on top of those of the last."""

    rows: dict[tuple[str, str], Row] = field(factory=dict)

    def add(
        self, watch: UploadWatcher, *, client: str, sends: str, back: bool, killed: str = "–"
    ) -> None:
        """Add what *watch* has seen, and check that the documentation says the same."""
        name, _, installed = client.partition(" ")
        row = {
            "client": name,
            "version": installed,
            "sends": sends,
            "shown": describe_uploads(watch),
            "between": "bytes grow" if watch.distinct_values() >= 2 else "nothing",
            "end": ", ".join(sorted({str(each["state"]) for each in watch.latest()})),
            "back": "same SHA-256" if back else "differs",
            "killed": killed,
        }
        told = {(each["client"], each["sends"]): each for each in rows_of(SEEN)}
        self.rows[name, sends] = row
        self.write(told | self.rows)
        known = told.get((name, sends), {})
        assert row | {"version": ""} == known | {"version": ""}, "run: python -m docs.clients"

    def write(self, rows: dict[tuple[str, str], Row]) -> None:
        """Write what has been seen so far, for the documentation."""
        RUN.parent.mkdir(exist_ok=True)
        text = json.dumps([row for _, row in sorted(rows.items())], indent=1, ensure_ascii=False)
        RUN.write_text(text + "\n", encoding="utf-8")


def describe_uploads(watch: UploadWatcher) -> str:
    """Say how many uploads there were, and of which group."""
    many, groups = len(watch.seen), {each["group"] for each in watch.latest()}
    words = "1 upload" if many == 1 else f"{many} uploads"
    return words if groups == {None} else f"{words}, 1 group" if len(groups) == 1 else "a mess"


def version_of(package_or_program: str) -> str:
    """Return the name and version of a Python package, or of a program given by its path."""
    if "/" not in package_or_program:
        return f"{package_or_program} {version(package_or_program)}"
    said = subprocess.run(
        [package_or_program, "--version"],
        capture_output=True,
        text=True,
        timeout=VERSION_SECONDS,
        check=True,
    ).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return f"{package_or_program.rpartition('/')[2]} {found[0] if found else ''}"
