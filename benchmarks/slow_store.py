"""Budget 5: how long an upload takes while its store is slow, hangs, or is gone.

A proxy stands between the server and Redis, which is its store and its broker. In each state of
it, bare and followed uploads take turns on that server, and the client waits for their answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.client import Server, serving
from benchmarks.common import Figure, Samples, run, turned
from benchmarks.updates import served
from tests._support.server_factories import redis
from tests._support.tcp_proxy import TcpProxy

CLAIM = "an upload while the store is slow"
SIZE_BYTES = 64 << 20
ROUNDS = 60
SETTLE_SECONDS = 1.0
BUDGET = 1.05


@frozen
class State:
    """What is wrong with the line to the store."""

    name: str
    set: Callable[[TcpProxy], None]


def delayed(seconds: float) -> Callable[[TcpProxy], None]:
    """Hold back all that goes over the line."""

    def set_delay(proxy: TcpProxy) -> None:
        proxy.delay_seconds = seconds

    return set_delay


def hang(proxy: TcpProxy) -> None:
    """Swallow what is sent."""
    proxy.delay_seconds = 0.0
    proxy.drops_data = True


def go(proxy: TcpProxy) -> None:
    """Break the line, and let nobody in again."""
    proxy.drops_data = False
    proxy.refuses_connections = True
    proxy.close_connections()


STATES = (
    State("near", delayed(0)),
    State("20 ms away", delayed(0.02)),
    State("1 s away", delayed(1)),
    State("5 s away", delayed(5)),
    State("hung", hang),
    State("gone", go),
)


def compare(server: Server) -> dict[str, Samples]:
    """Let bare and followed uploads take turns; return the milliseconds that each took."""
    samples = {"/bare": Samples(), "/followed": Samples()}
    for number in range(ROUNDS):
        for path in turned(list(samples), number):
            samples[path].taken.append(server.put(path, SIZE_BYTES) * 1000)
    return samples


def measure() -> list[Figure]:
    """Compare in each state, one after the other."""
    figures = []
    with served(redis) as url, TcpProxy(urlsplit(url).port or 0) as proxy:
        address = f"redis://127.0.0.1:{proxy.port}/0"
        with serving(address) as server:
            for state in STATES:
                state.set(proxy)
                time.sleep(SETTLE_SECONDS)
                taken = compare(server)
                bare, followed = taken["/bare"], taken["/followed"]
                ratio = median(followed.taken) / median(bare.taken)
                figures.append(
                    Figure(
                        what=f"store {state.name}: 64 MiB, its client, medians",
                        value=median(followed.taken),
                        unit="ms",
                        baseline=median(bare.taken),
                        ratio=ratio,
                        control=median(bare.taken[::2]) / median(bare.taken[1::2]),
                        budget=f"ratio <= {BUDGET}",
                        holds=ratio <= BUDGET,
                    )
                )
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
