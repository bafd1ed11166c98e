"""Sends events to a crowd: in a bare loop and through the library, on one server, in turns."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from enum import StrEnum

from benchmarks.client import Crowd, Server, most_connections, open_socket, open_stream, serving
from benchmarks.common import CannotRun, Figure, Samples, turned

CLIENTS = 1000
PASSES = 20
ROUNDS = 8
BUDGET = 0.90
PATIENCE_SECONDS = 10.0


class Way(StrEnum):
    """How the clients are connected."""

    SOCKET = "ws"
    STREAM = "sse"


def connect(server: Server, way: Way, *, bare: bool) -> socket.socket:
    """Open one client's connection."""
    path = "/bare" if bare else "/uploads/progress"
    if way is Way.STREAM:
        return open_stream(server, path)
    return open_socket(server, path, subscribe=not bare)


def deliver(server: Server, crowd: Crowd, way: Way, *, kind: str, batch: int) -> float:
    """Send to everybody; return the seconds until all have all of it."""
    crowd.load_prior_state()
    begun = time.perf_counter()
    fanned = server.fan(kind, passes=PASSES, batch=batch)
    each = fanned.socket_bytes() if way is Way.SOCKET else fanned.stream_bytes()
    while crowd.received_bytes < each * len(crowd.connections):
        if not crowd.read(PATIENCE_SECONDS):
            raise CannotRun(f"{kind}: {crowd.received_bytes} of {each} bytes each came")
    return time.perf_counter() - begun


def compare(way: Way, *, batch: int) -> Figure:
    """Let the two take turns with *batch* events at once.

    One at a time is what a single upload causes; ten are what a pass of the flusher makes of ten
    uploads.
    """
    clients = most_connections(CLIENTS)
    with serving() as server, closing(Crowd()) as bare, closing(Crowd()) as ours:
        for _ in range(clients):
            bare.join(connect(server, way, bare=True))
            ours.join(connect(server, way, bare=False))
        crowds = {str(way): bare, "ours": ours}
        samples = {kind: Samples() for kind in crowds}
        for number in range(ROUNDS):
            for kind in turned(list(crowds), number):
                seconds = deliver(server, crowds[kind], way, kind=kind, batch=batch)
                samples[kind].taken.append(seconds)
    messages = clients * PASSES * batch
    ratio = samples[way].least / samples["ours"].least
    return Figure(
        what=f"{clients} clients, {batch} event{'s' * (batch > 1)} at once",
        value=messages / samples["ours"].least,
        unit="messages/s",
        baseline=messages / samples[way].least,
        ratio=ratio,
        control=samples[way].control,
        budget=f"ratio >= {BUDGET}",
        holds=ratio >= BUDGET,
    )
