"""A gateway to S3: it stores each upload while it arrives, and shows both in the page.

Run a local S3, and the gateway:
    pip install 'upload-progress[starlette]' boto3 uvicorn 'moto[s3]' flask-cors
    python -m moto.server -p 8001
    python examples/forward_to_s3.py --port 8000 --s3 http://127.0.0.1:8001

Choose a file at http://127.0.0.1:8000, or upload one here: S3 gets 2 MB a second.
    curl -u alice:alice -T big.bin -H "Upload-Id: one" http://127.0.0.1:8000/files/big.bin
    curl -u alice:alice http://127.0.0.1:8000/uploads/one/progress

The user is alice, and the password is alice.
"""

from argparse import ArgumentParser
from collections.abc import AsyncIterator
from pathlib import Path

import boto3
import uvicorn
from anyio import to_thread
from anyio.from_thread import BlockingPortal
from attrs import define, field
from boto3.s3.transfer import TransferConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from upload_progress.asgi import current_upload
from upload_progress.starlette import basic, upload_progress_app

BUCKET = "files"
PAGE = Path(__file__).parent / "web" / "uploads.html"
# The smallest part that S3 accepts: the second hop begins after these bytes.
PART_BYTES = 5 * 1024 * 1024

parser = ArgumentParser(description="A gateway that stores uploads in S3 while they arrive.")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--s3", default="http://127.0.0.1:8001")
parser.add_argument("--bytes-per-second", type=int, default=2_000_000)
options = parser.parse_args()

s3 = boto3.client(
    "s3",
    endpoint_url=options.s3,
    region_name="us-east-1",
    aws_access_key_id="gateway",
    aws_secret_access_key="gateway",
)
s3.create_bucket(Bucket=BUCKET)
# At most three parts are in memory. The rate is as that of a slow storage.
config = TransferConfig(
    multipart_threshold=PART_BYTES,
    multipart_chunksize=PART_BYTES,
    max_concurrency=2,
    max_bandwidth=options.bytes_per_second,
)
config.max_in_memory_upload_chunks = 3


@define
class Body:
    """The body of a request, as a file that boto3 reads in threads of its own.

    If the client is gone, reading raises, so that boto3 aborts the upload to S3.
    """

    chunks: AsyncIterator[bytes]
    portal: BlockingPortal
    buffer: bytearray = field(factory=bytearray)

    def read(self, size: int = -1) -> bytes:
        return self.portal.call(self._read, size)

    async def _read(self, size: int) -> bytes:
        while (size < 0 or len(self.buffer) < size) and (chunk := await anext(self.chunks, None)):
            self.buffer += chunk
        end = len(self.buffer) if size < 0 else size
        result = bytes(self.buffer[:end])
        del self.buffer[:end]
        return result


async def forward(request: Request) -> Response:
    """Store a file in S3 while it arrives."""
    upload, key = current_upload(request), request.path_params["name"]
    async with BlockingPortal() as portal:
        body = Body(request.stream(), portal)
        await to_thread.run_sync(
            lambda: s3.upload_fileobj(body, BUCKET, key, Callback=upload.stored, Config=config)
        )
    return Response(status_code=201)


async def page(request: Request) -> Response:
    """Return the page that uploads files and shows how far they are."""
    if "authorization" not in request.headers:
        # The browser asks for the password, and sends it with all requests of the page.
        return Response(status_code=401, headers={"www-authenticate": "Basic"})
    return FileResponse(PAGE)


site = Starlette(routes=[Route("/", page), Route("/files/{name}", forward, methods=["PUT"])])
app = upload_progress_app(
    site, authenticate=basic(lambda name, password: name == password == "alice")
)

if __name__ == "__main__":
    uvicorn.run(app, port=options.port)
