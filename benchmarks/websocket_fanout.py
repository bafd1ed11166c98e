"""Budget 12: throughput of events to a thousand WebSockets.

The baseline encodes an event once and sends it to one socket after the other, in one task. This is
the fastest way in Python, but a client that does not read would block it. The floor is the least
that the library could do:
behind Starlette, it remembers for each client whether it is idle and which version it has.
"""

from __future__ import annotations

from benchmarks.fanout import Transport, compare
from benchmarks.harness import Figure, run

TITLE = "WebSocket fan-out"


def measure() -> list[Figure]:
    """Compare one and ten events per batch."""
    return [figure for batch in (1, 10) for figure in compare(Transport.WEBSOCKET, batch=batch)]


if __name__ == "__main__":
    run(TITLE, measure)
