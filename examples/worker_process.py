"""A process for each upload: it reports its work to the server by HTTP, and needs no Python.

Run:
    pip install 'upload-progress[client,starlette]' uvicorn
    python examples/worker_process.py --port 8000

Upload, and follow the upload until its process has ended it:
    curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
    UPLOAD_PROGRESS_BASIC=alice:alice upload-progress watch http://127.0.0.1:8000/uploads one

The user is alice, and the password is alice.
"""

import hashlib
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import anyio
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from upload_progress.asgi import current_upload
from upload_progress.starlette import basic, upload_progress_app

BLOCK_BYTES = 1024 * 1024
SECONDS_PER_BLOCK = 0.05


async def receive(request: Request) -> Response:
    """Store a file, and start a process for it."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        async for chunk in request.stream():
            file.write(chunk)
    upload = current_upload(request)
    token = await upload.hand_over(expires_seconds=60)
    address = f"{request.base_url}uploads/{upload.upload_id}"
    command = [sys.executable, __file__, "--scan", file.name, "--report-to", address]
    # The token is a secret: other users see the arguments of a process, but not its environment.
    environment = {**os.environ, "TOKEN": token}
    process = BackgroundTask(anyio.run_process, command, check=False, env=environment)
    return Response(status_code=202, background=process)


site = Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"])])
app = upload_progress_app(
    site, authenticate=basic(lambda name, password: name == password == "alice")
)


def report(address: str, content: object) -> None:
    """Send a report; 409 means that the upload has ended, as when its owner has cancelled."""
    headers = {"authorization": f"Bearer {os.environ['TOKEN']}"}
    httpx2.patch(address, json=content, headers=headers).raise_for_status()


def scan(path: Path, address: str) -> None:
    """Compute the hash of a file, as slowly as a virus scanner."""
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            time.sleep(SECONDS_PER_BLOCK)
            done += len(block)
            report(address, {"stage": {"name": "scanning", "done": done, "total": size}})
    report(address, {"state": "completed"})


if __name__ == "__main__":
    parser = ArgumentParser(description="Upload server with a process for each upload.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--report-to")
    arguments = parser.parse_args()
    if arguments.scan is None:
        uvicorn.run(app, port=arguments.port)
    else:
        scan(arguments.scan, arguments.report_to)
