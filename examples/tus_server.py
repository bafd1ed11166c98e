"""A tus server (tuspyserver in FastAPI): tus-js-client sends to it, and resumes.

python examples/tus_server.py --port 8000
new tus.Upload(file, {endpoint: "http://127.0.0.1:8000/files/", parallelUploads: 3, ...})
curl -u alice:alice http://127.0.0.1:8000/uploads/progress

With parallelUploads, a header Upload-Id of your choice makes the parts one upload.
Source: tus 1.0.0 (https://tus.io/protocols/resumable-upload).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.responses import FileResponse
from tuspyserver import create_tus_router

from common import Slow, authenticate, folder, serve, user_of
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import progress_mount

Place = Callable[[dict[str, str]], dict[str, str]]


def create_app(data: Path, slow: float | None = None) -> FastAPI:
    tracker = ProgressTracker()

    def place_of(request: Request) -> Place:
        """Keep each user's uploads in a folder of their own."""
        files = str(folder(data, user_of(request)))
        return lambda _metadata: {"files_dir": files}

    # Its signature says less than it takes: both may ask for the request, as all dependencies.
    options: Any = {"auth": user_of, "file_dep": place_of}
    router: APIRouter = create_tus_router(prefix="files", **options)

    @router.get("/{uuid}")
    def get(request: Request, uuid: UUID) -> FileResponse:
        """Give back what is whole; the name is what the client announced."""
        path = folder(data, user_of(request)) / uuid.hex
        note = path.with_suffix(".info")
        facts = json.loads(note.read_text()) if note.is_file() else {}
        if not facts or facts["offset"] != facts["size"] or facts["is_partial"]:
            raise HTTPException(404, "there is no such file")
        name = facts["metadata"].get("filename", uuid.hex)
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    app = FastAPI(lifespan=tracker.lifespan)
    # The last that is added is the outermost.
    app.add_middleware(Slow, bytes_per_second=slow)
    app.add_middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
    app.include_router(router)
    app.router.routes.append(progress_mount(tracker, authenticate=authenticate))
    return app


if __name__ == "__main__":
    serve(create_app, __doc__)
