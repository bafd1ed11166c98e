"""Budget 9: what following costs when there are many uploads at once.

First per message, in one process without a network: the uploads take turns, so that each message
finds the caches cold. Then the CPU of a server that receives a thousand uploads at the same time,
bare and followed in turns.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine

import anyio
from attrs import define

from benchmarks.client import Server, head, most_connections, serving
from benchmarks.common import CannotRun, Figure, Samples, in_turns, own_cpu, run, turned
from benchmarks.requests import BODY, application, scope_of, swallow
from upload_progress import Identity, Limits, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.asgi.tracked_request import App
from upload_progress.connection import Connection
from upload_progress.throttling import DEFAULT_POLICY, Meter

CLAIM = "many uploads at once"
FEW, MANY = 10, 10_000
BUDGET_DELTA = 2.0
STEPS = 40_000
STEP_ROUNDS = 12
CONNECTIONS = 1000
SIZE_BYTES = 8 * 1024 * 1024
ROUNDS = 4
BUDGET_CPU = 1.05
PIECE = memoryview(bytes(256 * 1024))

MESSAGE: Message = {"type": "http.request", "body": BODY, "more_body": True}


@coroutine
def pause() -> Generator[None, object, None]:
    """Stop here, until whoever runs the request goes on."""
    yield


async def receive() -> Message:
    """Hand out a message each time the request is resumed."""
    await pause()
    return MESSAGE


Requests = list[Coroutine[object, None, None]]


def answer(owner: Identity, _connection: Connection) -> Identity:
    """Say who it is, whoever asks."""
    return owner


def bare(_number: int) -> App:
    """Return the application alone."""
    return application


def wrapped(_number: int) -> App:
    """Return the application with nothing but its ``receive`` wrapped."""

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


def through(tracker: ProgressTracker, number: int) -> App:
    """Return the application behind the whole middleware."""
    return UploadProgressMiddleware(
        application,
        tracker=tracker,
        authenticate=partial(answer, Identity(f"user-{number // 100}")),
    )


def open_requests(uploads: int, make: Callable[[int], App]) -> Requests:
    """Begin that many endless requests."""
    requests: Requests = []
    for number in range(uploads):
        request = make(number)(scope_of(4096, f"upload-{number}"), receive, swallow)
        assert isinstance(request, Coroutine)
        request.send(None)
        requests.append(request)
    return requests


def go_round(requests: Requests) -> None:
    """Give each request a message in turn, ``STEPS`` altogether."""
    for _ in range(STEPS // len(requests)):
        for request in requests:
            request.send(None)


async def times() -> dict[tuple[str, int], float]:
    """Return the ns per message of each variant, with few and with many uploads."""
    tracker = ProgressTracker(limits=Limits(tracked_total=2 * MANY))
    makers: dict[str, Callable[[int], App]] = {
        "bare": bare,
        "wrapped": wrapped,
        "middleware": partial(through, tracker),
    }
    async with tracker.lifespan():
        requests = {
            (name, uploads): open_requests(uploads, make)
            for name, make in makers.items()
            for uploads in (FEW, MANY)
        }
        steps = {str(name): partial(go_round, each) for name, each in requests.items()}
        samples = in_turns(steps, rounds=STEP_ROUNDS)
        # All of them are in this one task: their cancel scopes are nested.
        for request in reversed([each for group in requests.values() for each in group]):
            request.close()
    return {name: samples[str(name)].least / STEPS for name in requests}


@define(eq=False)
class Sending:
    """One of many connections that send a body."""

    connection: socket.socket
    left_bytes: int

    def send(self) -> bool:
        """Send what goes; return whether all is sent."""
        try:
            self.left_bytes -= self.connection.send(PIECE[: self.left_bytes])
        except BlockingIOError:
            return False
        return not self.left_bytes


def upload_all(server: Server, path: str, connections: int) -> float:
    """Upload over that many connections at once; return the server's CPU seconds."""
    uploads = [Sending(server.connect(), SIZE_BYTES) for _ in range(connections)]
    before = server.cpu_seconds()
    with selectors.DefaultSelector() as selector:
        for number, upload in enumerate(uploads):
            user = f"user-{number // 100}"
            upload.connection.sendall(head("PUT", path, content_length=SIZE_BYTES, x_user=user))
            upload.connection.setblocking(False)
            selector.register(upload.connection, selectors.EVENT_WRITE, upload)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data.send():
                    selector.unregister(key.fileobj)
    for upload in uploads:
        upload.connection.setblocking(True)
        if b" 200 " not in upload.connection.recv(65536):
            raise CannotRun(f"PUT {path} failed")
        upload.connection.close()
    anyio.run(anyio.sleep, 0.15)
    return server.cpu_seconds() - before


def concurrent() -> Figure:
    """Let bare and followed uploads take turns on one server."""
    connections = most_connections(CONNECTIONS)
    samples = {"/bare": Samples(), "/followed": Samples()}
    with serving() as server:
        for number in range(ROUNDS + 1):
            for path in turned(list(samples), number):
                used = upload_all(server, path, connections)
                if number:
                    samples[path].taken.append(used)
    ratio = samples["/followed"].least / samples["/bare"].least
    return Figure(
        what=f"{connections} uploads of 8 MiB at once",
        value=samples["/followed"].least,
        unit="CPU s",
        baseline=samples["/bare"].least,
        ratio=ratio,
        control=samples["/bare"].control,
        budget=f"ratio <= {BUDGET_CPU}",
        holds=ratio <= BUDGET_CPU,
    )


def per_message() -> list[Figure]:
    """Compare few with many: of the wrapper, and (told only) of the whole chain of awaits."""
    taken = anyio.run(times)
    figures = []
    for name in ("wrapped", "middleware"):
        few, many = (taken[name, uploads] - taken["bare", uploads] for uploads in (FEW, MANY))
        figures.append(
            Figure(
                what=f"{name}: added per message at {MANY} live uploads, against {FEW}",
                value=many,
                unit="ns",
                baseline=few,
                ratio=many / few,
                control=taken["bare", MANY] / taken["bare", FEW],
                budget=f"ratio <= {BUDGET_DELTA}" if name == "wrapped" else "",
                holds=many / few <= BUDGET_DELTA if name == "wrapped" else None,
            )
        )
    return figures


def measure() -> list[Figure]:
    """Compare few with many, then a server with and without."""
    own_cpu(-1)
    return [*per_message(), concurrent()]


if __name__ == "__main__":
    run(CLAIM, measure)
