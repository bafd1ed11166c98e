"""The server under test: bare and followed variants of the same thing in one process, by path.

    PUT  /bare, /followed       read a body: without, and through the middleware
    GET  /plain                 a small JSON answer, for the poll to be compared with
    GET  /cpu                   how much processor time this process has used, in seconds
    GET  /statistics            what the tracker has done
    WS   /bare                  a socket in the bare fan-out
    GET  /bare                  an event stream in the bare fan-out
    POST /fan                   send events to everybody, and say what that took
    /uploads/...                the library's own routes

It listens on the socket whose number is its first argument, on the processor whose number is its
second, and keeps its sessions, and sends its events, where the URL in its third says.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl

import uvicorn
from anyio.lowlevel import checkpoint
from attrs import asdict, define, evolve, field
from starlette.applications import Starlette

from benchmarks.common import own_cpu
from benchmarks.snapshots import snapshot
from upload_progress import Identity, Limits, ProgressTracker, UploadProgress
from upload_progress._fanout.update import Update
from upload_progress._model.codec import encode_json
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.asgi.tracked_request import App
from upload_progress.connection import Connection
from upload_progress.starlette import progress_mount
from upload_progress.tracker import internals_of

MOST = 20_000


def authenticate(connection: Connection) -> Identity:
    """Take anybody's word for who they are."""
    return Identity(connection.header("x-user") or "benchmark")


async def answer(send: Send, body: bytes) -> None:
    """Send a small JSON document."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def take(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body to its end."""
    while (await receive()).get("more_body"):
        pass
    await answer(send, b"{}")


@define(eq=False)
class Fan:
    """Sends events to everybody: in a bare loop, or through the hub."""

    tracker: ProgressTracker
    snapshot: UploadProgress = field(factory=snapshot)
    sockets: list[Send] = field(factory=list)
    streams: list[Send] = field(factory=list)
    sequence: int = 1000

    async def run(self, kind: str, *, passes: int, batch: int) -> bytes:
        """Send *batch* events at once, *passes* times; return how long they were and what it took.

        Each pass gives everybody the time to send, as the flusher's pauses do.
        """
        ways = {"ws": self._sockets, "sse": self._streams, "ours": self._hub}
        sizes = []
        begun = time.process_time()
        for _ in range(passes):
            updates = self._updates(batch)
            await ways[kind](updates)
            await checkpoint()
            while internals_of(self.tracker).hub._broadcaster.is_busy:
                await checkpoint()
            await checkpoint()
            sizes.append([len(update.json) for update in updates])
        used = time.process_time() - begun
        return encode_json({"sizes": sizes, "cpu_seconds": used})

    def _updates(self, batch: int) -> list[Update]:
        self.sequence += 1
        return [
            Update(
                "benchmark",
                evolve(self.snapshot, upload_id=f"upload-{number:04}", sequence=self.sequence),
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

    async def keep_socket(self, receive: Receive, send: Send) -> None:
        """Hold a bare socket open."""
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await self._keep(self.sockets, receive, send)

    async def keep_stream(self, receive: Receive, send: Send) -> None:
        """Hold a bare event stream open."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        await self._keep(self.streams, receive, send)

    async def _keep(self, room: list[Send], receive: Receive, send: Send) -> None:
        room.append(send)
        try:
            while not (await receive())["type"].endswith("disconnect"):
                pass
        finally:
            room.remove(send)


@define(eq=False)
class Variants:
    """The application: each variant under its path."""

    api: App
    followed: App
    fan: Fan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        match (scope["type"], scope.get("method"), scope.get("path")):
            case ("websocket", _, "/bare"):
                await self.fan.keep_socket(receive, send)
            case ("http", "GET", "/bare"):
                await self.fan.keep_stream(receive, send)
            case ("http", "PUT", "/bare"):
                await take(scope, receive, send)
            case ("http", "PUT", "/followed"):
                await self.followed(scope, receive, send)
            case ("http", "GET", "/plain"):
                await answer(send, encode_json(self.fan.snapshot))
            case ("http", "GET", "/cpu"):
                await answer(send, b"%.9f" % time.process_time())
            case ("http", "GET", "/statistics"):
                await answer(send, encode_json(asdict(self.fan.tracker.statistics())))
            case ("http", "POST", "/fan"):
                query = dict(parse_qsl(scope["query_string"].decode()))
                passes, batch = int(query["passes"]), int(query["batch"])
                await answer(send, await self.fan.run(query["kind"], passes=passes, batch=batch))
            case _:
                await self.api(scope, receive, send)


def variants(url: str) -> Variants:
    """Put the application together."""
    limits = Limits(sockets_per_owner=MOST, tracked_per_owner=MOST, tracked_total=MOST)
    tracker = ProgressTracker.from_url(url, limits=limits)
    mount = progress_mount(tracker, authenticate=authenticate)
    return Variants(
        Starlette(routes=[mount], lifespan=tracker.lifespan),
        UploadProgressMiddleware(take, tracker=tracker, authenticate=authenticate),
        Fan(tracker),
    )


def main() -> None:
    """Serve on one processor, until told to stop."""
    number, processor, url = sys.argv[1:]
    own_cpu(int(processor))
    gc.freeze()
    listener = socket.socket(fileno=int(number))
    config = uvicorn.Config(variants(url), log_level="warning", ws_ping_interval=None)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
