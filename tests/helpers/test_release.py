"""``dev.py release`` and ``dev.py notes``, with a copy of the files that they change."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests._support.paths import ROOT

FILES = ("dev.py", "pyproject.toml", "CHANGELOG.md", "src/upload_progress/static/package.json")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def dev(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project / "dev.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_release_sets_both_versions_and_cuts_the_change_log(project: Path) -> None:
    before = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^- .*", before, re.MULTILINE)
    assert first

    assert dev(project, "release", "9.8.7rc1").returncode == 0
    shown = dev(project, "notes", "9.8.7rc1")

    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    package = (project / "src/upload_progress/static/package.json").read_text(encoding="utf-8")
    after = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["version"] == "9.8.7rc1"
    assert json.loads(package)["version"] == "9.8.7-rc.1"
    assert re.search(r"## \[Unreleased\]\n\n## \[9\.8\.7rc1\] - \d{4}-\d\d-\d\d\n", after)
    assert after.count("\n") == before.count("\n") + 2
    assert first[0] in shown.stdout
    assert "## [" not in shown.stdout


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        (["release 1.2"], "1.2 is no version"),
        (["release 9.8.7", "release 9.8.7"], "has a section"),
        (["release 9.8.7", "release 9.8.8"], "nothing under"),
        (["notes 9.8.7"], "no section for 9.8.7"),
    ],
    ids=["no version", "twice", "nothing new", "no section"],
)
def test_mistake_changes_nothing_and_names_the_fix(
    project: Path, commands: list[str], error: str
) -> None:
    for command in commands[:-1]:
        assert dev(project, *command.split()).returncode == 0
    before = [(project / name).read_bytes() for name in FILES]

    result = dev(project, *commands[-1].split())

    assert (result.returncode, result.stdout) == (1, "")
    assert error in result.stderr
    assert [(project / name).read_bytes() for name in FILES] == before


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: str(path.name))
def test_workflow_pins_each_action_and_grants_no_more_than_reading(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (?!\./)(\S+)", text)

    assert all(re.search(r"@[0-9a-f]{40}$", action) for action in actions)
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
