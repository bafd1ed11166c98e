"""File server for `PUT`, in one request or several; curl resumes by Content-Range.

Run:
    pip install 'upload-progress[starlette]' uvicorn
    python examples/generic_put.py --port 8000

Upload a file, interrupt it with Ctrl-C, read the offset N, and resume:
    ID="Upload-Id: my-upload"
    curl -u alice:alice -H "$ID" --limit-rate 2M -T big.bin http://127.0.0.1:8000/files/
    curl -u alice:alice -I http://127.0.0.1:8000/files/big.bin        # Upload-Offset: N
    curl -u alice:alice -H "$ID" -T big.bin -C N http://127.0.0.1:8000/files/

Read the progress in another terminal:
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress

The users are alice and bob; the password is the name. Source: RFC 9110, section 14.4.
"""

import hashlib
import hmac
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from upload_progress import Connection, Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import basic, progress_mount

USERS = ("alice", "bob")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", re.ASCII)
RANGE = re.compile(r"bytes (?:\*|(\d{1,18})-(\d{1,18}))/(\d{1,18})", re.ASCII)


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


def user_of(request: Request) -> str:
    identity = authenticate(Connection(request.scope))
    if not isinstance(identity, Identity):
        raise HTTPException(401, "sign in as alice or bob", {"www-authenticate": "Basic"})
    return identity.id


class Files:
    """The files of each user: partial files in ``incoming``, complete files in ``files``."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.locked = set[Path]()

    async def put(self, request: Request) -> Response:
        partial, complete = self.paths(request)
        first, total = parse_content_range(request)
        with self.lock(partial):
            if first == 0:
                partial.unlink(missing_ok=True)
            offset = size_of(partial)
            if first is None:
                return resume_incomplete(offset)
            if first != offset:
                raise HTTPException(416, "wrong offset", {"upload-offset": str(offset)})
            offset = await append(partial, request)
            if total is not None and offset < total:
                return resume_incomplete(offset)
            if total is not None and offset > total:
                partial.unlink()
                raise HTTPException(400, "the body is longer than announced")
            async with current_upload(request).stage("hashing"):
                sha256 = await anyio.to_thread.run_sync(sha256_of, partial)
            partial.replace(complete)
        return JSONResponse({"name": complete.name, "bytes": offset, "sha256": sha256}, 201)

    async def get(self, request: Request) -> Response:
        partial, complete = self.paths(request)
        if request.method == "HEAD" and partial.is_file():
            return Response(status_code=204, headers={"upload-offset": str(size_of(partial))})
        if not complete.is_file():
            raise HTTPException(404, "there is no such file")
        return FileResponse(complete, media_type="application/octet-stream")

    def paths(self, request: Request) -> tuple[Path, Path]:
        name, root = request.path_params["name"], self.data / user_of(request)
        if not NAME.fullmatch(name):
            raise HTTPException(400, "a file name has 1 to 200 letters, digits or ._+-")
        for folder in (root / "incoming", root / "files"):
            folder.mkdir(parents=True, exist_ok=True)
        return root / "incoming" / name, root / "files" / name

    @contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Allow one request at a time to write a file."""
        if path in self.locked:
            raise HTTPException(409, "another request is writing this file")
        self.locked.add(path)
        try:
            yield
        finally:
            self.locked.remove(path)


def parse_content_range(request: Request) -> tuple[int | None, int | None]:
    """Return the offset of the body, None for a query (`bytes */N`), and the total size."""
    header = request.headers.get("content-range")
    if header is None:
        return 0, None
    match = RANGE.fullmatch(header)
    if match is None or (match[1] and not int(match[1]) <= int(match[2]) < int(match[3])):
        raise HTTPException(400, "Content-Range is malformed")
    return int(match[1]) if match[1] else None, int(match[3])


async def append(path: Path, request: Request) -> int:
    """Append the body to a file and return its size; an interrupted body stays for a resume."""
    async with await anyio.open_file(path, "ab") as file:
        async for chunk in request.stream():
            await file.write(chunk)
        return await file.tell()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resume_incomplete(offset: int) -> Response:
    """Return 308 with `Range`, as Google's resumable uploads do, and `Upload-Offset`."""
    received = {"range": f"bytes=0-{offset - 1}"} if offset else {}
    return Response(status_code=308, headers={"upload-offset": str(offset), **received})


def create_app(data: Path) -> Starlette:
    tracker, files = ProgressTracker(), Files(data)
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/files/{name}", files.put, methods=["PUT"]),
            Route("/files/{name}", files.get, methods=["GET", "HEAD"]),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    parser = ArgumentParser(description="File server for PUT with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of received files")
    options = parser.parse_args()
    uvicorn.run(create_app(options.data), port=options.port)
