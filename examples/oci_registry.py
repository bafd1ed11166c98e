"""OCI registry for container images and other artifacts: skopeo and oras push to it.

Run:
    pip install 'upload-progress[starlette]' uvicorn
    python examples/oci_registry.py --port 8000

Push an image, and read the progress:
    skopeo copy --dest-creds alice:alice --dest-tls-verify=false \
        dir:IMAGE docker://127.0.0.1:8000/alice/app:1
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress

The users are alice and bob; the password is the name. Each reads all repositories and pushes to
repositories under the own name. The blobs of a repository are a group of uploads.
Source: OCI distribution specification 1.1.
"""

import hashlib
import hmac
import json
import re
from argparse import ArgumentParser
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import anyio
import uvicorn
from attrs import frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from upload_progress import Connection, Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import basic, progress_mount

USERS = ("alice", "bob")
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"(?=.{{1,200}}\Z){COMPONENT}(?:/{COMPONENT})*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
SESSION = re.compile(r"[0-9a-f]{32}")
RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-\d{1,18}(?:/(?:\d+|\*))?", re.ASCII)
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


def user_of(request: Request) -> str:
    identity = authenticate(Connection(request.scope))
    if not isinstance(identity, Identity):
        raise HTTPException(401, "UNAUTHORIZED", {"www-authenticate": "Basic"})
    return identity.id


@frozen
class Repository:
    """Paths of the blobs, manifests, tags and partial uploads of a repository."""

    name: str
    root: Path

    @classmethod
    def named(cls, name: str, data: Path) -> "Repository":
        check(REPOSITORY, name, "NAME_INVALID")
        root = data / quote(name, safe="")
        for folder in ("blobs", "manifests", "tags", "uploads"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        return cls(name, root)

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / check(DIGEST, digest, "DIGEST_INVALID")

    def session(self, session: str) -> Path:
        return self.root / "uploads" / check(SESSION, session, "BLOB_UPLOAD_UNKNOWN")

    def tag(self, tag: str) -> Path:
        return self.root / "tags" / check(TAG, tag, "TAG_INVALID")

    def manifest(self, reference: str) -> Path:
        """Return the path of the manifest with that digest or tag."""
        if ":" not in reference:
            tag = self.tag(reference)
            reference = tag.read_text() if tag.is_file() else "sha256:" + 64 * "0"
        return self.root / "manifests" / check(DIGEST, reference, "DIGEST_INVALID")

    def has_all_of(self, manifest: dict[str, Any]) -> bool:
        """Return whether all blobs and manifests exist to which *manifest* refers."""
        blobs = [each["digest"] for each in manifest.get("layers", ())]
        blobs += [each["digest"] for each in [manifest.get("config")] if isinstance(each, dict)]
        children = [each["digest"] for each in manifest.get("manifests", ())]
        return all(
            path.is_file() for path in [*map(self.blob, blobs), *map(self.manifest, children)]
        )


def check(pattern: re.Pattern[str], text: str, code: str) -> str:
    if not pattern.fullmatch(text):
        raise HTTPException(400, code)
    return text


async def error_response(_request: Request, error: Exception) -> Response:
    """Return an error as specified; the detail is an error code of the specification."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for no other class
    document = {"errors": [{"code": error.detail}]}
    return JSONResponse(document, error.status_code, error.headers)


class Registry:
    """The endpoints of the specification, under ``/v2``."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def repository(self, request: Request) -> Repository:
        name, user = request.path_params["repository"], user_of(request)
        if request.method not in {"GET", "HEAD"} and name.split("/")[0] != user:
            raise HTTPException(403, "DENIED")
        return Repository.named(name, self.data)

    async def version(self, request: Request) -> Response:
        """Confirm API version 2; the 401 makes clients send credentials."""
        user_of(request)
        return JSONResponse({})

    async def start(self, request: Request) -> Response:
        """Start an upload session, receive a blob in one request, or mount an existing blob."""
        repository, query = self.repository(request), request.query_params
        if "mount" in query and "from" in query:
            source = Repository.named(query["from"], self.data).blob(query["mount"])
            if source.is_file():
                target = repository.blob(query["mount"])
                target.unlink(missing_ok=True)
                target.hardlink_to(source)
                return created(repository, "blobs", query["mount"])
        path = repository.session(token_hex(16))
        path.touch()
        if "digest" in query:
            return await self.complete(request, repository, path)
        return accepted(repository, path)

    async def upload(self, request: Request) -> Response:
        """Continue an upload session, complete it, return its offset, or delete it."""
        repository = self.repository(request)
        path = repository.session(request.path_params["session"])
        if not path.is_file():
            raise HTTPException(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "PUT":
            return await self.complete(request, repository, path)
        if request.method == "DELETE":
            path.unlink()
            return Response(status_code=204)
        if request.method == "PATCH":
            await self.receive(request, repository, path)
        return accepted(repository, path, 202 if request.method == "PATCH" else 204)

    async def receive(self, request: Request, repository: Repository, path: Path) -> None:
        current_upload(request).set(group=repository.name)
        header = request.headers.get("content-range")
        match = RANGE.fullmatch(header) if header else None
        if header and (match is None or int(match[1]) != path.stat().st_size):
            raise HTTPException(416, "BLOB_UPLOAD_INVALID", {"range": received_range(path)})
        async with await anyio.open_file(path, "ab") as file:
            async for chunk in request.stream():
                await file.write(chunk)

    async def complete(self, request: Request, repository: Repository, path: Path) -> Response:
        digest = request.query_params.get("digest", "")
        blob = repository.blob(digest)
        await self.receive(request, repository, path)
        async with current_upload(request).stage("verifying"):
            sha256 = await anyio.to_thread.run_sync(sha256_of, path)
        if digest != f"sha256:{sha256}":
            path.unlink()
            raise HTTPException(400, "DIGEST_INVALID")
        path.replace(blob)
        return created(repository, "blobs", digest)

    async def blob(self, request: Request) -> Response:
        path = self.repository(request).blob(request.path_params["digest"])
        return file_response(path, "application/octet-stream", "BLOB_UNKNOWN")

    async def manifest(self, request: Request) -> Response:
        repository, reference = self.repository(request), request.path_params["reference"]
        if request.method == "PUT":
            return await self.put_manifest(request, repository, reference)
        path = repository.manifest(reference)
        type_path = path.with_suffix(".type")
        media_type = type_path.read_text() if type_path.is_file() else "application/json"
        return file_response(path, media_type, "MANIFEST_UNKNOWN")

    async def put_manifest(
        self, request: Request, repository: Repository, reference: str
    ) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_MANIFEST_BYTES:
                raise HTTPException(413, "SIZE_INVALID")
        try:
            is_complete = repository.has_all_of(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HTTPException(400, "MANIFEST_INVALID") from error
        if not is_complete:
            raise HTTPException(404, "MANIFEST_BLOB_UNKNOWN")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if ":" not in reference:
            repository.tag(reference).write_text(digest)
        elif reference != digest:
            raise HTTPException(400, "DIGEST_INVALID")
        path = repository.manifest(digest)
        path.with_suffix(".type").write_text(request.headers.get("content-type", ""))
        path.write_bytes(body)
        return created(repository, "manifests", digest)

    async def delete_blob(self, request: Request) -> Response:
        path = self.repository(request).blob(request.path_params["digest"])
        return remove(path, "BLOB_UNKNOWN")

    async def delete_manifest(self, request: Request) -> Response:
        """Delete a manifest by its digest, or only a tag."""
        repository, reference = self.repository(request), request.path_params["reference"]
        is_tag = ":" not in reference
        path = repository.tag(reference) if is_tag else repository.manifest(reference)
        return remove(path, "MANIFEST_UNKNOWN")

    async def tags(self, request: Request) -> Response:
        repository, query = self.repository(request), request.query_params
        names = sorted(path.name for path in (repository.root / "tags").iterdir())
        remaining = [name for name in names if name > query.get("last", "")]
        page = remaining[: int(query["n"])] if query.get("n", "").isdecimal() else remaining
        headers = {}
        if page and page != remaining:
            url = f"/v2/{repository.name}/tags/list?n={query['n']}&last={page[-1]}"
            headers["link"] = f'<{url}>; rel="next"'
        return JSONResponse({"name": repository.name, "tags": page}, headers=headers)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def received_range(path: Path) -> str:
    return f"0-{max(0, path.stat().st_size - 1)}"


def accepted(repository: Repository, path: Path, status: int = 202) -> Response:
    location = f"/v2/{repository.name}/blobs/uploads/{path.name}"
    headers = {"location": location, "range": received_range(path), "docker-upload-uuid": path.name}
    return Response(status_code=status, headers=headers)


def created(repository: Repository, kind: str, digest: str) -> Response:
    location = f"/v2/{repository.name}/{kind}/{digest}"
    return Response(
        status_code=201, headers={"location": location, "docker-content-digest": digest}
    )


def file_response(path: Path, content_type: str, code: str) -> Response:
    """Return a file; Starlette handles HEAD and Range."""
    if not path.is_file():
        raise HTTPException(404, code)
    return FileResponse(path, 200, {"docker-content-digest": path.name}, content_type)


def remove(path: Path, code: str) -> Response:
    if not path.is_file():
        raise HTTPException(404, code)
    path.unlink()
    return Response(status_code=202)


def create_app(data: Path) -> Starlette:
    tracker, registry = ProgressTracker(), Registry(data)
    prefix, read = "/v2/{repository:path}", ["GET", "HEAD"]
    session_methods = ["GET", "PATCH", "PUT", "DELETE"]
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/v2/", registry.version),
            Route(prefix + "/blobs/uploads/", registry.start, methods=["POST"]),
            Route(prefix + "/blobs/uploads/{session}", registry.upload, methods=session_methods),
            Route(prefix + "/blobs/{digest}", registry.blob, methods=read),
            Route(prefix + "/manifests/{reference}", registry.manifest, methods=[*read, "PUT"]),
            Route(prefix + "/tags/list", registry.tags),
            Route(prefix + "/blobs/{digest}", registry.delete_blob, methods=["DELETE"]),
            Route(prefix + "/manifests/{reference}", registry.delete_manifest, methods=["DELETE"]),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        exception_handlers={HTTPException: error_response},
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    parser = ArgumentParser(description="OCI registry with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of received files")
    options = parser.parse_args()
    uvicorn.run(create_app(options.data), port=options.port)
