"""Budget 26: latency of polls while another user polls a thousand unknown uploads at once.

A client of its own process holds 1000 connections, each of which sends the next request when the
response to the last one has come. Another client polls one stored upload of another user. The
baseline is the same while that process is suspended. Both use the same server and store, in turns,
so that what else the machine does affects both.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from functools import partial

from attrs import define, field

from benchmarks.client import Server, request_head, running_server
from benchmarks.harness import (
    ROOT,
    BenchmarkUnavailable,
    Figure,
    child_environment,
    percentile,
    run,
)
from benchmarks.poll_latency import read_response
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import postgres, redis
from upload_progress.backends.postgres.schema import migrate

TITLE = "polls during a storm of polls"
CONNECTIONS = 1000
ROUNDS = 6
SECONDS = 1.0
"""Of each round, without and with the storm."""
SETTLE_SECONDS = 0.7
"""Until the server has answered the thousand requests that come at once when the storm is resumed,
which it reads in one turn of the event loop."""
PAUSE_SECONDS = 0.01
BUDGET = 5.0
READY = b"ready\n"


@define(eq=False)
class Poller(asyncio.Protocol):
    """A connection that polls an unknown upload again and again."""

    number: int
    responses: int = 0
    _transport: asyncio.WriteTransport | None = None
    _received: bytes = field(default=b"", init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._poll()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}"):
            self._received = b""
            self.responses += 1
            self._poll()

    def _poll(self) -> None:
        assert self._transport is not None
        path = f"/uploads/unknown-{self.number}/progress"
        self._transport.write(request_head("GET", path, x_user="storm"))


async def storm(port: int) -> None:
    """Poll until killed."""
    loop = asyncio.get_running_loop()
    for number in range(CONNECTIONS):
        await loop.create_connection(partial(Poller, number), "127.0.0.1", port)
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    await asyncio.Event().wait()


def announce(connection: socket.socket) -> str:
    """Announce an upload, which is stored and not received by the server; return its path."""
    connection.sendall(request_head("POST", "/uploads", content_length=0, x_user="reader"))
    response = read_response(connection).decode()
    if " 201 " not in response[:20]:
        raise BenchmarkUnavailable(response[:100])
    [location] = [line for line in response.splitlines() if line.startswith("location: ")]
    return location.removeprefix("location: ")


def poll(connection: socket.socket, path: str) -> list[float]:
    """Poll for a while; return the milliseconds of each poll."""
    durations = []
    request = request_head("GET", path, x_user="reader")
    stop_at = time.perf_counter() + SECONDS
    while (started := time.perf_counter()) < stop_at:
        connection.sendall(request)
        if b" 200 " not in read_response(connection)[:20]:
            raise BenchmarkUnavailable(path)
        durations.append((time.perf_counter() - started) * 1000)
        time.sleep(PAUSE_SECONDS)
    return durations


def measure_server(server: Server) -> tuple[list[float], list[float]]:
    """Return the milliseconds of polls without and with the storm."""
    idle: list[float] = []
    busy: list[float] = []
    with closing(server.connect()) as connection:
        path = announce(connection)
    command = [sys.executable, "-m", "benchmarks.poll_storm", "--storm", str(server.port)]
    process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.read(len(READY))
        # A server closes a connection that was not used for some seconds.
        with closing(server.connect()) as connection:
            for _ in range(ROUNDS):
                process.send_signal(signal.SIGSTOP)
                time.sleep(SETTLE_SECONDS)
                idle += poll(connection, path)
                process.send_signal(signal.SIGCONT)
                time.sleep(SETTLE_SECONDS)
                busy += poll(connection, path)
        return idle, busy
    finally:
        process.kill()
        process.communicate()


def figures(name: str, idle: list[float], busy: list[float]) -> list[Figure]:
    """Return the figures of a store."""
    found = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        value, baseline = percentile(busy, share), percentile(idle, share)
        is_limited = label == "p99"
        found.append(
            Figure(
                name=f"{name}: {label}",
                value=value,
                unit="ms",
                baseline=baseline,
                ratio=value / baseline,
                budget=f"ratio <= {BUDGET}" if is_limited else "",
                is_met=value / baseline <= BUDGET if is_limited else None,
            )
        )
    return found


def measure() -> list[Figure]:
    """Measure both stores, one after the other."""
    found = []
    for name, factory in (("Redis", redis), ("PostgreSQL", postgres)):
        with running_backend(factory) as url:
            if factory is postgres:
                asyncio.run(migrate(url))
            with running_server(url) as server:
                found += figures(name, *measure_server(server))
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--storm"]:
        asyncio.run(storm(int(sys.argv[2])))
    run(TITLE, measure)
