"""An ASGI server in memory for one request: it plays a script, and records what it is told."""

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
    """Everybody is Alice."""
    return ALICE


def upload_scope(
    upload_id: str | None = UPLOAD_ID,
    *,
    length: int | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    **more: object,
) -> Scope:
    """Return the scope of an upload as servers make it."""
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
    """Return the messages of a body that comes in these chunks."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    return messages


@define(eq=False)
class ScriptedServer:
    """The server's side of one exchange; what is left of its script it never says.

    Attributes:
        script: What ``receive`` returns, in order, or raises; afterwards the client is silent.
        sent: What was sent.
        pulled: How often ``receive`` was called.
        send_fails_at: The number of the sending that raises OSError, as a closed connection does.
    """

    script: Sequence[Message | BaseException] = ()
    send_fails_at: int | None = None
    sent: list[Message] = field(factory=list)
    receive_calls: int = 0
    script_ended: anyio.Event = field(factory=anyio.Event)
    client_leaves: anyio.Event = field(factory=anyio.Event)
    send_error: OSError = field(factory=lambda: OSError("gone"))

    async def receive(self) -> Message:
        """Return the next message of the script, then wait until the client leaves."""
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
    """A store that fails each call in the same way, and counts them."""

    def __init__(self, fault: Callable[[], Awaitable[object]]) -> None:
        self.fault = fault
        self.asked = 0
        self.save = self.load = self.list = self.renew = self.overdue = self._fail

    async def _fail(self, *_args: object, **_options: object) -> NoReturn:
        self.asked += 1
        raise RuntimeError(await self.fault())


async def read_body(receive: Receive) -> int:
    """Read a whole body; return its size, or raise ``ConnectionError`` at a disconnect."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def send_response(send: Send, status: int = 200, content: bytes = b"done") -> None:
    """Send a plain response."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def tracker_lifespan(tracker: ProgressTracker, lifespan: bool) -> AsyncIterator[None]:
    """Enter the tracker's lifespan, or do without, as servers that know none."""
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
    """Run one request through the middleware; return what the server has seen of it."""
    server = server or ScriptedServer(messages)
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate)
    await middleware(upload_scope() if scope is None else scope, server.receive, server.send)
    return server


async def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until *condition* holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await anyio.sleep(0.001)


async def wait_for_end(
    tracker: ProgressTracker, upload_id: str = UPLOAD_ID, owner: Identity | str = ALICE
) -> UploadProgress:
    """Return the last snapshot of an upload, once it has ended."""

    async def look() -> UploadProgress | None:
        try:
            progress = await tracker.get(upload_id, owner=owner)
        except UploadNotFound:
            return None
        return progress if progress.finished_at is not None else None

    with anyio.fail_after(5):
        while (found := await look()) is None:  # noqa: ASYNC110  # an end sets no event
            await anyio.sleep(0.001)
    return found
