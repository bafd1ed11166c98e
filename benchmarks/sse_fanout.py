"""Budget 13: throughput of events to a thousand event streams.

The baseline and the floor are the same as in ``websocket_fanout``.
"""

from __future__ import annotations

from benchmarks.fanout import Transport, compare
from benchmarks.harness import Figure, run

TITLE = "SSE fan-out"


def measure() -> list[Figure]:
    """Compare one and ten events per batch."""
    return [figure for batch in (1, 10) for figure in compare(Transport.EVENT_STREAM, batch=batch)]


if __name__ == "__main__":
    run(TITLE, measure)
