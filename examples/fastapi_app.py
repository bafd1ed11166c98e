"""FastAPI: an async endpoint that reports a stage, and a sync endpoint with a form.

Run:
    pip install 'upload-progress[starlette]' fastapi python-multipart uvicorn websockets
    python examples/fastapi_app.py --port 8000

Upload, and read the progress:
    curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
    curl -u alice:alice -F file=@big.bin http://127.0.0.1:8000/forms
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress

The users are alice and bob; the password is the name.
"""

import hashlib
import hmac
from argparse import ArgumentParser
from typing import Annotated

import anyio
import uvicorn
from fastapi import Depends, FastAPI, Request, UploadFile

from upload_progress import Upload
from upload_progress.starlette import basic, current_upload, upload_progress_app

USERS = ("alice", "bob")


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


api = FastAPI()


@api.put("/files/{name}")
async def put(
    name: str, request: Request, upload: Annotated[Upload, Depends(current_upload)]
) -> dict[str, str]:
    digest = hashlib.sha256()
    chunks = [chunk async for chunk in request.stream()]
    async with upload.stage("hashing", total=len(chunks)) as stage:
        for chunk in chunks:
            await anyio.to_thread.run_sync(digest.update, chunk)
            stage.advance()
    upload.set(metadata={"sha256": digest.hexdigest()})
    return {"name": name, "sha256": digest.hexdigest()}


@api.post("/forms")
def post(file: UploadFile) -> dict[str, str | int | None]:
    return {"name": file.filename, "bytes": file.size}


app = upload_progress_app(api, authenticate=authenticate)

if __name__ == "__main__":
    parser = ArgumentParser(description="FastAPI with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
