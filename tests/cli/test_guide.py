"""The console session in the guide of the command line is executed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS, running_demo
from tests._support.paths import ROOT
from tests.conftest import RequireProgram

GUIDE = (ROOT / "docs" / "guides" / "command-line.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = re.compile(r"in [\d.]+ s|(?<![\w-])[\w-]{22}(?![\w-])")


def test_guide_shows_the_output_of_the_commands(
    tmp_path: Path, require_program: RequireProgram
) -> None:
    bash = require_program("bash", install="install bash with your system's package manager")
    [session] = [block for block in BLOCK.findall(GUIDE) if "export" in block]
    lines = session.splitlines()
    (tmp_path / "big.bin").write_bytes(bytes(6_000_000))
    with running_demo() as demo:
        commands = "\n".join(line[2:] for line in lines if line.startswith("$ "))
        script = f'upload-progress() {{ {shlex.join(COMMAND)} "$@"; }}\n{commands}'
        finished = subprocess.run(
            [bash, "-c", script.replace("http://127.0.0.1:8000", demo.url)],
            cwd=tmp_path,
            env={**os.environ, "NETRC": os.devnull},
            check=True,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_SECONDS,
        )

    expected = [VARYING.sub("…", line) for line in lines if not line.startswith("$ ")]
    assert [VARYING.sub("…", line) for line in finished.stdout.splitlines()] == expected
