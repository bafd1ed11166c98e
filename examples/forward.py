"""A gateway: it sends each upload on while it arrives, and shows how much of it has been stored.

Run a storage that accepts PUT, such as another example, and the gateway:
    pip install 'upload-progress[client,starlette]' uvicorn
    python examples/generic_put.py --port 8001
    python examples/forward.py --port 8000 --storage http://127.0.0.1:8001/files

Upload, and read the progress: the storage gets 1 MB a second.
    curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
    curl -u alice:alice http://127.0.0.1:8000/uploads/one/progress

The user is alice, and the password is alice.
"""

from argparse import ArgumentParser
from collections.abc import AsyncIterator

import anyio
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from upload_progress.asgi import current_upload
from upload_progress.starlette import basic, upload_progress_app

parser = ArgumentParser(description="A gateway that shows how much of an upload is stored.")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--storage", default="http://127.0.0.1:8001/files")
parser.add_argument("--bytes-per-second", type=int, default=1_000_000)
options = parser.parse_args()


async def slowly(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield *chunks* as a slow storage takes them."""
    async for chunk in chunks:
        yield chunk
        await anyio.sleep(len(chunk) / options.bytes_per_second)


async def forward(request: Request) -> Response:
    """Send a file to the storage while it arrives."""
    chunks = current_upload(request).pass_on(request.stream())
    headers = {
        "content-length": request.headers["content-length"],
        "authorization": request.headers["authorization"],
    }
    address = f"{options.storage}/{request.path_params['name']}"
    async with httpx2.AsyncClient(timeout=60) as http:
        answer = await http.put(address, content=slowly(chunks), headers=headers)
    return Response(status_code=answer.status_code)


site = Starlette(routes=[Route("/files/{name}", forward, methods=["PUT"])])
app = upload_progress_app(
    site, authenticate=basic(lambda name, password: name == password == "alice")
)

if __name__ == "__main__":
    uvicorn.run(app, port=options.port)
