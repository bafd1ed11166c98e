"""No web framework: the middleware around a plain ASGI application.

Run:
    pip install upload-progress uvicorn
    python examples/plain_asgi.py --port 8000

Upload, and read the progress:
    ID=$(python -c 'import uuid; print(uuid.uuid4())')
    curl -T big.bin -H "Upload-Id: $ID" http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/uploads/$ID/progress

The id must be unguessable, because every client that knows it may read the progress.
"""

from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from upload_progress import Connection, Identity, ProgressTracker, UploadNotFound, encode_json
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.identity import CapabilityIdentity

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

tracker = ProgressTracker()


def authenticate(_connection: Connection) -> Identity:
    return CapabilityIdentity()


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["method"] == "GET":
        await progress(scope["path"], send)
    else:
        await respond(send, 200, b'{"bytes": %d}' % await read_body(receive))


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with tracker.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def progress(path: str, send: Send) -> None:
    upload_id = path.removeprefix("/uploads/").removesuffix("/progress")
    try:
        snapshot = await tracker.get(upload_id, owner=CapabilityIdentity())
    except UploadNotFound:
        await respond(send, 404, b"{}")
    else:
        await respond(send, 200, encode_json(snapshot))


async def read_body(receive: Receive) -> int:
    size_bytes, more_body = 0, True
    while more_body:
        message = await receive()
        size_bytes += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    return size_bytes


async def respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = UploadProgressMiddleware(application, tracker=tracker, authenticate=authenticate)

if __name__ == "__main__":
    parser = ArgumentParser(description="Plain ASGI with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
