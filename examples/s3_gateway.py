"""A gateway that speaks S3: boto3 sends to it, in parallel parts.

python examples/s3_gateway.py --port 8000
python -c "import boto3; s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:8000',
    aws_access_key_id='alice', aws_secret_access_key='alice', region_name='us-east-1');
    s3.create_bucket(Bucket='files'); s3.upload_file('big.bin', 'files', 'big.bin')"
curl -u alice:alice http://127.0.0.1:8000/uploads/progress

Each user has buckets of their own. Requests are signed (version 4); the progress may be asked for
with a password as well. Addresses are path-style. Source: the Amazon S3 API reference.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from common import Slow, append, authenticate, digest_of, folder, serve
from s3_signature import body_of, signed
from upload_progress import Connection, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import first_of, progress_mount

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
UPLOAD = re.compile(r"[0-9a-f]{32}")
PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)
NUMBER = re.compile(r"<PartNumber>\s*(\d{1,5})\s*</PartNumber>")
ETAG = re.compile(r"<ETag>\s*(.*?)\s*</ETag>")
MOST_PARTS = 10_000
LARGEST_LIST_BYTES = 4 * 1024 * 1024

Endpoint = Callable[["Asked"], Awaitable[Response]]


class Asked(NamedTuple):
    """A request, and the places it is about."""

    request: Request
    bucket: Path
    key: str

    @property
    def object(self) -> Path:
        """Where the object is: its key is a digest's text, so no key is a path."""
        return folder(self.bucket, "objects") / hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def upload(self) -> Path:
        """Where the parts are of the upload that the query names."""
        upload_id = self.request.query_params["uploadId"]
        path = self.bucket / "uploads" / upload_id
        if not UPLOAD.fullmatch(upload_id) or not path.is_dir() or key_of(path) != self.key:
            raise HTTPException(404, "NoSuchUpload")
        return path


def key_of(upload: Path) -> str:
    key: str = json.loads((upload / "facts").read_text())["key"]
    return key


async def refuse(_request: Request, error: Exception) -> Response:
    """Answer in the words of S3: the detail is one of its codes."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    return xml("Error", element("Code", error.detail), status=error.status_code)


def element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def elements(name: str, *inner: str) -> str:
    return f"<{name}>{''.join(inner)}</{name}>"


def xml(name: str, *content: str, status: int = 200) -> Response:
    space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if status == 200 else ""
    inner = "".join(content)
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{space}>{inner}</{name}>'
    return Response(text, status, media_type="application/xml")


# --- buckets and objects --------------------------------------------------------------------------


async def make_bucket(asked: Asked) -> Response:
    folder(asked.bucket)
    return Response(headers={"location": f"/{asked.bucket.name}"})


async def find_bucket(_asked: Asked) -> Response:
    return Response()


async def put_object(asked: Asked) -> Response:
    etag = await receive(asked, asked.object)
    kind = asked.request.headers.get("content-type", "binary/octet-stream")
    describe(asked.object, asked.key, etag, kind)
    return Response(headers={"etag": f'"{etag}"'})


async def get_object(asked: Asked) -> Response:
    note = asked.object.with_suffix(".facts")
    if not note.is_file():
        raise HTTPException(404, "NoSuchKey")
    facts = json.loads(note.read_text())
    return FileResponse(asked.object, 200, {"etag": f'"{facts["etag"]}"'}, facts["type"])


async def delete_object(asked: Asked) -> Response:
    for path in (asked.object, asked.object.with_suffix(".facts")):
        path.unlink(missing_ok=True)
    return Response(status_code=204)


def describe(path: Path, key: str, etag: str, kind: str) -> None:
    facts = {"key": key, "etag": etag, "type": kind}
    path.with_suffix(".facts").write_text(json.dumps(facts))


async def receive(asked: Asked, path: Path) -> str:
    """Write the body to *path*, which appears when it is whole; return its MD5."""
    partial = folder(asked.bucket, "incoming") / token_hex(8)
    try:
        await append(partial, body_of(asked.request))
        etag = await digest_of(partial, "md5")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return etag


# --- uploads in parts -----------------------------------------------------------------------------


async def begin(asked: Asked) -> Response:
    upload = folder(asked.bucket, "uploads", token_hex(16))
    kind = asked.request.headers.get("content-type", "binary/octet-stream")
    (upload / "facts").write_text(json.dumps({"key": asked.key, "type": kind}))
    return xml("InitiateMultipartUploadResult", *names(asked), element("UploadId", upload.name))


async def put_part(asked: Asked) -> Response:
    """Take a part; one that comes again takes the place of the one before."""
    number = asked.request.query_params["partNumber"]
    if not number.isdecimal() or not 1 <= int(number) <= MOST_PARTS:
        raise HTTPException(400, "InvalidArgument")
    part = asked.upload / f"{int(number):05}"
    etag = await receive(asked, part)
    part.with_suffix(".md5").write_text(etag)
    return Response(headers={"etag": f'"{etag}"'})


async def list_parts(asked: Asked) -> Response:
    parts = [
        elements(
            "Part",
            element("PartNumber", str(int(part.stem))),
            element("ETag", f'"{part.read_text()}"'),
            element("Size", str(part.with_suffix("").stat().st_size)),
        )
        for part in sorted(asked.upload.glob("*.md5"))
    ]
    upload_id = element("UploadId", asked.upload.name)
    return xml("ListPartsResult", *names(asked), upload_id, element("IsTruncated", "false"), *parts)


async def list_uploads(asked: Asked) -> Response:
    uploads = [
        elements("Upload", element("Key", key_of(path)), element("UploadId", path.name))
        for path in sorted(folder(asked.bucket, "uploads").iterdir())
    ]
    bucket, end = element("Bucket", asked.bucket.name), element("IsTruncated", "false")
    return xml("ListMultipartUploadsResult", bucket, end, *uploads)


async def complete(asked: Asked) -> Response:
    """Put the parts together that the client lists; each must be the one it sent."""
    body = b""
    async for chunk in body_of(asked.request):
        body += chunk
        if len(body) > LARGEST_LIST_BYTES:
            raise HTTPException(400, "EntityTooLarge")
    upload, digests, paths = asked.upload, b"", []
    for number, etag in listed(body.decode("utf-8", "replace")):
        path = upload / f"{number:05}"
        note = path.with_suffix(".md5")
        if not note.is_file() or note.read_text() != etag:
            raise HTTPException(400, "InvalidPart")
        digests += bytes.fromhex(etag)
        paths.append(path)
    await anyio.to_thread.run_sync(join, paths, asked.object)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(paths)}"
    kind = json.loads((upload / "facts").read_text())["type"]
    describe(asked.object, asked.key, etag, kind)
    shutil.rmtree(upload)
    return xml("CompleteMultipartUploadResult", *names(asked), element("ETag", f'"{etag}"'))


def listed(text: str) -> list[tuple[int, str]]:
    """Return the numbers and digests of a client's list, which must be in order."""
    parts = []
    for part in PART.findall(text):
        number, etag = NUMBER.search(part), ETAG.search(part)
        if number is None or etag is None:
            raise HTTPException(400, "MalformedXML")
        parts.append((int(number[1]), unescape(etag[1]).strip('"')))
    if not parts:
        raise HTTPException(400, "MalformedXML")
    if any(this[0] >= following[0] for this, following in pairwise(parts)):
        raise HTTPException(400, "InvalidPartOrder")
    return parts


def join(parts: list[Path], target: Path) -> None:
    """Append the later parts to the first, which becomes the object."""
    first, *others = parts
    with first.open("ab") as file:
        for other in others:
            with other.open("rb") as part:
                shutil.copyfileobj(part, file, 1024 * 1024)
    first.replace(target)


async def abort(asked: Asked) -> Response:
    shutil.rmtree(asked.upload)
    return Response(status_code=204)


def names(asked: Asked) -> tuple[str, str]:
    return element("Bucket", asked.bucket.name), element("Key", asked.key)


# --- which is which -------------------------------------------------------------------------------

BUCKET_CALLS: dict[tuple[str, str], Endpoint] = {
    ("PUT", ""): make_bucket,
    ("HEAD", ""): find_bucket,
    ("GET", "uploads"): list_uploads,
}
OBJECT_CALLS: dict[tuple[str, str], Endpoint] = {
    ("PUT", ""): put_object,
    ("GET", ""): get_object,
    ("HEAD", ""): get_object,
    ("DELETE", ""): delete_object,
    ("POST", "uploads"): begin,
    ("PUT", "uploadId"): put_part,
    ("GET", "uploadId"): list_parts,
    ("POST", "uploadId"): complete,
    ("DELETE", "uploadId"): abort,
}


def calls(data: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of all requests: S3 tells them apart by method and query."""

    async def call(request: Request) -> Response:
        identity = signed(Connection(request.scope))
        if identity is None:
            raise HTTPException(403, "SignatureDoesNotMatch")
        name, key = request.path_params["bucket"], request.path_params.get("key", "")
        if not BUCKET.fullmatch(name):
            raise HTTPException(400, "InvalidBucketName")
        asked = Asked(request, data / identity.id / name, key)
        word = next((word for word in ("uploads", "uploadId") if word in request.query_params), "")
        endpoint = (OBJECT_CALLS if key else BUCKET_CALLS).get((request.method, word))
        if endpoint is None or "x-amz-copy-source" in request.headers:
            raise HTTPException(501, "NotImplemented")
        if endpoint is not make_bucket and not asked.bucket.is_dir():
            raise HTTPException(404, "NoSuchBucket")
        return await endpoint(asked)

    return call


def create_app(data: Path, slow: float | None = None) -> Starlette:
    tracker, who = ProgressTracker(), first_of(signed, authenticate)
    follow = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=who)
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=who),
            Route("/{bucket}", calls(data), methods=methods),
            Route("/{bucket}/{key:path}", calls(data), methods=methods),
        ],
        middleware=[follow, Middleware(Slow, bytes_per_second=slow)],
        exception_handlers={HTTPException: refuse},
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    serve(create_app, __doc__)
