"""PUT a file, whole or in pieces; curl resumes it by Content-Range (RFC 9110, section 14.4).

python examples/generic_put.py --port 8000 --slow 2000000
NAMED="Upload-Id: a-name-of-your-choice"
curl -u alice:alice -H "$NAMED" -T big.bin http://127.0.0.1:8000/files/     # and Ctrl-C, half-way
curl -u alice:alice -I http://127.0.0.1:8000/files/big.bin                  # says Upload-Offset: N
curl -u alice:alice -H "$NAMED" -T big.bin -C N http://127.0.0.1:8000/files/
curl -u alice:alice http://127.0.0.1:8000/uploads/progress
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from common import Slow, append, authenticate, digest_of, folder, safe_name, serve, user_of
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import progress_mount

RANGE = re.compile(r"bytes (?:\*|(\d{1,18})-(\d{1,18}))/(\d{1,18})", re.ASCII)


class Files:
    """The files of each user: ``incoming`` while they are not whole, then ``files``."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.busy = set[Path]()

    async def put(self, request: Request) -> Response:
        incoming, whole = self.paths(request)
        first, total = self.place(request)
        with self.alone(incoming):
            if first == 0:
                incoming.unlink(missing_ok=True)
            here = size_of(incoming)
            if first is None:
                return resumable(here)
            if first != here:
                raise HTTPException(416, "that does not follow", {"upload-offset": str(here)})
            here = await append(incoming, request.stream())
            if total is not None and here < total:
                return resumable(here)
            if total is not None and here > total:
                incoming.unlink()
                raise HTTPException(400, "that is more than was announced")
            async with current_upload(request).stage("hashing"):
                sha256 = await digest_of(incoming)
            incoming.replace(whole)
        return JSONResponse({"name": whole.name, "bytes": here, "sha256": sha256}, 201)

    async def get(self, request: Request) -> Response:
        incoming, whole = self.paths(request)
        if request.method == "HEAD" and incoming.is_file():
            return Response(status_code=204, headers={"upload-offset": str(size_of(incoming))})
        if not whole.is_file():
            raise HTTPException(404, "there is no such file")
        return FileResponse(whole, media_type="application/octet-stream")

    def paths(self, request: Request) -> tuple[Path, Path]:
        user, name = user_of(request), safe_name(request.path_params["name"])
        return folder(self.data, user, "incoming") / name, folder(self.data, user, "files") / name

    def place(self, request: Request) -> tuple[int | None, int | None]:
        """Return where the body belongs, None for "tell me", and how long the file will be."""
        text = request.headers.get("content-range")
        if text is None:
            return 0, None
        found = RANGE.fullmatch(text)
        if found is None or (found[1] and not int(found[1]) <= int(found[2]) < int(found[3])):
            raise HTTPException(400, "Content-Range is malformed")
        return int(found[1]) if found[1] else None, int(found[3])

    @contextmanager
    def alone(self, incoming: Path) -> Iterator[None]:
        """Let one request at a time write a file."""
        if incoming in self.busy:
            raise HTTPException(409, "that file is being received")
        self.busy.add(incoming)
        try:
            yield
        finally:
            self.busy.remove(incoming)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def resumable(here: int) -> Response:
    """Say how much is here: as Google's services do, and for people."""
    known = {"range": f"bytes=0-{here - 1}"} if here else {}
    return Response(status_code=308, headers={"upload-offset": str(here), **known})


def create_app(data: Path, slow: float | None = None) -> Starlette:
    tracker, files = ProgressTracker(), Files(data)
    follow = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/files/{name}", files.put, methods=["PUT"]),
            Route("/files/{name}", files.get, methods=["GET", "HEAD"]),
        ],
        middleware=[follow, Middleware(Slow, bytes_per_second=slow)],
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    serve(create_app, __doc__)
