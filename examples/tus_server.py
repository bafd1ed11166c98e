"""tus server (tuspyserver in FastAPI): tus-js-client uploads to it and resumes.

Run:
    pip install 'upload-progress[starlette]' fastapi tuspyserver uvicorn
    python examples/tus_server.py --port 8000

Upload from JavaScript, and read the progress:
    new tus.Upload(file, {endpoint: "http://127.0.0.1:8000/files/", parallelUploads: 3, ...})
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress

With parallelUploads, set the header Upload-Id: it makes the parts one upload.
The users are alice and bob; the password is the name.
Source: tus 1.0.0 (https://tus.io/protocols/resumable-upload).
"""

import hmac
import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.responses import FileResponse
from tuspyserver import create_tus_router

from upload_progress import Connection, Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import basic, progress_mount

USERS = ("alice", "bob")
FileOptions = Callable[[dict[str, str]], dict[str, str]]


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


def user_of(request: Request) -> str:
    identity = authenticate(Connection(request.scope))
    if not isinstance(identity, Identity):
        raise HTTPException(401, "sign in as alice or bob", {"www-authenticate": "Basic"})
    return identity.id


def create_app(data: Path) -> FastAPI:
    tracker = ProgressTracker()

    def folder_of(request: Request) -> Path:
        folder = data / user_of(request)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def file_options(request: Request) -> FileOptions:
        """Store the files of each user in a separate folder."""
        folder = str(folder_of(request))
        return lambda _metadata: {"files_dir": folder}

    # Both are FastAPI dependencies; the annotations of create_tus_router do not say so.
    options: Any = {"auth": user_of, "file_dep": file_options}
    router: APIRouter = create_tus_router(prefix="files", **options)

    @router.get("/{uuid}")
    def get(request: Request, uuid: UUID) -> FileResponse:
        """Return a complete file under the name that the client announced."""
        path = folder_of(request) / uuid.hex
        info_path = path.with_suffix(".info")
        info = json.loads(info_path.read_text()) if info_path.is_file() else {}
        if not info or info["offset"] != info["size"] or info["is_partial"]:
            raise HTTPException(404, "there is no such file")
        name = info["metadata"].get("filename", uuid.hex)
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    app = FastAPI(lifespan=tracker.lifespan)
    app.add_middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
    app.include_router(router)
    app.router.routes.append(progress_mount(tracker, authenticate=authenticate))
    return app


if __name__ == "__main__":
    parser = ArgumentParser(description="tus server with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of received files")
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.data), port=arguments.port)
