"""FastAPI: an async endpoint that shows what it does, and a sync one.

python examples/fastapi_app.py --port 8000
curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
curl -u alice:alice -F file=@big.bin http://127.0.0.1:8000/forms
curl -u alice:alice http://127.0.0.1:8000/uploads/progress
"""

import hashlib
import hmac
from argparse import ArgumentParser

import anyio
import uvicorn
from fastapi import FastAPI, Request, UploadFile

from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import basic, progress_mount

PASSWORDS = {"alice": "alice", "bob": "bob"}
PIECE_BYTES = 1024 * 1024


@basic
def authenticate(name: str, password: str) -> bool:
    return hmac.compare_digest(PASSWORDS.get(name, "").encode(), password.encode())


tracker = ProgressTracker()
app = FastAPI(lifespan=tracker.lifespan)
app.add_middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
app.router.routes.append(progress_mount(tracker, authenticate=authenticate))


@app.put("/files/{name}")
async def put(name: str, request: Request) -> dict[str, str]:
    upload, digest = current_upload(request), hashlib.sha256()
    pieces = [transfer_head async for transfer_head in request.stream()]
    async with upload.stage("hashing", total=len(pieces)) as stage:
        for transfer_head in pieces:
            await anyio.to_thread.run_sync(digest.update, transfer_head)
            stage.advance()
    upload.set(metadata={"sha256": digest.hexdigest()})
    return {"name": name, "sha256": digest.hexdigest()}


@app.post("/forms")
def post(file: UploadFile) -> dict[str, str | int | None]:
    return {"name": file.filename, "bytes": file.size}


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
