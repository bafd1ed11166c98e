"""The application that the tests run on real servers, with and without the middleware.

``/with/…`` passes the middleware, ``/without/…`` does not. ``/state/{id}`` and ``/cancel/{id}``
read and cancel an upload, ``/statistics`` returns counters.
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

__all__ = ["UploadApp", "app"]

ECHOED_HEADERS = {
    b"user-agent",
    b"expect",
    b"transfer-encoding",
    b"content-length",
    b"x-one",
}


@define(eq=False)
class UploadApp:
    """An application with one tracker, whose lifespan it enters.

    Attributes:
        tracker: The tracker.
        disconnects: Number of disconnects that the endpoints received.
        tracked: The endpoints behind the middleware.
    """

    tracker: ProgressTracker = field(factory=ProgressTracker)
    disconnects: int = 0
    tracked: App = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Wrap the endpoints in the middleware."""
        self.tracked = UploadProgressMiddleware(
            self.endpoint, tracker=self.tracker, authenticate=authenticate_alice
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        if scope["type"] == "lifespan":
            return await self.lifespan(receive, send)
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        queries: dict[str, Callable[[str], Awaitable[bytes]]] = {
            "state": self.state,
            "cancel": self.cancel,
            "statistics": self.statistics,
        }
        if name in queries:
            return await send_response(send, 200, await queries[name](rest))
        return await (self.tracked if name == "with" else self.endpoint)(scope, receive, send)

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Implement the lifespan protocol of ASGI."""
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

    async def statistics(self, _rest: str) -> bytes:
        """Return the number of disconnects, and the counters of the tracker that are numbers."""
        statistics = asdict(self.tracker.statistics(), filter=lambda _, value: type(value) is int)
        return json.dumps({"disconnects": self.disconnects, **statistics}).encode()

    async def endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an upload as the last segment of the path says."""
        kind = scope["path"].rpartition("/")[2]
        if kind == "refuse":
            return await send_response(send, 413, b"too large")
        if kind == "ignore":
            return await send_response(send, 200, b"not read")
        digest = await self.read(receive)
        if digest is None:
            return None
        if kind == "stay":
            await anyio.sleep_forever()
        echo = {
            "sha256": digest,
            "method": scope["method"],
            "version": scope["http_version"],
            "headers": sorted(
                (name.decode(), value.decode("latin-1"))
                for name, value in scope["headers"]
                if name in ECHOED_HEADERS
            ),
        }
        return await send_response(send, 200, json.dumps(echo).encode())

    async def read(self, receive: Receive) -> str | None:
        """Return the SHA-256 of the body; None if the client disconnects."""
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return None
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        return digest.hexdigest()


async def send_response(send: Send, status: int, content: bytes) -> None:
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


app = UploadApp()
