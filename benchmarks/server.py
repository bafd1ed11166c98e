"""The server under test: tracked and untracked variants of each endpoint in one process.

    PUT  /untracked, /tracked   read a body, without and with the middleware
    GET  /plain                 a small JSON document, for comparison with a poll
    GET  /cpu                   the processor time of this process, in seconds
    GET  /statistics            the counters of the tracker
    WS   /untracked             a WebSocket of the fan-out without the library
    GET  /untracked             an event stream of the fan-out without the library
    WS   /floor, GET /floor     the same, behind Starlette as the library is, see ``FloorClient``
    POST /fan                   send events to all clients, and return sizes and CPU time
    /uploads/...                the progress routes

Arguments: the file descriptor of the listening socket, the number of the processor, the URL of the
store and publisher, and how many records per second the store gets.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import parse_qsl

import uvicorn
from anyio.lowlevel import checkpoint
from attrs import asdict, define, evolve, field
from starlette.applications import Starlette
from starlette.routing import Mount

from benchmarks.harness import pin_to_processor
from benchmarks.sample_snapshot import sample_snapshot
from upload_progress import Identity, Limits, ProgressTracker, UploadProgress
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.codec import encode_json
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send
from upload_progress.asgi.tracked_request import App
from upload_progress.connection import Connection
from upload_progress.starlette import progress_mount

MAX_UPLOADS = 20_000

T = TypeVar("T")


def authenticate(connection: Connection) -> Identity:
    """Return the user that the request names, without verification."""
    return Identity(connection.header("x-user") or "benchmark")


async def respond(send: Send, body: bytes) -> None:
    """Send a small JSON document."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body."""
    while (await receive()).get("more_body"):
        pass
    await respond(send, b"{}")


@define(eq=False)
class FloorClient:
    """The least that a fan-out keeps for each client: is it idle, and which version has it got?"""

    send: Send
    is_sending: bool = False
    sequence: int = 0

    async def deliver(self, sequence: int, message: Message) -> None:
        """Send *message*, unless the client does not read or has a newer version."""
        if self.is_sending or self.sequence >= sequence:
            return
        self.sequence = sequence
        self.is_sending = True
        try:
            await self.send(message)
        finally:
            self.is_sending = False


@define(eq=False)
class FanOut:
    """Sends events to all clients: in a plain loop, or through the hub."""

    tracker: ProgressTracker
    snapshot: UploadProgress = field(factory=sample_snapshot)
    sockets: list[Send] = field(factory=list)
    streams: list[Send] = field(factory=list)
    floor_sockets: list[FloorClient] = field(factory=list)
    floor_streams: list[FloorClient] = field(factory=list)
    sequence: int = 1000

    async def run(self, kind: str, *, passes: int, batch: int) -> bytes:
        """Send *batch* events, *passes* times; return their JSON sizes and the CPU time.

        Each pass lets all client tasks run, as the pauses of the flusher do.
        """
        senders = {
            "ws": self._sockets,
            "sse": self._streams,
            "floor ws": self._floor_sockets,
            "floor sse": self._floor_streams,
            "library": self._hub,
        }
        sizes = []
        started = time.process_time()
        for _ in range(passes):
            updates = self._updates(batch)
            await senders[kind](updates)
            await checkpoint()
            while internals_of(self.tracker).hub.is_broadcasting:
                await checkpoint()
            await checkpoint()
            sizes.append([len(update.json) for update in updates])
        used = time.process_time() - started
        return encode_json({"sizes": sizes, "cpu_seconds": used})

    def _updates(self, batch: int) -> list[Update]:
        # Each is newer than all before: `FloorClient` has one version for all uploads.
        self.sequence += batch
        first = self.sequence - batch + 1
        return [
            Update(
                "benchmark",
                evolve(self.snapshot, upload_id=f"upload-{number:04}", sequence=first + number),
            )
            for number in range(batch)
        ]

    async def _hub(self, updates: Sequence[Update]) -> None:
        for update in updates:
            internals_of(self.tracker).hub.deliver(update)

    async def _sockets(self, updates: Sequence[Update]) -> None:
        for update in updates:
            message = {"type": "websocket.send", "text": update.websocket_text}
            for send in self.sockets:
                await send(message)

    async def _streams(self, updates: Sequence[Update]) -> None:
        for update in updates:
            message = {"type": "http.response.body", "body": update.sse, "more_body": True}
            for send in self.streams:
                await send(message)

    async def _floor_sockets(self, updates: Sequence[Update]) -> None:
        for update in updates:
            for client in self.floor_sockets:
                message = {"type": "websocket.send", "text": update.websocket_text}
                await client.deliver(update.progress.sequence, message)

    async def _floor_streams(self, updates: Sequence[Update]) -> None:
        for update in updates:
            for client in self.floor_streams:
                message = {"type": "http.response.body", "body": update.sse, "more_body": True}
                await client.deliver(update.progress.sequence, message)

    async def keep_socket(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Keep a WebSocket of the plain loop open."""
        await _accept_socket(receive, send)
        await _keep_open(self.sockets, send, receive)

    async def keep_stream(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Keep an event stream of the plain loop open."""
        await _start_stream(send)
        await _keep_open(self.streams, send, receive)

    async def keep_floor_socket(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Keep a WebSocket of the floor open."""
        await _accept_socket(receive, send)
        await _keep_open(self.floor_sockets, FloorClient(send), receive)

    async def keep_floor_stream(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Keep an event stream of the floor open."""
        await _start_stream(send)
        await _keep_open(self.floor_streams, FloorClient(send), receive)


async def _accept_socket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})


async def _start_stream(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})


async def _keep_open(clients: list[T], client: T, receive: Receive) -> None:
    clients.append(client)
    try:
        while not (await receive())["type"].endswith("disconnect"):
            pass
    finally:
        clients.remove(client)


@define(eq=False)
class BenchmarkApplication:
    """The ASGI application: each variant under its path."""

    api: App
    tracked: App
    fan_out: FanOut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        match (scope["type"], scope.get("method"), scope.get("path")):
            case ("websocket", _, "/untracked"):
                await self.fan_out.keep_socket(scope, receive, send)
            case ("http", "GET", "/untracked"):
                await self.fan_out.keep_stream(scope, receive, send)
            case ("http", "PUT", "/untracked"):
                await read_body(scope, receive, send)
            case ("http", "PUT", "/tracked"):
                await self.tracked(scope, receive, send)
            case ("http", "GET", "/plain"):
                await respond(send, encode_json(self.fan_out.snapshot))
            case ("http", "GET", "/cpu"):
                await respond(send, b"%.9f" % time.process_time())
            case ("http", "GET", "/statistics"):
                counters = asdict(self.fan_out.tracker.statistics()).items()
                numbers = {name: each for name, each in counters if isinstance(each, int)}
                await respond(send, encode_json(numbers))
            case ("http", "POST", "/fan"):
                query = dict(parse_qsl(scope["query_string"].decode()))
                passes, batch = int(query["passes"]), int(query["batch"])
                await respond(
                    send, await self.fan_out.run(query["kind"], passes=passes, batch=batch)
                )
            case _:
                await self.api(scope, receive, send)


def create_application(url: str, budget: float) -> BenchmarkApplication:
    """Create the application."""
    limits = Limits(
        sockets_per_owner=MAX_UPLOADS, tracked_per_owner=MAX_UPLOADS, tracked_total=MAX_UPLOADS
    )
    tracker = ProgressTracker.from_url(url, limits=limits, store_records_per_second=budget)
    mount, fan_out = progress_mount(tracker, authenticate=authenticate), FanOut(tracker)

    async def floor(scope: Scope, receive: Receive, send: Send) -> None:
        is_socket = scope["type"] == "websocket"
        keep = fan_out.keep_floor_socket if is_socket else fan_out.keep_floor_stream
        await keep(scope, receive, send)

    return BenchmarkApplication(
        Starlette(routes=[mount, Mount("/floor", floor)], lifespan=tracker.lifespan),
        UploadProgressMiddleware(read_body, tracker=tracker, authenticate=authenticate),
        fan_out,
    )


def main() -> None:
    """Serve on one processor until terminated."""
    number, processor, url, budget = sys.argv[1:]
    pin_to_processor(int(processor))
    gc.freeze()
    listener = socket.socket(fileno=int(number))
    config = uvicorn.Config(
        create_application(url, float(budget)), log_level="warning", ws_ping_interval=None
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
