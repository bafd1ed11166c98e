"""Budget 17: how long ``put`` takes for a large file, against ``curl -T``.

Both send the same file to the same server over the loopback, in turns; ``put`` follows the upload
meanwhile. A process of Python takes longer to start than curl does, whatever it sends: so what the
client itself needs is judged, and what the whole command needs is told beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.client import Server, serving
from benchmarks.common import CannotRun, Figure, in_turns, run
from upload_progress.client import ProgressClient

CLAIM = "sending 1 GiB"
SIZE_BYTES = 1 << 30
ROUNDS = 7
BUDGET = 1.1


def curl(server: Server, path: Path) -> None:
    """Send with curl."""
    program = shutil.which("curl")
    if program is None:
        raise CannotRun("curl is not installed")
    url = f"http://127.0.0.1:{server.port}/followed"
    subprocess.run([program, "-sSf", "-T", path, "-o", "/dev/null", url], check=True)


def client(server: Server, path: Path) -> None:
    """Send with the client, followed."""
    origin = f"http://127.0.0.1:{server.port}"
    with ProgressClient(origin) as sender:
        sender.put(path, f"{origin}/followed")


def command(server: Server, path: Path) -> None:
    """Send with the command."""
    url = f"http://127.0.0.1:{server.port}/followed"
    program = [sys.executable, "-m", "upload_progress.cli", "put", "--progress=none"]
    subprocess.run([*program, path, url], check=True, stdout=subprocess.DEVNULL)


def measure() -> list[Figure]:
    """Send in turns; of each way the round that was disturbed least counts."""
    with tempfile.NamedTemporaryFile() as file, serving() as server:
        file.truncate(SIZE_BYTES)
        path = Path(file.name)
        ways = {way.__name__: partial(way, server, path) for way in (curl, client, command)}
        taken = in_turns(ways, rounds=ROUNDS)
    bare = taken["curl"]
    ratio = taken["client"].least / bare.least
    return [
        Figure(
            what="ProgressClient.put, against curl -T",
            value=taken["client"].least / 1e9,
            unit="s",
            baseline=bare.least / 1e9,
            ratio=ratio,
            control=bare.control,
            budget=f"ratio <= {BUDGET}",
            holds=ratio <= BUDGET,
        ),
        Figure(
            what="the whole command, with the start of Python",
            value=taken["command"].least / 1e9,
            unit="s",
            baseline=bare.least / 1e9,
            ratio=taken["command"].least / bare.least,
        ),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
