"""An ASGI server in memory for one request: sends scripted messages, records the response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress import Identity, ProgressTracker, UploadNotFound, UploadProgress
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate

__all__ = [
    "ALICE",
    "LARGE_BYTES",
    "UPLOAD_ID",
    "App",
    "FailingStore",
    "Message",
    "Receive",
    "Scope",
    "ScriptedServer",
    "Send",
    "authenticate_alice",
    "body_messages",
    "read_body",
    "run_request",
    "send_response",
    "tracker_lifespan",
    "upload_scope",
    "wait_for_end",
    "wait_until",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALICE = Identity("alice")
UPLOAD_ID = "an-upload-of-alice"
LARGE_BYTES = 64 * 1024 + 1


def authenticate_alice(_connection: Connection) -> Identity:
    """Return Alice for any connection."""
    return ALICE


def upload_scope(
    upload_id: str | None = UPLOAD_ID,
    *,
    length: int | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    **more: object,
) -> Scope:
    """Return the scope of an upload request, as a server creates it."""
    own = [] if upload_id is None else [(b"upload-id", upload_id.encode("latin-1"))]
    if length is not None:
        own.append((b"content-length", str(length).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/files/a.bin",
        "raw_path": b"/files/a.bin",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"example.org"), *own, *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


def body_messages(*chunks: bytes) -> list[Message]:
    """Return the messages of a body in these chunks, and an empty last one."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    return messages


@define(eq=False)
class ScriptedServer:
    """The server of one request.

    Attributes:
        script: What ``receive`` returns or raises, in order. Then it waits for ``client_leaves``.
        sent: Messages that the application sent.
        receive_calls: Number of calls of ``receive``.
        send_fails_at: Index of the message whose ``send`` raises, as on a closed connection.
        script_ended: Set when ``receive`` is called after the end of the script.
        client_leaves: When set, ``receive`` returns a disconnect.
        send_error: The error that ``send`` raises.
    """

    script: Sequence[Message | BaseException] = ()
    send_fails_at: int | None = None
    sent: list[Message] = field(factory=list)
    receive_calls: int = 0
    script_ended: anyio.Event = field(factory=anyio.Event)
    client_leaves: anyio.Event = field(factory=anyio.Event)
    send_error: OSError = field(factory=lambda: OSError("gone"))

    async def receive(self) -> Message:
        """Return the next message of the script; after the last, wait for ``client_leaves``."""
        await checkpoint()
        self.receive_calls += 1
        if self.receive_calls > len(self.script):
            self.script_ended.set()
            await self.client_leaves.wait()
            return {"type": "http.disconnect"}
        message = self.script[self.receive_calls - 1]
        if isinstance(message, BaseException):
            raise message
        return message

    async def send(self, message: Message) -> None:
        """Record *message*."""
        await checkpoint()
        if len(self.sent) == self.send_fails_at:
            raise self.send_error
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        """The body of the response."""
        return b"".join(message.get("body", b"") for message in self.sent)


class FailingStore:
    """A store all of whose calls fail in the same way.

    Attributes:
        failure: Awaited by each call, before it raises ``RuntimeError``.
        calls: Number of calls.
    """

    def __init__(self, failure: Callable[[], Awaitable[object]]) -> None:
        self.failure = failure
        self.calls = 0
        self.save = self.announce = self.load = self.list = self._fail
        self.renew = self.running = self.overdue = self._fail

    async def _fail(self, *_args: object, **_options: object) -> NoReturn:
        self.calls += 1
        raise RuntimeError(await self.failure())


async def read_body(receive: Receive) -> int:
    """Read the body; return its size. Raise ``ConnectionError`` on a disconnect."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def send_response(send: Send, status: int = 200, content: bytes = b"done") -> None:
    """Send a response of plain text."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def tracker_lifespan(tracker: ProgressTracker, lifespan: bool) -> AsyncIterator[None]:
    """Enter the tracker's lifespan if *lifespan* is true; else behave like a server without."""
    if not lifespan:
        yield
        return
    async with tracker.lifespan():
        yield


async def run_request(
    app: App,
    tracker: ProgressTracker,
    *,
    scope: Scope | None = None,
    messages: Sequence[Message | BaseException] = (),
    server: ScriptedServer | None = None,
    authenticate: Authenticate = authenticate_alice,
) -> ScriptedServer:
    """Run one request through the middleware; return its server."""
    server = server or ScriptedServer(messages)
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate)
    await middleware(upload_scope() if scope is None else scope, server.receive, server.send)
    return server


async def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until *condition* holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # no event is set for it
            await anyio.sleep(0.001)


async def wait_for_end(
    tracker: ProgressTracker, upload_id: str = UPLOAD_ID, owner: Identity | str = ALICE
) -> UploadProgress:
    """Wait for the end of an upload; return its last snapshot."""

    async def last_snapshot() -> UploadProgress | None:
        try:
            progress = await tracker.get(upload_id, owner=owner)
        except UploadNotFound:
            return None
        return progress if progress.finished_at is not None else None

    with anyio.fail_after(20):
        while (found := await last_snapshot()) is None:  # noqa: ASYNC110  # no event is set at the end
            await anyio.sleep(0.001)
    return found
