"""Budget 9: cost of tracking many concurrent uploads.

First per message, in one process without a network: the messages of all uploads are interleaved, so
that the processor caches are cold. Then the CPU time of a server that receives a thousand uploads
at the same time, tracked and untracked interleaved.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine

import anyio
from attrs import define

from benchmarks.client import Server, max_connections, request_head, running_server
from benchmarks.harness import (
    BenchmarkUnavailable,
    Figure,
    Samples,
    interleave,
    pin_to_processor,
    rotate,
    run,
)
from benchmarks.synthetic_requests import BODY, application, discard, scope_of
from upload_progress import Identity, Limits, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.asgi.tracked_request import App
from upload_progress.connection import Connection
from upload_progress.throttling import DEFAULT_POLICY, Meter

TITLE = "concurrent uploads"
FEW, MANY = 10, 10_000
BUDGET_DELTA = 2.0
STEPS = 40_000
STEP_ROUNDS = 12
CONNECTIONS = 1000
SIZE_BYTES = 8 * 1024 * 1024
ROUNDS = 4
BUDGET_CPU = 1.05
CHUNK = memoryview(bytes(256 * 1024))

MESSAGE: Message = {"type": "http.request", "body": BODY, "more_body": True}


@coroutine
def pause() -> Generator[None, object, None]:
    """Suspend until the request is resumed."""
    yield


async def receive() -> Message:
    """Return a message each time the request is resumed."""
    await pause()
    return MESSAGE


Requests = list[Coroutine[object, None, None]]


def authenticate_as(owner: Identity, _connection: Connection) -> Identity:
    """Return *owner* for every connection."""
    return owner


def untracked(_number: int) -> App:
    """Return the untracked application."""
    return application


def wrapped(_number: int) -> App:
    """Return the application with a counting ``receive``."""

    def keep(message: Message) -> Message:
        return message

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        meter = Meter(DEFAULT_POLICY, 1 << 40)
        meter.rearm()
        counted = counting(
            receive,
            meter,
            on_first=lambda _: False,
            on_gate=keep,
            on_last=keep,
            on_error=lambda _: None,
        )
        return application(scope, counted, send)

    return app


def behind_middleware(tracker: ProgressTracker, number: int) -> App:
    """Return the application behind the middleware."""
    return UploadProgressMiddleware(
        application,
        tracker=tracker,
        authenticate=partial(authenticate_as, Identity(f"user-{number // 100}")),
    )


def start_requests(uploads: int, make: Callable[[int], App]) -> Requests:
    """Start that many endless requests."""
    requests: Requests = []
    for number in range(uploads):
        request = make(number)(scope_of(4096, f"upload-{number}"), receive, discard)
        assert isinstance(request, Coroutine)
        request.send(None)
        requests.append(request)
    return requests


def resume_all(requests: Requests) -> None:
    """Resume each request in turn, ``STEPS`` times in total."""
    for _ in range(STEPS // len(requests)):
        for request in requests:
            request.send(None)


async def measure_messages() -> dict[tuple[str, int], float]:
    """Return the nanoseconds per message of each variant, with few and with many uploads."""
    tracker = ProgressTracker(limits=Limits(tracked_total=2 * MANY))
    makers: dict[str, Callable[[int], App]] = {
        "untracked": untracked,
        "receive wrapper": wrapped,
        "middleware": partial(behind_middleware, tracker),
    }
    async with tracker.lifespan():
        requests = {
            (name, uploads): start_requests(uploads, make)
            for name, make in makers.items()
            for uploads in (FEW, MANY)
        }
        steps = {str(name): partial(resume_all, each) for name, each in requests.items()}
        samples = interleave(steps, rounds=STEP_ROUNDS)
        # In reverse order, because the cancel scopes of one task are nested.
        for request in reversed([each for group in requests.values() for each in group]):
            request.close()
    return {name: samples[str(name)].minimum / STEPS for name in requests}


@define(eq=False)
class SendingConnection:
    """A connection that sends a body."""

    connection: socket.socket
    remaining_bytes: int

    def send(self) -> bool:
        """Send as much as the socket accepts; return whether the body is complete."""
        try:
            self.remaining_bytes -= self.connection.send(CHUNK[: self.remaining_bytes])
        except BlockingIOError:
            return False
        return not self.remaining_bytes


def upload_all(server: Server, path: str, connections: int) -> float:
    """Upload over that many connections at once; return the CPU seconds of the server."""
    uploads = [SendingConnection(server.connect(), SIZE_BYTES) for _ in range(connections)]
    before = server.cpu_seconds()
    with selectors.DefaultSelector() as selector:
        for number, upload in enumerate(uploads):
            user = f"user-{number // 100}"
            upload.connection.sendall(
                request_head("PUT", path, content_length=SIZE_BYTES, x_user=user)
            )
            upload.connection.setblocking(False)
            selector.register(upload.connection, selectors.EVENT_WRITE, upload)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data.send():
                    selector.unregister(key.fileobj)
    for upload in uploads:
        upload.connection.setblocking(True)
        if b" 200 " not in upload.connection.recv(65536):
            raise BenchmarkUnavailable(f"PUT {path} failed")
        upload.connection.close()
    anyio.run(anyio.sleep, 0.15)
    return server.cpu_seconds() - before


def measure_server() -> Figure:
    """Interleave tracked and untracked uploads on one server."""
    connections = max_connections(CONNECTIONS)
    samples = {"/untracked": Samples(), "/tracked": Samples()}
    with running_server() as server:
        for number in range(ROUNDS + 1):
            for path in rotate(list(samples), number):
                used = upload_all(server, path, connections)
                if number:
                    samples[path].durations.append(used)
    ratio = samples["/tracked"].minimum / samples["/untracked"].minimum
    return Figure(
        name=f"{connections} concurrent uploads of 8 MiB, CPU of the server",
        value=samples["/tracked"].minimum,
        unit="CPU s",
        baseline=samples["/untracked"].minimum,
        ratio=ratio,
        control=samples["/untracked"].control,
        budget=f"ratio <= {BUDGET_CPU}",
        is_met=ratio <= BUDGET_CPU,
    )


def compare_messages() -> list[Figure]:
    """Compare few with many uploads, for the receive wrapper and for the middleware."""
    durations = anyio.run(measure_messages)
    figures = []
    for name in ("receive wrapper", "middleware"):
        few, many = (
            durations[name, uploads] - durations["untracked", uploads] for uploads in (FEW, MANY)
        )
        figures.append(
            Figure(
                name=f"{name}: added per message with {MANY} uploads, against {FEW}",
                value=many,
                unit="ns",
                baseline=few,
                ratio=many / few,
                control=durations["untracked", MANY] / durations["untracked", FEW],
                budget=f"ratio <= {BUDGET_DELTA}" if name == "receive wrapper" else "",
                is_met=many / few <= BUDGET_DELTA if name == "receive wrapper" else None,
            )
        )
    return figures


def measure() -> list[Figure]:
    """Compare few with many uploads, then tracked with untracked uploads on a server."""
    pin_to_processor(-1)
    return [*compare_messages(), measure_server()]


if __name__ == "__main__":
    run(TITLE, measure)
