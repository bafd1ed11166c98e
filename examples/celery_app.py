"""A task queue: Celery scans uploads after their requests, and the page shows how far it is.

Run a Redis server, then:
    pip install 'upload-progress[redis,starlette]' 'celery[redis]' uvicorn
    cd examples
    celery --app celery_app.queue worker
    python celery_app.py --port 8000

Choose a file at http://127.0.0.1:8000, or upload one here, and follow the upload until the task
has ended it:
    curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
    UPLOAD_PROGRESS_BASIC=alice:alice upload-progress watch http://127.0.0.1:8000/uploads one

The user is alice, and the password is alice. REDIS_URL names another server, FOLDER another folder
for the files.
"""

import hashlib
import os
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import uvicorn
from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from upload_progress import ProgressTracker, UploadCancelled
from upload_progress.asgi import current_upload
from upload_progress.starlette import basic, upload_progress_app

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
FOLDER = Path(os.environ.get("FOLDER", tempfile.gettempdir()))
BLOCK_BYTES = 1024 * 1024
SECONDS_PER_BLOCK = float(os.environ.get("SECONDS_PER_BLOCK", "0.1"))
# A worker that is killed loses its uploads after the first time; the queue starts its tasks again
# after the second one, which is longer than the longest task.
LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", "15"))
VISIBILITY_SECONDS = int(os.environ.get("VISIBILITY_SECONDS", "3600"))
PAGE = Path(__file__).parent / "web" / "uploads.html"

# Both processes use the same tracker: one receives uploads, the other goes on with them.
tracker = ProgressTracker.from_url(
    REDIS_URL, namespace="celery-example", lease_seconds=LEASE_SECONDS
)

queue = Celery("celery_app", broker=REDIS_URL)
# A task whose process was killed is started again, and resumes the upload as its next attempt.
queue.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_concurrency=1,
    broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
)


@queue.task  # type: ignore[untyped-decorator]  # Celery has no types
def scan(path: str, token: str) -> None:
    """Compute the hash of a file, as slowly as a virus scanner."""
    digest = hashlib.sha256()
    try:
        with tracker.resume_blocking(token) as upload, Path(path).open("rb") as file:
            with upload.stage("scanning", total=Path(path).stat().st_size) as stage:
                while not upload.is_cancelled and (block := file.read(BLOCK_BYTES)):
                    digest.update(block)
                    time.sleep(SECONDS_PER_BLOCK)
                    stage.advance(len(block))
            upload.set(metadata={"sha256": digest.hexdigest()})
    except UploadCancelled:
        Path(path).unlink()


async def receive(request: Request) -> Response:
    """Store a file, and pass it to the task."""
    with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
        async for chunk in request.stream():
            file.write(chunk)
    token = await current_upload(request).hand_over(expires_seconds=600)
    scan.delay(file.name, token)
    return Response(status_code=202)


async def page(request: Request) -> Response:
    """Return the page that uploads files and shows how far they are."""
    if "authorization" not in request.headers:
        # The browser asks for the password, and sends it with all requests of the page.
        return Response(status_code=401, headers={"www-authenticate": "Basic"})
    return FileResponse(PAGE)


site = Starlette(routes=[Route("/", page), Route("/files/{name}", receive, methods=["PUT"])])
app = upload_progress_app(
    site, tracker=tracker, authenticate=basic(lambda name, password: name == password == "alice")
)

if __name__ == "__main__":
    parser = ArgumentParser(description="Upload server whose uploads a task queue processes.")
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
