"""Runs a server of a test in a child process, on a free port."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

START_SECONDS = 30
STOP_SECONDS = 10
ADDRESS = re.compile(r"(?:[Rr]unning on|Listening at:) (https?://127\.0\.0\.1:\d+)")


@contextmanager
def run_python_server(*arguments: str, cwd: Path | None = None) -> Iterator[str]:
    """Run Python with *arguments*, which start a web server; yield the server's URL.

    Raises:
        AssertionError: The server did not start. Contains its output.
    """
    output: list[str] = []
    found: SimpleQueue[str | None] = SimpleQueue()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True) as process:

        def read_output() -> None:
            for line in process.stderr or ():
                output.append(line)
                if match := ADDRESS.search(line):
                    found.put(match[1])
            found.put(None)

        reader = threading.Thread(target=read_output)
        reader.start()
        try:
            yield _address(found, output)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
            reader.join(STOP_SECONDS)


def _address(found: SimpleQueue[str | None], output: list[str]) -> str:
    address = found.get(timeout=START_SECONDS)
    if address is None:
        raise AssertionError("the server did not start:\n" + "".join(output))
    return address
