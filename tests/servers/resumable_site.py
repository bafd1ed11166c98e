"""Server for browser tests that keeps parts of files on disk, so that it can be restarted.

Below ``/files/``, uploads go on by ``Content-Range`` (examples/generic_put.py); below ``/tus/``, by
tus 1.0.0. ``/whole/{name}`` ignores ``Content-Range``, and stores the part as the file.

python tests/servers/resumable_site.py FOLDER BYTES_PER_SECOND
"""

from __future__ import annotations

import importlib
import sys
import uuid
from functools import partial
from pathlib import Path

import uvicorn
from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from upload_progress.demo.rate_limit import RateLimit


@frozen
class TusFiles:
    """Uploads of tus: an upload and its length are two files."""

    folder: Path

    async def create(self, request: Request) -> Response:
        name = uuid.uuid4().hex
        (self.folder / name).touch()
        (self.folder / f"{name}.length").write_text(request.headers["upload-length"])
        return Response(status_code=201, headers={"location": f"/tus/{name}"})

    async def offset(self, request: Request) -> Response:
        path = self.folder / request.path_params["name"]
        if not path.is_file():
            return Response(status_code=404)
        length = path.with_suffix(".length").read_text()
        return Response(
            headers={"upload-offset": str(path.stat().st_size), "upload-length": length}
        )

    async def append(self, request: Request) -> Response:
        path = self.folder / request.path_params["name"]
        if path.stat().st_size != int(request.headers["upload-offset"]):
            return Response(status_code=409)
        with path.open("ab") as file:
            async for chunk in request.stream():
                file.write(chunk)
                file.flush()
        return Response(status_code=204, headers={"upload-offset": str(path.stat().st_size)})


async def store_whole(folder: Path, request: Request) -> Response:
    (folder / request.path_params["name"]).write_bytes(await request.body())
    return Response(status_code=201)


def main() -> None:
    folder, bytes_per_second = Path(sys.argv[1]), float(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    app = importlib.import_module("examples.generic_put").create_app(folder)
    tus = TusFiles(folder)
    app.router.routes += [
        Route("/tus/", tus.create, methods=["POST"]),
        Route("/tus/{name}", tus.offset, methods=["HEAD"]),
        Route("/tus/{name}", tus.append, methods=["PATCH"]),
        Route("/whole/{name}", partial(store_whole, folder), methods=["PUT"]),
    ]

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        rate_limit = RateLimit(bytes_per_second)

        async def receive_slowly() -> Message:
            message = await receive()
            await rate_limit.wait(len(message.get("body", b"")))
            return message

        await app(scope, receive_slowly, send)

    # Not after the uploads that are running.
    uvicorn.run(limited, port=0, timeout_graceful_shutdown=0)


if __name__ == "__main__":
    main()
