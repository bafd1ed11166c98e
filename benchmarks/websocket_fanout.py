"""Budget 12: throughput of events to a thousand WebSockets.

The baseline encodes an event once and sends it to one socket after the other, in one task. This is
the fastest way in Python, but a client that does not read would block it.
"""

from __future__ import annotations

from benchmarks.fanout import Transport, compare
from benchmarks.harness import run

TITLE = "WebSocket fan-out"


if __name__ == "__main__":
    run(
        TITLE,
        lambda: [compare(Transport.WEBSOCKET, batch=1), compare(Transport.WEBSOCKET, batch=10)],
    )
