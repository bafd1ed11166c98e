"""An application that answers as each request says, with its progress under ``/uploads``.

``X-Answer`` is the status, 0 for an exception; ``X-Answer-Headers`` a JSON object, and
``X-Answer-Body`` a text. ``X-Owner`` names the user: one whose name begins with ``slow`` is known
late. The store is that of ``UPLOAD_PROGRESS_TEST_STORE``, or one in memory.
"""

from __future__ import annotations

import json
import os

import anyio

from tests._support.scripted_server import Receive, Scope, Send
from upload_progress.connection import Connection
from upload_progress.starlette import UploadProgressApp, upload_progress_app

__all__ = ["SLOW_SECONDS", "STORE", "answer_app", "app"]

STORE = "UPLOAD_PROGRESS_TEST_STORE"
SLOW_SECONDS = 0.03
RAISES = 0


class DeliberateError(Exception):
    """Raised by the application."""


async def owner_of(connection: Connection) -> str | None:
    """Return the user whom the request names."""
    owner = connection.header("x-owner")
    if owner is not None and owner.startswith("slow"):
        await anyio.sleep(SLOW_SECONDS)
    return owner


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and answer; the application has no lifespan."""
    assert scope["type"] == "http"
    told = {bytes(name): bytes(value).decode() for name, value in scope["headers"]}
    while (await receive()).get("more_body"):
        pass
    status = int(told[b"x-answer"])
    if status == RAISES:
        raise DeliberateError
    content = told.get(b"x-answer-body", "").encode()
    own = {"content-length": str(len(content)), **json.loads(told[b"x-answer-headers"])}
    headers = [(name.encode(), value.encode()) for name, value in own.items()]
    if status == 204:
        headers = headers[1:]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def answer_app(store: str = "memory:") -> UploadProgressApp:
    """Return the application, with a tracker of its own."""
    return upload_progress_app(answer, authenticate=owner_of, store=store)


app = answer_app(os.environ.get(STORE, "memory:"))
