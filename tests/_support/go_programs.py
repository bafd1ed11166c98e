"""Programs in Go that tests use, built once into the user's cache."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests._support.paths import ROOT

__all__ = ["CACHE", "GO_HINT", "LOAD_SOURCE", "load_generator"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upload-progress"
GO_HINT = "get Go 1.23 or newer: apt-get install golang-go, or https://go.dev/dl"
LOAD_SOURCE = ROOT / "benchmarks" / "load"
BUILD_SECONDS = 600
OLDEST_GO = (1, 23)


def _version_of(go: str) -> tuple[int, ...]:
    command = [go, "env", "GOVERSION"]
    answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", answer)[:2])


def load_generator(find: Callable[..., str], cache: Path = CACHE) -> Path:
    """Return the load generator of ``benchmarks/load``, built from these sources.

    Args:
        find: Finds Go.
        cache: Folder that contains it.
    """
    files = sorted(path for path in LOAD_SOURCE.iterdir() if path.suffix in {".go", ".mod", ".sum"})
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    program = cache / f"load-{digest[:16]}"
    if not program.exists():
        go = find("go", install=GO_HINT)
        if _version_of(go) < OLDEST_GO:
            # Debian 12 has 1.19.
            find("go of version 1.23", install=GO_HINT)
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed atomically, as other test runs may use the folder at the same time.
        built = program.with_name(f"{program.name}.{os.getpid()}")
        command = [go, "build", "-o", str(built), "."]
        subprocess.run(command, cwd=LOAD_SOURCE, check=True, timeout=BUILD_SECONDS)
        built.rename(program)
    return program
