"""Rows of the table of real clients in the documentation.

A row is made from the snapshots that a test received, then compared with the documentation. A new
or changed row is written to ``build/clients.json`` before the comparison fails; ``python -m
docs.clients`` copies it into the documentation.
"""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version

from attrs import define, field

from docs.clients import DOCUMENTED, LAST_RUN, Row, read_rows
from tests._support.upload_watcher import UploadWatcher

__all__ = ["ClientReport", "version_of"]

VERSION_SECONDS = 30


@define
class ClientReport:
    """The rows of this run, added to those in the documentation."""

    rows: dict[tuple[str, str], Row] = field(factory=dict)

    def add(
        self,
        watch: UploadWatcher,
        *,
        client: str,
        sends: str,
        same_content: bool,
        restarted: str = "–",
    ) -> None:
        """Add a row from the snapshots of *watch*, and compare it with the documentation.

        Args:
            watch: The received snapshots.
            client: Name and version of the client.
            sends: Description of its requests.
            same_content: Whether a download returned the same bytes.
            restarted: What happened after it was killed and restarted.
        """
        name, _, installed = client.partition(" ")
        row = {
            "client": name,
            "version": installed,
            "sends": sends,
            "uploads": describe_uploads(watch),
            "progress": "bytes grow" if watch.distinct_values() >= 2 else "nothing",
            "states": ", ".join(sorted({str(each["state"]) for each in watch.latest()})),
            "download": "same SHA-256" if same_content else "differs",
            "restarted": restarted,
        }
        documented = {(each["client"], each["sends"]): each for each in read_rows(DOCUMENTED)}
        self.rows[name, sends] = row
        self.write(documented | self.rows)
        known = documented.get((name, sends), {})
        assert row | {"version": ""} == known | {"version": ""}, (
            f"{row} is not the documented {known}; update with: python -m docs.clients"
        )

    def write(self, rows: dict[tuple[str, str], Row]) -> None:
        """Write *rows* for ``docs.clients``."""
        LAST_RUN.parent.mkdir(exist_ok=True)
        text = json.dumps([row for _, row in sorted(rows.items())], indent=1, ensure_ascii=False)
        LAST_RUN.write_text(text + "\n", encoding="utf-8")


def describe_uploads(watch: UploadWatcher) -> str:
    """Return the number of uploads, and whether they are in one group."""
    count, groups = len(watch.seen), {each["group"] for each in watch.latest()}
    text = "1 upload" if count == 1 else f"{count} uploads"
    return (
        text
        if groups == {None}
        else f"{text}, 1 group"
        if len(groups) == 1
        else f"{text}, several groups"
    )


def version_of(package_or_program: str) -> str:
    """Return name and version of a Python package, or of the program at a path."""
    if "/" not in package_or_program:
        return f"{package_or_program} {version(package_or_program)}"
    output = subprocess.run(
        [package_or_program, "--version"],
        capture_output=True,
        text=True,
        timeout=VERSION_SECONDS,
        check=True,
    ).stdout
    found = re.search(r"\d+(\.\d+)+", output)
    return f"{package_or_program.rpartition('/')[2]} {found[0] if found else ''}"
