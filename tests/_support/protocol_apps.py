"""Minimal servers of each upload protocol as ASGI applications, and a client for them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import parse_qs

from attrs import define, field

from tests._support.scripted_server import (
    Message,
    Receive,
    Scope,
    ScriptedServer,
    Send,
    authenticate_alice,
    body_messages,
    upload_scope,
)
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol

__all__ = [
    "ContentRangeApp",
    "FileApp",
    "IetfApp",
    "OciApp",
    "ResponseHead",
    "S3App",
    "ScriptedApp",
    "TusApp",
    "send_request",
    "upload_id_of",
]

ResponseHead = tuple[int, dict[str, str]]


def request_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request."""
    return {key.decode(): value.decode() for key, value in scope["headers"]}


@define(eq=False)
class FileApp:
    """Appends each request's body to a file named like its path.

    Subclasses override ``respond``.
    """

    files: dict[str, bytearray] = field(factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response that ``respond`` returns."""
        status, headers = await self.respond(scope, receive)
        pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        """Read the body; return status and headers of the response."""
        self.files.setdefault(scope["path"], bytearray())
        await self.append(scope["path"], receive)
        return 200, {}

    async def append(self, path: str, receive: Receive) -> int:
        """Append the body to a file, chunk by chunk; return its size."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            self.files[path] += message["body"]
            more = message["more_body"]
        return len(self.files[path])


@define(eq=False)
class TusApp(FileApp):
    """tus 1.0.0."""

    lengths: dict[str, int | None] = field(factory=dict)

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        path, headers = scope["path"], request_headers(scope)
        if scope["method"] == "POST":
            path = f"/files/{len(self.files)}"
            self.files[path] = bytearray()
            length = headers.get("upload-length")
            self.lengths[path] = None if length is None else int(length)
            size = await self.append(path, receive)
            return 201, {"location": f"http://example.org{path}", "upload-offset": str(size)}
        if path not in self.files:
            return 404, {}
        if scope["method"] == "DELETE":
            del self.files[path]
            return 204, {}
        if scope["method"] == "HEAD":
            return 200, {"upload-offset": str(len(self.files[path]))}
        if int(headers["upload-offset"]) != len(self.files[path]):
            return 409, {}
        return 204, {"upload-offset": str(await self.append(path, receive))}


@define(eq=False)
class ContentRangeApp(FileApp):
    """PUT with ``Content-Range``; 308 asks for more bytes."""

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        path = scope["path"]
        found = re.search(r"([0-9]+)-[0-9]+/([0-9]+|\*)", request_headers(scope)["content-range"])
        assert found
        file = self.files.setdefault(path, bytearray())
        if int(found[1]) != len(file):
            return 416, {}
        size = await self.append(path, receive)
        return (200, {}) if str(size) == found[2] else (308, {"range": f"bytes=0-{size - 1}"})


@define(eq=False)
class OciApp(FileApp):
    """OCI distribution: blob uploads."""

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        path, method = scope["path"], scope["method"]
        query = parse_qs(scope["query_string"].decode())
        if method == "POST":
            if "mount" in query:
                return 201, {"location": "/v2/a/blobs/sha256:1"}
            path = f"{path}{len(self.files)}"
            self.files[path] = bytearray()
            if "digest" in query:
                await self.append(path, receive)
                return 201, {"location": "/v2/a/blobs/sha256:1"}
            return 202, {"location": f"{path}?_state=0"}
        if method == "DELETE":
            del self.files[path]
            return 204, {}
        size = await self.append(path, receive)
        if method == "PATCH":
            return 202, {"location": f"{path}?_state={size}", "range": f"0-{size - 1}"}
        return (201, {}) if query["digest"] == ["good"] else (400, {})


@define(eq=False)
class S3App(FileApp):
    """S3 multipart uploads."""

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        name = f"{scope['path']}?{query.get('partNumber', ['all'])[0]}"
        self.files[name] = bytearray()
        await self.append(name, receive)
        return (204 if scope["method"] == "DELETE" else 200), {}


@define(eq=False)
class IetfApp(FileApp):
    """The IETF draft of resumable uploads."""

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        path, headers = scope["path"], request_headers(scope)
        if scope["method"] == "DELETE":
            return 204, {}
        if scope["method"] == "POST":
            path = f"/drafts/{len(self.files)}"
            self.files[path] = bytearray()
        size = await self.append(path, receive)
        complete = headers["upload-complete"]
        location = {"location": path} if scope["method"] == "POST" else {}
        return 200, {"upload-offset": str(size), "upload-complete": complete, **location}


@define(eq=False)
class ScriptedApp(FileApp):
    """Reads each body, and sends the next one of its responses."""

    responses: list[ResponseHead] = field(factory=list)

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        await super().respond(scope, receive)
        return self.responses.pop(0)


async def send_request(
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    tracker: ProgressTracker,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    messages: Sequence[Message | BaseException] | None = None,
    content: bytes = b"",
    authenticate: Authenticate = authenticate_alice,
    protocols: Sequence[TransferProtocol] = DEFAULT_PROTOCOLS,
    server: ScriptedServer | None = None,
) -> ScriptedServer:
    """Send one request through the middleware; a disconnect ends the application silently."""
    path, _, query = path.partition("?")
    pairs = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    is_scripted = messages is not None or server is not None
    length = None if is_scripted else len(content)
    scope = upload_scope(
        None, method=method, path=path, query_string=query.encode(), headers=pairs, length=length
    )
    server = server or ScriptedServer(messages if messages is not None else body_messages(content))
    middleware = UploadProgressMiddleware(
        app, tracker=tracker, authenticate=authenticate, protocols=protocols
    )
    try:
        await middleware(scope, server.receive, server.send)
    except ConnectionError:
        assert not server.sent
    return server


def upload_id_of(server: ScriptedServer) -> str:
    """Return the upload id in the response."""
    return server.headers["upload-id"]
