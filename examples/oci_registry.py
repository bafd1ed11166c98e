"""A registry for container images and other artifacts: skopeo and oras push to it.

python examples/oci_registry.py --port 8000
skopeo copy --dest-creds alice:alice --dest-tls-verify=false \
    dir:IMAGE docker://127.0.0.1:8000/alice/app:1
curl -u alice:alice http://127.0.0.1:8000/uploads/progress

alice and bob read everything, and push below their own name. The blobs of a repository are a
group of uploads, named after it. Source: OCI distribution specification 1.1.
"""

import hashlib
import json
import re
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

from attrs import frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from common import Slow, append, authenticate, digest_of, folder, serve, user_of
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import progress_mount

WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"(?=.{{1,200}}\Z){WORD}(?:/{WORD})*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
SESSION = re.compile(r"[0-9a-f]{32}")
RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-\d{1,18}(?:/(?:\d+|\*))?", re.ASCII)
LARGEST_MANIFEST_BYTES = 4 * 1024 * 1024


@frozen
class Repository:
    """Where a repository keeps its blobs, manifests, tags, and what is arriving."""

    name: str
    root: Path

    @classmethod
    def named(cls, name: str, data: Path) -> "Repository":
        check(REPOSITORY, name, "NAME_INVALID")
        return cls(name, folder(data, quote(name, safe="")))

    def blob(self, digest: str) -> Path:
        return folder(self.root, "blobs") / check(DIGEST, digest, "DIGEST_INVALID")

    def session(self, session: str) -> Path:
        return folder(self.root, "uploads") / check(SESSION, session, "BLOB_UPLOAD_UNKNOWN")

    def tag(self, tag: str) -> Path:
        return folder(self.root, "tags") / check(TAG, tag, "TAG_INVALID")

    def manifest(self, reference: str) -> Path:
        """Return where the manifest of that digest, or of that tag, is."""
        if ":" not in reference:
            tag = self.tag(reference)
            reference = tag.read_text() if tag.is_file() else "sha256:" + 64 * "0"
        return folder(self.root, "manifests") / check(DIGEST, reference, "DIGEST_INVALID")

    def has_all_of(self, manifest: dict[str, Any]) -> bool:
        """Tell whether everything is here that *manifest* names."""
        blobs = [each["digest"] for each in manifest.get("layers", ())]
        blobs += [each["digest"] for each in [manifest.get("config")] if isinstance(each, dict)]
        others = [each["digest"] for each in manifest.get("manifests", ())]
        return all(path.is_file() for path in [*map(self.blob, blobs), *map(self.manifest, others)])


def check(pattern: re.Pattern[str], text: str, code: str) -> str:
    if not pattern.fullmatch(text):
        raise HTTPException(400, code)
    return text


async def refuse(_request: Request, error: Exception) -> Response:
    """Answer in the specification's words: the detail is one of its codes."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    code = "UNAUTHORIZED" if error.status_code == 401 else error.detail
    return JSONResponse({"errors": [{"code": code}]}, error.status_code, error.headers)


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
        """Greet; with a 401, clients learn that they have to sign in."""
        user_of(request)
        return JSONResponse({})

    async def begin(self, request: Request) -> Response:
        """Begin an upload; or take a blob in one request, or from another repository."""
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
            return await self.finish(request, repository, path)
        return accepted(repository, path)

    async def upload(self, request: Request) -> Response:
        """Go on with an upload, finish it, ask how far it is, or give it up."""
        repository = self.repository(request)
        path = repository.session(request.path_params["session"])
        if not path.is_file():
            raise HTTPException(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "PUT":
            return await self.finish(request, repository, path)
        if request.method == "DELETE":
            path.unlink()
            return Response(status_code=204)
        if request.method == "PATCH":
            await self.receive(request, repository, path)
        return accepted(repository, path, 202 if request.method == "PATCH" else 204)

    async def receive(self, request: Request, repository: Repository, path: Path) -> None:
        current_upload(request).set(group=repository.name)
        text = request.headers.get("content-range")
        found = RANGE.fullmatch(text) if text else None
        if text and (found is None or int(found[1]) != path.stat().st_size):
            raise HTTPException(416, "BLOB_UPLOAD_INVALID", {"range": extent(path)})
        await append(path, request.stream())

    async def finish(self, request: Request, repository: Repository, path: Path) -> Response:
        digest = request.query_params.get("digest", "")
        blob = repository.blob(digest)
        await self.receive(request, repository, path)
        async with current_upload(request).stage("verifying"):
            found = f"sha256:{await digest_of(path)}"
        if found != digest:
            path.unlink()
            raise HTTPException(400, "DIGEST_INVALID")
        path.replace(blob)
        return created(repository, "blobs", digest)

    async def blob(self, request: Request) -> Response:
        path = self.repository(request).blob(request.path_params["digest"])
        return give(path, "application/octet-stream", "BLOB_UNKNOWN")

    async def manifest(self, request: Request) -> Response:
        repository, reference = self.repository(request), request.path_params["reference"]
        if request.method == "PUT":
            return await self.take_manifest(request, repository, reference)
        path = repository.manifest(reference)
        kind = path.with_suffix(".type")
        media_type = kind.read_text() if kind.is_file() else "application/json"
        return give(path, media_type, "MANIFEST_UNKNOWN")

    async def take_manifest(
        self, request: Request, repository: Repository, reference: str
    ) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_MANIFEST_BYTES:
                raise HTTPException(413, "SIZE_INVALID")
        try:
            is_whole = repository.has_all_of(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HTTPException(400, "MANIFEST_INVALID") from error
        if not is_whole:
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
        """Delete a manifest by its digest, or a tag only."""
        repository, reference = self.repository(request), request.path_params["reference"]
        is_tag = ":" not in reference
        path = repository.tag(reference) if is_tag else repository.manifest(reference)
        return remove(path, "MANIFEST_UNKNOWN")

    async def tags(self, request: Request) -> Response:
        repository, query = self.repository(request), request.query_params
        names = sorted(path.name for path in folder(repository.root, "tags").iterdir())
        after = [name for name in names if name > query.get("last", "")]
        page = after[: int(query["n"])] if query.get("n", "").isdecimal() else after
        headers = {}
        if page and page != after:
            address = f"/v2/{repository.name}/tags/list?n={query['n']}&last={page[-1]}"
            headers["link"] = f'<{address}>; rel="next"'
        return JSONResponse({"name": repository.name, "tags": page}, headers=headers)


def extent(path: Path) -> str:
    return f"0-{max(0, path.stat().st_size - 1)}"


def accepted(repository: Repository, path: Path, status: int = 202) -> Response:
    location = f"/v2/{repository.name}/blobs/uploads/{path.name}"
    headers = {"location": location, "range": extent(path), "docker-upload-uuid": path.name}
    return Response(status_code=status, headers=headers)


def created(repository: Repository, kind: str, digest: str) -> Response:
    location = f"/v2/{repository.name}/{kind}/{digest}"
    return Response(
        status_code=201, headers={"location": location, "docker-content-digest": digest}
    )


def give(path: Path, content_type: str, code: str) -> Response:
    """Return a file; Starlette sees to HEAD and Range."""
    if not path.is_file():
        raise HTTPException(404, code)
    return FileResponse(path, 200, {"docker-content-digest": path.name}, content_type)


def remove(path: Path, code: str) -> Response:
    if not path.is_file():
        raise HTTPException(404, code)
    path.unlink()
    return Response(status_code=202)


def create_app(data: Path, slow: float | None = None) -> Starlette:
    tracker, registry = ProgressTracker(), Registry(data)
    follow = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
    at, read = "/v2/{repository:path}", ["GET", "HEAD"]
    session, steps = at + "/blobs/uploads/{session}", ["GET", "PATCH", "PUT", "DELETE"]
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/v2/", registry.version),
            Route(at + "/blobs/uploads/", registry.begin, methods=["POST"]),
            Route(session, registry.upload, methods=steps),
            Route(at + "/blobs/{digest}", registry.blob, methods=read),
            Route(at + "/manifests/{reference}", registry.manifest, methods=[*read, "PUT"]),
            Route(at + "/tags/list", registry.tags),
            Route(at + "/blobs/{digest}", registry.delete_blob, methods=["DELETE"]),
            Route(at + "/manifests/{reference}", registry.delete_manifest, methods=["DELETE"]),
        ],
        middleware=[follow, Middleware(Slow, bytes_per_second=slow)],
        exception_handlers={HTTPException: refuse},
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    serve(create_app, __doc__)
