"""An application with probes on both sides of the middleware, which are compared without it.

A request with ``X-Side: tracked`` passes the middleware, one with ``X-Side: bare`` does not. The
outer probe records what the server sees: the messages that it gets, its scope after the call, and
how the call ends. The inner probe records what the application sees: its scope, the messages that
it receives, and the errors of ``send``. ``GET /record/NAME`` returns both, once the call has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
from attrs import define, field

from tests._support.scripted_server import Message, Receive, Scope, Send, authenticate_alice
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware

__all__ = ["ProbeApp", "app"]

PROBE_HEADERS = {b"x-side", b"x-record", b"x-behaviour"}
NEVER_COMPARED = {"client", "upload_progress"}
ANSWER_HEADERS = [
    (b"content-type", b"text/plain"),
    (b"location", b"/v2/a/blobs/uploads/1"),
    (b"upload-offset", b"3"),
    (b"range", b"0-2"),
    (b"etag", b'"1"'),
    (b"x-two", b"1"),
    (b"x-one", b"2"),
    (b"x-two", b"3"),
]


class DeliberateError(Exception):
    """Raised by the application."""


@define
class Record:
    """What both sides saw of one call.

    Attributes:
        server: What the server saw.
        application: What the application saw.
        ended: Set at the end of the call.
    """

    server: list[object] = field(factory=list)
    application: list[object] = field(factory=list)
    ended: anyio.Event = field(factory=anyio.Event)


def described(scope: Scope) -> dict[str, str]:
    """Return the values of *scope* that are the same for every client."""
    own = [pair for pair in scope["headers"] if bytes(pair[0]) not in PROBE_HEADERS]
    return {
        key: type(value).__name__ if key in {"state", "extensions"} else repr(value)
        for key, value in {**scope, "headers": [tuple(map(bytes, pair)) for pair in own]}.items()
        if key not in NEVER_COMPARED
    }


def summary(message: Message) -> list[object]:
    """Return *message* as JSON data."""
    if message["type"] == "http.response.start":
        headers = [[bytes(part).decode() for part in pair] for pair in message["headers"]]
        return [message["type"], message["status"], headers, sorted(message)]
    body = bytes(message.get("body", b"")).decode("latin-1")
    return [message["type"], body, message.get("more_body", False), sorted(message)]


def note(events: list[object], event: list[object]) -> None:
    """Add *event*; parts of a body, whose limits are those of packets, become one."""
    last = events[-1] if events else None
    if isinstance(last, list) and last[:2] == event[:2] == ["received", "http.request"]:
        event[2] = last[2] + event[2]
        events.pop()
    events.append(event)


def headers_of_answer() -> Iterator[tuple[bytes, bytes]]:
    """Return an iterator, which can be read only once."""
    return iter(ANSWER_HEADERS)


async def read(receive: Receive) -> int:
    """Receive the body; return its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def answer(send: Send, status: int, body: str) -> object:
    """Send a response."""
    start = {"type": "http.response.start", "status": status, "headers": headers_of_answer()}
    await send(start)
    await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"!"})
    return None


async def accept(receive: Receive, send: Send) -> object:
    """Read and respond."""
    return await answer(send, 201, str(await read(receive)))


async def refuse(_receive: Receive, send: Send) -> object:
    """Respond without reading."""
    return await answer(send, 413, "too large")


async def respond_early(receive: Receive, send: Send) -> object:
    """Begin the response before the body is read."""
    await send({"type": "http.response.start", "status": 200, "headers": headers_of_answer()})
    body = str(await read(receive)).encode()
    await send({"type": "http.response.body", "body": body})
    return None


async def return_value(receive: Receive, send: Send) -> object:
    """Return a value, which servers do not expect."""
    await answer(send, 200, str(await read(receive)))
    return "a value"


async def fail(receive: Receive, _send: Send) -> object:
    """Raise an exception instead of responding."""
    await read(receive)
    raise DeliberateError


async def fail_late(receive: Receive, send: Send) -> object:
    """Raise an exception in the response."""
    await read(receive)
    await send({"type": "http.response.start", "status": 200, "headers": headers_of_answer()})
    raise DeliberateError


async def say_nothing(receive: Receive, _send: Send) -> object:
    """Return without a response."""
    return await read(receive)


BEHAVIOURS: dict[str, Callable[[Receive, Send], Any]] = {
    "accept": accept,
    "refuse": refuse,
    "respond-early": respond_early,
    "return-value": return_value,
    "fail": fail,
    "fail-late": fail_late,
    "say-nothing": say_nothing,
}


@define(eq=False)
class ProbeApp:
    """The application with its probes, and the middleware between them."""

    tracker: ProgressTracker = field(factory=ProgressTracker)
    records: dict[str, Record] = field(factory=dict)
    tracked: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Wrap the application."""
        self.tracked = UploadProgressMiddleware(
            self.application, tracker=self.tracker, authenticate=authenticate_alice
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> object:
        """Route one request."""
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
        elif scope["path"].startswith("/record/"):
            await self.show(scope["path"].rpartition("/")[2], send)
        else:
            return await self.probe(scope, receive, send)
        return None

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Implement the lifespan protocol of ASGI."""
        await receive()
        async with self.tracker.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def show(self, name: str, send: Send) -> None:
        """Respond with a record."""
        record = self.records.setdefault(name, Record())
        if name != "none":
            await record.ended.wait()
        body = json.dumps({"server": record.server, "application": record.application}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def probe(self, scope: Scope, receive: Receive, send: Send) -> object:
        """Run one call, and record what the server sees of it."""
        headers = {bytes(name): bytes(value).decode() for name, value in scope["headers"]}
        record = self.records.setdefault(headers[b"x-record"], Record())
        before, side = dict(scope), headers[b"x-side"]

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list(message["headers"])}
            record.server.append(summary(message))
            await send(message)

        run = self.tracked if side == "tracked" else self.application
        try:
            result = await run(scope, receive, send_and_record)
            record.server.append(["returned", repr(result)])
            return result
        except BaseException as error:
            record.server.append(["raised", type(error).__name__])
            raise
        finally:
            is_same = list(before) == list(scope) and all(
                before[key] is scope[key] for key in scope
            )
            record.server.append(["scope is unchanged", is_same])
            record.ended.set()

    async def application(self, scope: Scope, receive: Receive, send: Send) -> object:
        """Behave as the request says, and record what the application sees."""
        headers = {bytes(name): bytes(value).decode() for name, value in scope["headers"]}
        events = self.records[headers[b"x-record"]].application
        events.append(described(scope))

        async def receive_and_record() -> Message:
            message = await receive()
            note(events, ["received", *summary(message)])
            return message

        async def send_and_record(message: Message) -> None:
            await send(message)
            events.append(["sent", message["type"]])

        return await BEHAVIOURS[headers[b"x-behaviour"]](receive_and_record, send_and_record)


app = ProbeApp()
