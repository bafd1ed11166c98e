"""S3 gateway: boto3 uploads to it, in parallel parts.

Run (with s3_signature.py in the same folder, which verifies the signatures of requests):
    pip install 'upload-progress[starlette]' uvicorn
    python examples/s3_gateway.py --port 8000

Upload a file, and read the progress:
    python -c "import boto3; s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:8000',
        aws_access_key_id='alice', aws_secret_access_key='alice', region_name='us-east-1');
        s3.create_bucket(Bucket='files'); s3.upload_file('big.bin', 'files', 'big.bin')"
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress

The users are alice and bob; the password or secret key is the name. Each user has separate
buckets. URLs are path-style. Source: Amazon S3 API reference.
"""

import hashlib
import hmac
import json
import re
import shutil
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from s3_signature import USERS, signature_identity, verified_body
from upload_progress import Connection, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import basic, first_of, progress_mount

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
UPLOAD = re.compile(r"[0-9a-f]{32}")
PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)
NUMBER = re.compile(r"<PartNumber>\s*(\d{1,5})\s*</PartNumber>")
ETAG = re.compile(r"<ETag>\s*(.*?)\s*</ETag>")
METADATA = "metadata.json"
MAX_PARTS = 10_000
MAX_LIST_BYTES = 4 * 1024 * 1024

Endpoint = Callable[["S3Request"], Awaitable[Response]]


@basic
def password_identity(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


# Programs read the progress with a password, too.
authenticate = first_of(signature_identity, password_identity)


class S3Request(NamedTuple):
    """A request with the paths of its bucket and object."""

    http: Request
    bucket: Path
    key: str

    @property
    def object(self) -> Path:
        """The path of the object; its name is a digest, so that no key is used as a path."""
        return subfolder(self.bucket, "objects") / hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def upload(self) -> Path:
        """The folder of the parts of the multipart upload that the query names."""
        upload_id = self.http.query_params["uploadId"]
        path = self.bucket / "uploads" / upload_id
        if not UPLOAD.fullmatch(upload_id) or not path.is_dir() or key_of(path) != self.key:
            raise HTTPException(404, "NoSuchUpload")
        return path


def subfolder(*parts: str | Path) -> Path:
    path = Path(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def key_of(upload: Path) -> str:
    key: str = json.loads((upload / METADATA).read_text())["key"]
    return key


async def error_response(_request: Request, error: Exception) -> Response:
    """Return an error as S3 does; the detail is an error code of S3."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for no other class
    return xml("Error", element("Code", error.detail), status=error.status_code)


def element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def elements(name: str, *children: str) -> str:
    return f"<{name}>{''.join(children)}</{name}>"


def xml(name: str, *content: str, status: int = 200) -> Response:
    namespace = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if status == 200 else ""
    inner = "".join(content)
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{namespace}>{inner}</{name}>'
    return Response(text, status, media_type="application/xml")


# --- buckets and objects --------------------------------------------------------------------------


async def create_bucket(request: S3Request) -> Response:
    subfolder(request.bucket)
    return Response(headers={"location": f"/{request.bucket.name}"})


async def head_bucket(_request: S3Request) -> Response:
    return Response()


async def put_object(request: S3Request) -> Response:
    etag = await receive(request, request.object)
    content_type = request.http.headers.get("content-type", "binary/octet-stream")
    write_metadata(request.object, request.key, etag, content_type)
    return Response(headers={"etag": f'"{etag}"'})


async def get_object(request: S3Request) -> Response:
    metadata_path = request.object.with_suffix(".json")
    if not metadata_path.is_file():
        raise HTTPException(404, "NoSuchKey")
    metadata = json.loads(metadata_path.read_text())
    return FileResponse(request.object, 200, {"etag": f'"{metadata["etag"]}"'}, metadata["type"])


async def delete_object(request: S3Request) -> Response:
    for path in (request.object, request.object.with_suffix(".json")):
        path.unlink(missing_ok=True)
    return Response(status_code=204)


def write_metadata(path: Path, key: str, etag: str, content_type: str) -> None:
    metadata = {"key": key, "etag": etag, "type": content_type}
    path.with_suffix(".json").write_text(json.dumps(metadata))


async def receive(request: S3Request, path: Path) -> str:
    """Write the body to *path* atomically; return its MD5 digest."""
    partial = subfolder(request.bucket, "incoming") / token_hex(8)
    try:
        digest = hashlib.md5(usedforsecurity=False)
        async with await anyio.open_file(partial, "wb") as file:
            async for chunk in verified_body(request.http):
                digest.update(chunk)
                await file.write(chunk)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


# --- multipart uploads ----------------------------------------------------------------------------


async def create_upload(request: S3Request) -> Response:
    upload = subfolder(request.bucket, "uploads", token_hex(16))
    content_type = request.http.headers.get("content-type", "binary/octet-stream")
    (upload / METADATA).write_text(json.dumps({"key": request.key, "type": content_type}))
    return xml("InitiateMultipartUploadResult", *names(request), element("UploadId", upload.name))


async def put_part(request: S3Request) -> Response:
    """Receive a part; a repeated part replaces the previous one."""
    number = request.http.query_params["partNumber"]
    if not number.isdecimal() or not 1 <= int(number) <= MAX_PARTS:
        raise HTTPException(400, "InvalidArgument")
    part = request.upload / f"{int(number):05}"
    etag = await receive(request, part)
    part.with_suffix(".md5").write_text(etag)
    return Response(headers={"etag": f'"{etag}"'})


async def list_parts(request: S3Request) -> Response:
    parts = [
        elements(
            "Part",
            element("PartNumber", str(int(part.stem))),
            element("ETag", f'"{part.read_text()}"'),
            element("Size", str(part.with_suffix("").stat().st_size)),
        )
        for part in sorted(request.upload.glob("*.md5"))
    ]
    upload_id = element("UploadId", request.upload.name)
    return xml(
        "ListPartsResult", *names(request), upload_id, element("IsTruncated", "false"), *parts
    )


async def list_uploads(request: S3Request) -> Response:
    uploads = [
        elements("Upload", element("Key", key_of(path)), element("UploadId", path.name))
        for path in sorted(subfolder(request.bucket, "uploads").iterdir())
    ]
    bucket = element("Bucket", request.bucket.name)
    is_truncated = element("IsTruncated", "false")
    return xml("ListMultipartUploadsResult", bucket, is_truncated, *uploads)


async def complete(request: S3Request) -> Response:
    """Join the parts that the client lists; the digest of each must match."""
    body = b""
    async for chunk in verified_body(request.http):
        body += chunk
        if len(body) > MAX_LIST_BYTES:
            raise HTTPException(400, "EntityTooLarge")
    upload, digests, paths = request.upload, b"", []
    for number, etag in parse_parts(body.decode("utf-8", "replace")):
        path = upload / f"{number:05}"
        etag_path = path.with_suffix(".md5")
        if not etag_path.is_file() or etag_path.read_text() != etag:
            raise HTTPException(400, "InvalidPart")
        digests += bytes.fromhex(etag)
        paths.append(path)
    await anyio.to_thread.run_sync(join, paths, request.object)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(paths)}"
    content_type = json.loads((upload / METADATA).read_text())["type"]
    write_metadata(request.object, request.key, etag, content_type)
    shutil.rmtree(upload)
    return xml("CompleteMultipartUploadResult", *names(request), element("ETag", f'"{etag}"'))


def parse_parts(text: str) -> list[tuple[int, str]]:
    """Return the part numbers and digests of the XML list, which must be in order."""
    parts = []
    for part in PART.findall(text):
        number, etag = NUMBER.search(part), ETAG.search(part)
        if number is None or etag is None:
            raise HTTPException(400, "MalformedXML")
        parts.append((int(number[1]), unescape(etag[1]).strip('"')))
    if not parts:
        raise HTTPException(400, "MalformedXML")
    if any(part[0] >= following[0] for part, following in pairwise(parts)):
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


async def abort(request: S3Request) -> Response:
    shutil.rmtree(request.upload)
    return Response(status_code=204)


def names(request: S3Request) -> tuple[str, str]:
    return element("Bucket", request.bucket.name), element("Key", request.key)


# --- routing --------------------------------------------------------------------------------------

BUCKET_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("PUT", ""): create_bucket,
    ("HEAD", ""): head_bucket,
    ("GET", "uploads"): list_uploads,
}
OBJECT_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("PUT", ""): put_object,
    ("GET", ""): get_object,
    ("HEAD", ""): get_object,
    ("DELETE", ""): delete_object,
    ("POST", "uploads"): create_upload,
    ("PUT", "uploadId"): put_part,
    ("GET", "uploadId"): list_parts,
    ("POST", "uploadId"): complete,
    ("DELETE", "uploadId"): abort,
}


def endpoint_for(data: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of all requests; S3 distinguishes them by method and query."""

    async def call(http: Request) -> Response:
        identity = signature_identity(Connection(http.scope))
        if identity is None:
            raise HTTPException(403, "SignatureDoesNotMatch")
        name, key = http.path_params["bucket"], http.path_params.get("key", "")
        if not BUCKET.fullmatch(name):
            raise HTTPException(400, "InvalidBucketName")
        request = S3Request(http, data / identity.id / name, key)
        query = next((name for name in ("uploads", "uploadId") if name in http.query_params), "")
        endpoints = OBJECT_ENDPOINTS if key else BUCKET_ENDPOINTS
        endpoint = endpoints.get((http.method, query))
        if endpoint is None or "x-amz-copy-source" in http.headers:
            raise HTTPException(501, "NotImplemented")
        if endpoint is not create_bucket and not request.bucket.is_dir():
            raise HTTPException(404, "NoSuchBucket")
        return await endpoint(request)

    return call


def create_app(data: Path) -> Starlette:
    tracker, endpoint = ProgressTracker(), endpoint_for(data)
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/{bucket}", endpoint, methods=methods),
            Route("/{bucket}/{key:path}", endpoint, methods=methods),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        exception_handlers={HTTPException: error_response},
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    parser = ArgumentParser(description="S3 gateway with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of received files")
    options = parser.parse_args()
    uvicorn.run(create_app(options.data), port=options.port)
