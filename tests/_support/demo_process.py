"""The demo as people start it: a process of its own, on a free port."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from attrs import define

COMMAND = [sys.executable, "-m", "upload_progress.cli"]
DEADLINE_SECONDS = 30


@define
class DemoProcess:
    """A running demo.

    Attributes:
        greeting: What it said when it started.
    """

    process: subprocess.Popen[str]
    url: str
    greeting: str


@contextmanager
def running_demo(*arguments: str, port: int = 0) -> Iterator[DemoProcess]:
    """Run the demo while the block runs; it must say nothing on its error stream."""
    with tempfile.TemporaryFile("w+") as errors:
        command = [*COMMAND, "demo", "--port", str(port), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        # A process that hangs is ended, so that the test fails with what it said.
        watchdog = threading.Timer(10 * DEADLINE_SECONDS, process.kill)
        watchdog.start()
        try:
            yield _started(process)
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(DEADLINE_SECONDS)
            assert process.stdout is not None
            process.stdout.close()
        errors.seek(0)
        assert errors.read() == ""


def _started(process: subprocess.Popen[str]) -> DemoProcess:
    assert process.stdout is not None
    lines = takewhile(lambda line: not line.startswith("Stop with"), process.stdout)
    greeting = "".join(lines)
    found = re.search(r"http://\S+", greeting)
    assert found, f"the demo did not start: {greeting!r}"
    return DemoProcess(process, found[0], greeting)
