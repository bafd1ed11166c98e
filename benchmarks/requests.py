"""Synthetic requests: a ``receive`` that hands out prepared messages, and applications to read it.

Nothing here awaits anything that is not ready, so a request can be driven without an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from upload_progress import Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.throttling import DEFAULT_POLICY, Meter

BODY = bytes(256 * 1024)
"""What uvicorn hands over at once."""

OWNER = Identity("benchmark")


def server(messages: int) -> Receive:
    """Return a ``receive`` with that many messages of 256 KiB, and an empty last one."""
    message: Message = {"type": "http.request", "body": BODY, "more_body": True}
    last: Message = {"type": "http.request", "body": b"", "more_body": False}
    left = messages

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return message if left >= 0 else last

    return receive


async def application(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body to its end, and answer."""
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def swallow(_message: Message) -> None:
    """Stand for a server's ``send``."""


def drive(request: Coroutine[Any, Any, None]) -> None:
    """Run a request that never has to wait."""
    try:
        request.send(None)
    except StopIteration:
        return
    raise AssertionError


def scope_of(messages: int, upload_id: str) -> Scope:
    """Return the head of a PUT of that many messages."""
    length = b"%d" % (messages * len(BODY))
    headers = [(b"content-length", length), (b"upload-id", upload_id.encode())]
    return {"type": "http", "method": "PUT", "path": "/file", "headers": headers}


def bare(messages: int) -> None:
    """Receive without anything around it."""
    drive(application({}, server(messages), swallow))


def trivial(messages: int) -> None:
    """Receive through the least that counts: one addition, one comparison."""
    receive, received, gate = server(messages), 0, 1 << 62

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message["body"])
        if received >= gate:
            raise AssertionError
        return message

    drive(application({}, counted, swallow))


def wrapped(messages: int) -> None:
    """Receive through ``counting``, between two marks of the default policy."""
    meter = Meter(DEFAULT_POLICY, 20 * messages * len(BODY))
    meter.rearm()

    def first(_message: Message) -> bool:
        return False

    def keep(message: Message) -> Message:
        return message

    receive = server(messages)
    counted = counting(receive, meter, on_first=first, on_gate=keep, on_last=keep, on_error=_fail)
    drive(application({}, counted, swallow))


def _fail(error: Exception) -> None:
    raise error


def through_middleware(tracker: ProgressTracker) -> Callable[[int], None]:
    """Return a variant that receives through the whole middleware."""
    middleware = UploadProgressMiddleware(
        application, tracker=tracker, authenticate=lambda _connection: OWNER
    )
    requests = 0

    def middle(messages: int) -> None:
        nonlocal requests
        requests += 1
        scope = scope_of(messages, f"upload-{requests}")
        drive(middleware(scope, server(messages), swallow))

    return middle
