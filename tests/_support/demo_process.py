"""The demo in a process of its own, on a free port, as users start it."""

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
        process: The process.
        url: The URL of the web page.
        startup_message: What the demo printed before it served requests.
    """

    process: subprocess.Popen[str]
    url: str
    startup_message: str


@contextmanager
def running_demo(
    *arguments: str, port: int = 0, expected_errors: str = ""
) -> Iterator[DemoProcess]:
    """Run the demo while the block runs; fail if it writes to its standard error.

    Args:
        arguments: Options of the demo.
        port: Its port; 0 is any free one.
        expected_errors: A regular expression for what it may write there.
    """
    with tempfile.TemporaryFile("w+") as errors:
        command = [*COMMAND, "demo", "--port", str(port), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        # Kill a process that hangs, so that the test fails with its output.
        watchdog = threading.Timer(10 * DEADLINE_SECONDS, process.kill)
        watchdog.start()
        try:
            yield _wait_until_started(process)
        finally:
            watchdog.cancel()
            process.terminate()
            process.wait(DEADLINE_SECONDS)
            assert process.stdout is not None
            process.stdout.close()
        errors.seek(0)
        text = errors.read()
        assert re.fullmatch(expected_errors, text, re.DOTALL), text


def _wait_until_started(process: subprocess.Popen[str]) -> DemoProcess:
    assert process.stdout is not None
    lines = takewhile(lambda line: not line.startswith("Stop with"), process.stdout)
    message = "".join(lines)
    url = re.search(r"http://\S+", message)
    assert url, f"the demo did not start: {message!r}"
    return DemoProcess(process, url[0], message)
