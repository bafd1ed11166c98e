"""Centrifugo is built once, and its tests say how if it was not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests._support.go_programs import build_centrifugo, centrifugo
from tests._support.paths import ROOT
from tests.conftest import program_path

FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then
    echo {version}
else
    echo "$@" >> {folder}/calls
    mkdir -p "$GOBIN" && cp "$0" "$GOBIN/centrifugo"
fi
"""


def fake_go(folder: Path, *, version: str = "go1.26.0") -> Callable[..., str]:
    """Return a function that finds a Go of that version, which copies itself as what it builds."""
    go = folder / "go"
    go.write_text(FAKE_GO.format(version=version, folder=folder))
    go.chmod(0o755)

    def find(name: str, *, install: str) -> str:
        return str(go) if name == "go" else program_path(name, install=install, required=True)

    return find


def test_centrifugo_is_built_once(tmp_path: Path) -> None:
    find, cache = fake_go(tmp_path), tmp_path / "cache"

    build_centrifugo(find, cache)
    build_centrifugo(find, cache)

    program = centrifugo(find, cache)
    assert program.read_text() == (tmp_path / "go").read_text()
    assert program.stat().st_mode & 0o111
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith("github.com/centrifugal/centrifugo/v6@v6.9.1")


def test_missing_centrifugo_is_reported_with_its_installation(tmp_path: Path) -> None:
    find = partial(program_path, required=False)
    message = r"Centrifugo 6.* is not installed; build it with: python3 -m tests\._support\.go_pro"
    with pytest.raises(pytest.skip.Exception, match=message):
        centrifugo(find, tmp_path)


def test_old_go_is_refused_with_a_hint(tmp_path: Path) -> None:
    find = fake_go(tmp_path, version="go1.19.8")
    with pytest.raises(pytest.fail.Exception, match=r"go of version 1\.23.*Go 1\.23 or newer"):
        build_centrifugo(find, tmp_path)


def test_program_without_go_says_what_to_install(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests._support.go_programs"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert process.returncode == 1
    assert "go is not installed; get Go 1.23 or newer" in process.stderr
