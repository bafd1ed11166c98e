"""Budget 5: duration of an upload while the store is slow, hangs or is unreachable.

A proxy connects the server with Redis, which is its store and broker. In each state of the proxy,
tracked and untracked uploads are interleaved on the server, and the client waits for the responses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.client import Server, running_server
from benchmarks.harness import Figure, Samples, rotate, run
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import redis
from tests._support.tcp_proxy import TcpProxy

TITLE = "upload with a slow store"
SIZE_BYTES = 64 << 20
ROUNDS = 60
PAUSE_SECONDS = 1.0
BUDGET = 1.05


@frozen
class ConnectionState:
    """A state of the connection to the store."""

    name: str
    set: Callable[[TcpProxy], None]


def delay(seconds: float) -> Callable[[TcpProxy], None]:
    """Delay all data in both directions."""

    def set_delay(proxy: TcpProxy) -> None:
        proxy.delay_seconds = seconds

    return set_delay


def hang(proxy: TcpProxy) -> None:
    """Drop all data."""
    proxy.delay_seconds = 0.0
    proxy.drops_data = True


def disconnect(proxy: TcpProxy) -> None:
    """Close the connections and refuse new ones."""
    proxy.drops_data = False
    proxy.refuses_connections = True
    proxy.close_connections()


STATES = (
    ConnectionState("without delay", delay(0)),
    ConnectionState("with 20 ms delay", delay(0.02)),
    ConnectionState("with 1 s delay", delay(1)),
    ConnectionState("with 5 s delay", delay(5)),
    ConnectionState("that hangs", hang),
    ConnectionState("unreachable", disconnect),
)


def compare(server: Server) -> dict[str, Samples]:
    """Interleave both variants; return the milliseconds of each upload."""
    samples = {"/untracked": Samples(), "/tracked": Samples()}
    for number in range(ROUNDS):
        for path in rotate(list(samples), number):
            samples[path].durations.append(server.put(path, SIZE_BYTES) * 1000)
    return samples


def measure() -> list[Figure]:
    """Compare both variants in each state."""
    figures = []
    with running_backend(redis) as url, TcpProxy(urlsplit(url).port or 0) as proxy:
        proxy_url = f"redis://127.0.0.1:{proxy.port}/0"
        with running_server(proxy_url) as server:
            for state in STATES:
                state.set(proxy)
                time.sleep(PAUSE_SECONDS)
                durations = compare(server)
                untracked, tracked = durations["/untracked"], durations["/tracked"]
                ratio = median(tracked.durations) / median(untracked.durations)
                figures.append(
                    Figure(
                        name=f"store {state.name}: 64 MiB, time of the client, median",
                        value=median(tracked.durations),
                        unit="ms",
                        baseline=median(untracked.durations),
                        ratio=ratio,
                        control=median(untracked.durations[::2])
                        / median(untracked.durations[1::2]),
                        budget=f"ratio <= {BUDGET}",
                        is_met=ratio <= BUDGET,
                    )
                )
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
