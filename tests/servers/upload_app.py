"""The application that real servers run: the same endpoints, with and without the middleware.

``/with/…`` passes the middleware, ``/without/…`` does not; ``/state/{id}``, ``/cancel/{id}`` and
``/facts`` tell and do what the tests need to know and cannot reach from outside the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable

import anyio
from attrs import asdict, define, field

from tests._support.scripted_server import ALICE, App, Receive, Scope, Send, authenticate_alice
from upload_progress import ProgressTracker, UploadNotFound
from upload_progress._model.codec import encode_json
from upload_progress.asgi import UploadProgressMiddleware

__all__ = ["Served", "app"]

TOLD = {
    b"user-agent",
    b"expect",
    b"transfer-encoding",
    b"content-length",
    b"x-one",
}


@define(eq=False)
class Served:
    """One application with one tracker; its lifespan is the tracker's."""

    tracker: ProgressTracker = field(factory=ProgressTracker)
    disconnects: int = 0
    tracked: App = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the middleware around the endpoints."""
        self.tracked = UploadProgressMiddleware(
            self.endpoint, tracker=self.tracker, authenticate=authenticate_alice
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the endpoint."""
        if scope["type"] == "lifespan":
            return await self.live(receive, send)
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        asked: dict[str, Callable[[str], Awaitable[bytes]]] = {
            "state": self.state,
            "cancel": self.cancel,
            "facts": self.facts,
        }
        if name in asked:
            return await answer(send, 200, await asked[name](rest))
        return await (self.tracked if name == "with" else self.endpoint)(scope, receive, send)

    async def live(self, receive: Receive, send: Send) -> None:
        """Follow the lifespan protocol."""
        await receive()
        async with self.tracker.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def state(self, upload_id: str) -> bytes:
        """Return the snapshot of an upload, or ``null``."""
        try:
            return encode_json(await self.tracker.get(upload_id, owner=ALICE))
        except UploadNotFound:
            return b"null"

    async def cancel(self, upload_id: str) -> bytes:
        """Cancel an upload."""
        return encode_json(await self.tracker.cancel(upload_id, owner=ALICE))

    async def facts(self, _rest: str) -> bytes:
        """Return how many disconnects the endpoints saw, and the tracker's figures."""
        figures = asdict(self.tracker.statistics())
        return json.dumps({"disconnects": self.disconnects, **figures}).encode()

    async def endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what the last segment of the path says."""
        kind = scope["path"].rpartition("/")[2]
        if kind == "refuse":
            return await answer(send, 413, b"too large")
        if kind == "ignore":
            return await answer(send, 200, b"whatever")
        digest = await self.read(receive)
        if digest is None:
            return None
        if kind == "stay":
            await anyio.sleep_forever()
        seen = {
            "sha256": digest,
            "method": scope["method"],
            "version": scope["http_version"],
            "headers": sorted(
                (name.decode(), value.decode("latin-1"))
                for name, value in scope["headers"]
                if name in TOLD
            ),
        }
        return await answer(send, 200, json.dumps(seen).encode())

    async def read(self, receive: Receive) -> str | None:
        """Return the hash of the body; None when the client has gone."""
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return None
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        return digest.hexdigest()


async def answer(send: Send, status: int, content: bytes) -> None:
    """Send a response."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"x-one", b"1"),
        (b"x-two", b"2"),
        (b"x-one", b"3"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


app = Served()
