"""Programs in Go that tests use, built once into the user's cache.

Run it as a program to build Centrifugo, which takes some minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests._support.paths import ROOT

__all__ = [
    "CACHE",
    "CENTRIFUGO_HINT",
    "CENTRIFUGO_VERSION",
    "GO_HINT",
    "LOAD_SOURCE",
    "build_centrifugo",
    "centrifugo",
    "load_generator",
]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upload-progress"
GO_HINT = "get Go 1.23 or newer: apt-get install golang-go, or https://go.dev/dl"
LOAD_SOURCE = ROOT / "benchmarks" / "load"
CENTRIFUGO_VERSION = "6.9.1"
CENTRIFUGO_HINT = "build it with: python3 -m tests._support.go_programs"
BUILD_SECONDS = 600
CENTRIFUGO_SECONDS = 1800
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


def centrifugo(find: Callable[..., str], cache: Path = CACHE) -> Path:
    """Return Centrifugo, if it was built; wait while another process builds it.

    Args:
        find: Says that it is missing.
        cache: Folder that contains it.
    """
    program = _centrifugo_in(cache)
    if not program.exists():
        with _locked(cache):
            pass
    if not program.exists():
        find(f"Centrifugo {CENTRIFUGO_VERSION}", install=CENTRIFUGO_HINT)
    return program


def build_centrifugo(find: Callable[..., str], cache: Path = CACHE) -> None:
    """Build Centrifugo, unless it was built; Go gets the version of itself that it needs.

    Args:
        find: Finds Go.
        cache: Folder that gets it.
    """
    program = _centrifugo_in(cache)
    with _locked(cache):
        if program.exists():
            return
        go = find("go", install=GO_HINT)
        if _version_of(go) < OLDEST_GO:
            find("go of version 1.23", install=GO_HINT)
        module = f"github.com/centrifugal/centrifugo/v6@v{CENTRIFUGO_VERSION}"
        folder = cache / "building"
        subprocess.run(
            [go, "install", "-trimpath", "-ldflags=-s -w", module],
            check=True,
            env={**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder)},
            timeout=CENTRIFUGO_SECONDS,
        )
        (folder / "centrifugo").rename(program)


def _centrifugo_in(cache: Path) -> Path:
    return cache / f"centrifugo-{CENTRIFUGO_VERSION}"


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the lock of who builds Centrifugo; the end of a process releases it."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "centrifugo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find(name: str, *, install: str) -> str:
    """Return the path of a program; end this program if it is missing."""
    return shutil.which(name) or sys.exit(f"{name} is not installed; {install}")


if __name__ == "__main__":
    os.nice(10)  # it runs beside tests
    build_centrifugo(_find)
