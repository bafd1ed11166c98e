"""Uploads of all kinds through the middleware, and what is expected of their sums."""

from __future__ import annotations

from contextlib import suppress

import anyio
from attrs import define

from tests._support.protocol_apps import ContentRangeApp, send_request
from tests._support.scripted_server import (
    Message,
    Receive,
    Scope,
    Send,
    body_messages,
    read_body,
    send_response,
)
from upload_progress import ProgressTracker

__all__ = ["SENT", "Sums", "application", "send_uploads"]

SIZES = (1, 700, 65_536)
ROUNDS = 67


@define
class Sums:
    """What was sent, and how it ended.

    Attributes:
        received_bytes: All bytes of all bodies.
        accepted_bytes: Those of uploads that have completed.
        ends: The number of uploads by state and error code.
    """

    received_bytes: int
    accepted_bytes: int
    ends: dict[tuple[str, str], int]


_BYTES = ROUNDS * sum(SIZES)
_COUNT = ROUNDS * len(SIZES)
# Five kinds of uploads; one brings its content in two requests, and one breaks off half way.
SENT = Sums(
    received_bytes=4 * _BYTES + ROUNDS * sum(size // 2 for size in SIZES),
    accepted_bytes=2 * _BYTES,
    ends={
        ("completed", ""): 2 * _COUNT,
        ("failed", "rejected"): _COUNT,
        ("failed", "app_error"): _COUNT,
        ("failed", "client_disconnected"): _COUNT,
    },
)
"""The sums of ``send_uploads``: 1005 uploads."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, then accept or refuse it or fail, as the path says."""
    await read_body(receive)
    if scope["path"].startswith("/fail"):
        raise ValueError
    await send_response(send, 422 if scope["path"].startswith("/refuse") else 200)


async def send_uploads(tracker: ProgressTracker) -> None:
    """Send uploads of all kinds at the same time, and wait for their ends."""
    parts = ContentRangeApp()
    async with anyio.create_task_group() as tasks:
        for number in range(ROUNDS):
            for size in SIZES:
                name = f"{number}-{size}"
                tasks.start_soon(_send_whole, tracker, name, size)
                tasks.start_soon(_send_parts, tracker, parts, name, size)


async def _send_whole(tracker: ProgressTracker, name: str, size: int) -> None:
    half = [{"type": "http.request", "body": bytes(size // 2), "more_body": True}]
    await _send(tracker, f"/accept/{name}", body_messages(bytes(size)))
    await _send(tracker, f"/refuse/{name}", body_messages(bytes(size)))
    await _send(tracker, f"/fail/{name}", body_messages(bytes(size)))
    await _send(tracker, f"/break/{name}", [*half, {"type": "http.disconnect"}])


async def _send(tracker: ProgressTracker, path: str, messages: list[Message]) -> None:
    headers = {"upload-id": path[1:].replace("/", "-")}
    with suppress(ValueError):
        await send_request(application, tracker, "PUT", path, headers=headers, messages=messages)


async def _send_parts(tracker: ProgressTracker, app: ContentRangeApp, name: str, size: int) -> None:
    middle = size // 2
    for start, stop in ((0, middle), (middle, size)):
        if start < stop:
            headers = {"content-range": f"bytes {start}-{stop - 1}/{size}"}
            content = bytes(stop - start)
            await send_request(
                app, tracker, "PUT", f"/parts/{name}", headers=headers, content=content
            )
