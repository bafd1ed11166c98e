"""Without a web framework: the middleware around a plain ASGI application.

    python examples/plain_asgi.py --port 8000
    curl -T big.bin -H "Upload-Id: $ID" http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/uploads/$ID/progress

ID is any unguessable word, such as a random UUID: whoever knows it may ask.
"""

from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from upload_progress import Connection, Identity, ProgressTracker, UploadNotFound
from upload_progress._model.codec import encode_json
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.identity import CapabilityIdentity

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

tracker = ProgressTracker()


def authenticate(_connection: Connection) -> Identity:
    return CapabilityIdentity()


async def files(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["method"] == "GET":
        await progress(scope["path"], send)
    else:
        await answer(send, 200, b'{"bytes": %d}' % await count(receive))


async def live(receive: Receive, send: Send) -> None:
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
        await answer(send, 404, b"{}")
    else:
        await answer(send, 200, encode_json(snapshot))


async def count(receive: Receive) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = UploadProgressMiddleware(files, tracker=tracker, authenticate=authenticate)

if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
