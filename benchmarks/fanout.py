"""Fan-out of events to many clients: in a plain loop and through the library, interleaved."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
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


FLOOR_BUDGET = 0.87
PATHS = {"plain": "/untracked", "floor": "/floor/", "library": "/uploads/progress"}
"""The variants, and where their clients connect."""


def connect(server: Server, transport: Transport, variant: str) -> socket.socket:
    """Open a connection of a client."""
    if transport is Transport.EVENT_STREAM:
        return open_stream(server, PATHS[variant])
    return open_socket(server, PATHS[variant], subscribe=variant == "library")


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


def compare(transport: Transport, *, batch: int) -> list[Figure]:
    """Compare the library with the plain loop and with the floor, with *batch* events per pass.

    One event is the case of a single upload, ten are a pass of the flusher with ten uploads.
    """
    clients = max_connections(CLIENTS)
    kinds = {"plain": str(transport), "floor": f"floor%20{transport}", "library": "library"}
    samples = {variant: Samples() for variant in PATHS}
    with running_server() as server, ExitStack() as stack:
        groups = {variant: stack.enter_context(closing(ConnectionGroup())) for variant in PATHS}
        for _ in range(clients):
            for variant, group in groups.items():
                group.add(connect(server, transport, variant))
        for number in range(ROUNDS):
            for variant in rotate(list(groups), number):
                group, kind = groups[variant], kinds[variant]
                seconds = deliver(server, group, transport, kind=kind, batch=batch)
                samples[variant].durations.append(seconds)
    messages = clients * PASSES * batch
    name = f"{clients} clients, {batch} event{'s' * (batch > 1)} per batch"
    return [
        compare_with(samples, messages, "plain", name=name, minimum=BUDGET),
        compare_with(samples, messages, "floor", name=f"{name}, floor", minimum=FLOOR_BUDGET),
    ]


def compare_with(
    samples: Mapping[str, Samples], messages: int, baseline: str, *, name: str, minimum: float
) -> Figure:
    """Compare the messages per second of the library and of *baseline*."""
    library, other = samples["library"], samples[baseline]
    ratio = other.minimum / library.minimum
    return Figure(
        name=name,
        value=messages / library.minimum,
        unit="messages/s",
        baseline=messages / other.minimum,
        ratio=ratio,
        control=other.control,
        budget=f"ratio >= {minimum}",
        is_met=ratio >= minimum,
    )
