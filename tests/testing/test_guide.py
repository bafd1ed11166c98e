"""The guide "Testing your application": its tests pass, and notice a fault of the application."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests._support.paths import ROOT

GUIDE = (ROOT / "docs/guides/testing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```python title="(\S+)"\n(.*?)^```', GUIDE, re.MULTILINE | re.DOTALL))
PASSED, FAILED = 0, 1


@pytest.mark.parametrize(
    ("right", "wrong", "exit_code"),
    [("", "", PASSED), ("{each.state}", "ready", FAILED)],
    ids=["as it is", "with a fault"],
)
def test_tests_of_the_guide(tmp_path: Path, right: str, wrong: str, exit_code: int) -> None:
    assert sorted(FILES) == ["app.py", "test_app.py"]
    for name, code in FILES.items():
        text = code.replace(right, wrong) if right and name == "app.py" else code
        (tmp_path / name).write_text(text, encoding="utf-8")

    options = ("-q", "-p", "no:cacheprovider", "-k", "not trio")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )

    assert result.returncode == exit_code, result.stdout
