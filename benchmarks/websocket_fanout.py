"""Budget 12: how fast events reach a thousand WebSockets.

The bare loop encodes once and sends to one socket after the other, in one task: it would be held
up by the first client that does not read, and is as fast as the server can be driven from Python.
"""

from __future__ import annotations

from benchmarks.common import run
from benchmarks.fanout import Way, compare

CLAIM = "WebSocket fan-out"


if __name__ == "__main__":
    run(CLAIM, lambda: [compare(Way.SOCKET, batch=1), compare(Way.SOCKET, batch=10)])
