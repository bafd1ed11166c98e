"""Budget 13: how fast events reach a thousand event streams.

As with the WebSockets: a bare loop that encodes once and sends to one after the other, and the
library's streams, on one server, in turns.
"""

from __future__ import annotations

from benchmarks.common import run
from benchmarks.fanout import Way, compare

CLAIM = "SSE fan-out"


if __name__ == "__main__":
    run(CLAIM, lambda: [compare(Way.STREAM, batch=1), compare(Way.STREAM, batch=10)])
