"""Budget 13: throughput of events to a thousand event streams.

The baseline is the same as in ``websocket_fanout``.
"""

from __future__ import annotations

from benchmarks.fanout import Transport, compare
from benchmarks.harness import run

TITLE = "SSE fan-out"


if __name__ == "__main__":
    run(
        TITLE,
        lambda: [
            compare(Transport.EVENT_STREAM, batch=1),
            compare(Transport.EVENT_STREAM, batch=10),
        ],
    )
