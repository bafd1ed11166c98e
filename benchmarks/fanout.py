"""Fan-out of events to many clients: in a plain loop and through the library, interleaved."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from enum import StrEnum

from benchmarks.client import (
    ConnectionGroup,
    Server,
    max_connections,
    open_socket,
    open_stream,
    running_server,
)
from benchmarks.harness import BenchmarkUnavailable, Figure, Samples, rotate

CLIENTS = 1000
PASSES = 20
ROUNDS = 8
BUDGET = 0.90
TIMEOUT_SECONDS = 10.0


class Transport(StrEnum):
    """The transport of the clients."""

    WEBSOCKET = "ws"
    EVENT_STREAM = "sse"


def connect(server: Server, transport: Transport, *, untracked: bool) -> socket.socket:
    """Open a connection of a client."""
    path = "/untracked" if untracked else "/uploads/progress"
    if transport is Transport.EVENT_STREAM:
        return open_stream(server, path)
    return open_socket(server, path, subscribe=not untracked)


def deliver(
    server: Server, group: ConnectionGroup, transport: Transport, *, kind: str, batch: int
) -> float:
    """Send to all clients; return the seconds until all have received everything."""
    group.discard_pending()
    started = time.perf_counter()
    result = server.fan_out(kind, passes=PASSES, batch=batch)
    each = result.socket_bytes() if transport is Transport.WEBSOCKET else result.stream_bytes()
    while group.received_bytes < each * len(group.connections):
        if not group.read(TIMEOUT_SECONDS):
            raise BenchmarkUnavailable(
                f"{kind}: {group.received_bytes} of {each} bytes arrived at each client"
            )
    return time.perf_counter() - started


def compare(transport: Transport, *, batch: int) -> Figure:
    """Compare both, with *batch* events per pass.

    One event is the case of a single upload, ten are a pass of the flusher with ten uploads.
    """
    clients = max_connections(CLIENTS)
    with (
        running_server() as server,
        closing(ConnectionGroup()) as untracked,
        closing(ConnectionGroup()) as library,
    ):
        for _ in range(clients):
            untracked.add(connect(server, transport, untracked=True))
            library.add(connect(server, transport, untracked=False))
        groups = {str(transport): untracked, "library": library}
        samples = {kind: Samples() for kind in groups}
        for number in range(ROUNDS):
            for kind in rotate(list(groups), number):
                seconds = deliver(server, groups[kind], transport, kind=kind, batch=batch)
                samples[kind].durations.append(seconds)
    messages = clients * PASSES * batch
    ratio = samples[transport].minimum / samples["library"].minimum
    return Figure(
        name=f"{clients} clients, {batch} event{'s' * (batch > 1)} per batch",
        value=messages / samples["library"].minimum,
        unit="messages/s",
        baseline=messages / samples[transport].minimum,
        ratio=ratio,
        control=samples[transport].control,
        budget=f"ratio >= {BUDGET}",
        is_met=ratio >= BUDGET,
    )
