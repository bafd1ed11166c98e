"""Python package index: twine and uv publish upload to it, pip installs from it.

Run:
    pip install 'upload-progress[starlette]' python-multipart uvicorn
    python examples/pypi_server.py --port 8000

Upload, read the progress, install:
    twine upload -u alice -p alice --repository-url http://127.0.0.1:8000/legacy/ dist/*
    uv publish -u alice -p alice --publish-url http://127.0.0.1:8000/legacy/ dist/*
    curl -u alice:alice http://127.0.0.1:8000/uploads/progress
    pip install --index-url http://127.0.0.1:8000/simple/ PROJECT

Add a query to group the files of a release: .../legacy/?upload_group=1.2.0
The users are alice and bob; the password is the name.
Sources: the legacy upload API of PyPI, PEP 503 (simple index), PEP 691 (index as JSON).
"""

import hashlib
import hmac
import re
import shutil
from argparse import ArgumentParser
from html import escape
from pathlib import Path
from secrets import token_hex

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from upload_progress import Connection, Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import basic, progress_mount

USERS = ("alice", "bob")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", re.ASCII)
JSON = "application/vnd.pypi.simple.v1+json"


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


def safe_name(text: str) -> str:
    """Return *text* if it is a valid file name: no path, not hidden."""
    if not NAME.fullmatch(text):
        raise HTTPException(400, "a name has 1 to 200 letters, digits or ._+-")
    return text


def normalize(project: str) -> str:
    """Return the normalized name of a project (PEP 503)."""
    return re.sub(r"[-_.]+", "-", safe_name(project)).lower()


class Index:
    """Files in ``projects/NAME/FILE``, their digests in ``sha256/FILE``."""

    def __init__(self, data: Path) -> None:
        self.projects, self.digests, self.incoming = (
            data / name for name in ("projects", "sha256", "incoming")
        )
        for folder in (self.projects, self.digests, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)

    async def upload(self, request: Request) -> Response:
        if not isinstance(authenticate(Connection(request.scope)), Identity):
            raise HTTPException(401, "sign in as alice or bob", {"www-authenticate": "Basic"})
        # The parser writes files larger than 1 MiB to disk.
        async with request.form(max_files=1, max_fields=500) as form:
            content, project = form.get("content"), normalize(str(form.get("name", "")))
            if form.get(":action") != "file_upload" or not isinstance(content, UploadFile):
                raise HTTPException(400, "expected :action=file_upload and a file in content")
            name = safe_name(content.filename or "")
            if normalize(re.split(r"-\d", name)[0]) != project:
                raise HTTPException(400, "the file name does not match the project")
            async with current_upload(request).stage("storing"):
                expected = str(form.get("sha256_digest", ""))
                await self.store(content, self.projects / project / name, expected)
        return Response("OK")

    async def store(self, content: UploadFile, path: Path, expected: str) -> None:
        """Store a file once its digest is verified; a stored file never changes."""
        partial = self.incoming / token_hex(8)
        try:
            sha256 = await anyio.to_thread.run_sync(copy, content, partial)
            if expected and not hmac.compare_digest(expected.encode(), sha256.encode()):
                raise HTTPException(400, "the digest does not match")
            if path.exists() and self.digest(path) != sha256:
                raise HTTPException(400, "the file exists with different content")
            (self.digests / path.name).write_text(sha256)
            path.parent.mkdir(exist_ok=True)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def digest(self, path: Path) -> str:
        return (self.digests / path.name).read_text()

    async def list(self, request: Request) -> Response:
        names = sorted(path.name for path in self.projects.iterdir())
        document: dict[str, object] = {"projects": [{"name": name} for name in names]}
        return index_page(request, "Simple index", [(name, f"{name}/") for name in names], document)

    async def project(self, request: Request) -> Response:
        name = normalize(request.path_params["project"])
        if name != request.path_params["project"]:
            return RedirectResponse(request.url_for("project", project=name), 301)
        if not (self.projects / name).is_dir():
            raise HTTPException(404, "there is no such project")
        files = [
            (file.name, f"../../files/{name}/{file.name}", self.digest(file))
            for file in sorted((self.projects / name).iterdir())
        ]
        document: dict[str, object] = {
            "name": name,
            "files": [
                {"filename": file, "url": url, "hashes": {"sha256": sha256}}
                for file, url, sha256 in files
            ],
        }
        links = [(file, f"{url}#sha256={sha256}") for file, url, sha256 in files]
        return index_page(request, name, links, document)

    async def file(self, request: Request) -> Response:
        project, name = (safe_name(request.path_params[key]) for key in ("project", "name"))
        path = self.projects / project / name
        if not path.is_file():
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type="application/octet-stream")


def copy(content: UploadFile, target: Path) -> str:
    """Copy the file to *target* and return its SHA-256 digest."""
    with target.open("w+b") as file:
        shutil.copyfileobj(content.file, file, 1024 * 1024)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def index_page(
    request: Request, title: str, links: list[tuple[str, str]], document: dict[str, object]
) -> Response:
    """Return the index in the requested format: JSON (PEP 691) or HTML (PEP 503)."""
    if JSON in request.headers.get("accept", ""):
        return JSONResponse({"meta": {"api-version": "1.0"}, **document}, media_type=JSON)
    anchors = "\n".join(f'<a href="{escape(url)}">{escape(text)}</a><br>' for text, url in links)
    return HTMLResponse(f"<!DOCTYPE html>\n<title>{escape(title)}</title>\n{anchors}\n")


def create_app(data: Path) -> Starlette:
    tracker, index = ProgressTracker(), Index(data)
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/legacy/", index.upload, methods=["POST"]),
            Route("/simple/", index.list),
            Route("/simple/{project}/", index.project, name="project"),
            Route("/files/{project}/{name}", index.file),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    parser = ArgumentParser(description="Python package index with upload progress.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of received files")
    options = parser.parse_args()
    uvicorn.run(create_app(options.data), port=options.port)
