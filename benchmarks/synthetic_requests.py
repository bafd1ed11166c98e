"""Synthetic requests: a ``receive`` that returns prepared messages, and applications that read it.

No ``await`` here ever suspends, so requests run without an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from upload_progress import Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.throttling import DEFAULT_POLICY, Meter

BODY = bytes(256 * 1024)
"""The largest body part that uvicorn passes in one message."""

OWNER = Identity("benchmark")


def make_receive(messages: int) -> Receive:
    """Return a ``receive`` of *messages* messages of 256 KiB and an empty last one."""
    message: Message = {"type": "http.request", "body": BODY, "more_body": True}
    last: Message = {"type": "http.request", "body": b"", "more_body": False}
    remaining = messages

    async def receive() -> Message:
        nonlocal remaining
        remaining -= 1
        return message if remaining >= 0 else last

    return receive


async def application(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and respond."""
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def discard(_message: Message) -> None:
    """Replace the ``send`` of a server."""


def run_without_loop(request: Coroutine[Any, Any, None]) -> None:
    """Run a request that never suspends."""
    try:
        request.send(None)
    except StopIteration:
        return
    raise AssertionError


def scope_of(messages: int, upload_id: str) -> Scope:
    """Return the scope of a PUT of *messages* messages."""
    length = b"%d" % (messages * len(BODY))
    headers = [(b"content-length", length), (b"upload-id", upload_id.encode())]
    return {"type": "http", "method": "PUT", "path": "/file", "headers": headers}


def untracked(messages: int) -> None:
    """Receive without a wrapper."""
    run_without_loop(application({}, make_receive(messages), discard))


def minimal(messages: int) -> None:
    """Receive through a minimal counting wrapper: one addition, one comparison."""
    receive, received, gate = make_receive(messages), 0, 1 << 62

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message["body"])
        if received >= gate:
            raise AssertionError
        return message

    run_without_loop(application({}, counted, discard))


def wrapped(messages: int) -> None:
    """Receive through ``counting``, without reaching a gate of the default policy."""
    meter = Meter(DEFAULT_POLICY, 20 * messages * len(BODY))
    meter.rearm()

    def first(_message: Message) -> bool:
        return False

    def keep(message: Message) -> Message:
        return message

    receive = make_receive(messages)
    counted = counting(receive, meter, on_first=first, on_gate=keep, on_last=keep, on_error=_fail)
    run_without_loop(application({}, counted, discard))


def _fail(error: Exception) -> None:
    raise error


def through_middleware(tracker: ProgressTracker) -> Callable[[int], None]:
    """Return a variant that receives through the middleware."""
    middleware = UploadProgressMiddleware(
        application, tracker=tracker, authenticate=lambda _connection: OWNER
    )
    requests = 0

    def variant(messages: int) -> None:
        nonlocal requests
        requests += 1
        scope = scope_of(messages, f"upload-{requests}")
        run_without_loop(middleware(scope, make_receive(messages), discard))

    return variant
