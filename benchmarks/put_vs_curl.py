"""Budget 17: duration of ``upload-progress put`` for a large file, against ``curl -T``.

Both upload the same file to the same server over the loopback interface, interleaved; ``put``
receives the progress meanwhile. Python starts slower than curl, independent of the upload. The
budget is therefore for the Python client; the complete command is shown for comparison.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.client import Server, running_server
from benchmarks.harness import BenchmarkUnavailable, Figure, interleave, run
from upload_progress.client import ProgressClient

TITLE = "uploading 1 GiB"
SIZE_BYTES = 1 << 30
ROUNDS = 7
BUDGET = 1.1


def curl(server: Server, path: Path) -> None:
    """Upload with curl."""
    program = shutil.which("curl")
    if program is None:
        raise BenchmarkUnavailable("curl is not installed")
    url = f"http://127.0.0.1:{server.port}/tracked"
    subprocess.run([program, "-sSf", "-T", path, "-o", "/dev/null", url], check=True)


def client(server: Server, path: Path) -> None:
    """Upload with the Python client, receiving progress."""
    origin = f"http://127.0.0.1:{server.port}"
    with ProgressClient(origin) as sender:
        sender.put(path, f"{origin}/tracked")


def command(server: Server, path: Path) -> None:
    """Upload with the command line."""
    url = f"http://127.0.0.1:{server.port}/tracked"
    program = [sys.executable, "-m", "upload_progress.cli", "put", "--progress=none"]
    subprocess.run([*program, path, url], check=True, stdout=subprocess.DEVNULL)


def measure() -> list[Figure]:
    """Interleave the uploads; use the fastest round of each."""
    with tempfile.NamedTemporaryFile() as file, running_server() as server:
        file.truncate(SIZE_BYTES)
        path = Path(file.name)
        variants = {each.__name__: partial(each, server, path) for each in (curl, client, command)}
        durations = interleave(variants, rounds=ROUNDS)
    untracked = durations["curl"]
    ratio = durations["client"].minimum / untracked.minimum
    return [
        Figure(
            name="ProgressClient.put, against curl -T",
            value=durations["client"].minimum / 1e9,
            unit="s",
            baseline=untracked.minimum / 1e9,
            ratio=ratio,
            control=untracked.control,
            budget=f"ratio <= {BUDGET}",
            is_met=ratio <= BUDGET,
        ),
        Figure(
            name="upload-progress put, including the start of Python",
            value=durations["command"].minimum / 1e9,
            unit="s",
            baseline=untracked.minimum / 1e9,
            ratio=durations["command"].minimum / untracked.minimum,
        ),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
