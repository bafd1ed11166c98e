"""A Python package index: takes what twine and uv publish, and gives it to pip.

python examples/pypi_server.py --port 8000
twine upload -u alice -p alice --repository-url http://127.0.0.1:8000/legacy/ dist/*
uv publish -u alice -p alice --publish-url http://127.0.0.1:8000/legacy/ dist/*
pip install --index-url http://127.0.0.1:8000/simple/ PROJECT
curl -u alice:alice http://127.0.0.1:8000/uploads/progress

The files of one release are a group if the address says so: .../legacy/?upload_group=1.2.0

Sources: the legacy upload API of PyPI, PEP 503 (index), PEP 691 (index in JSON).
"""

import hmac
import re
import shutil
from html import escape
from pathlib import Path
from secrets import token_hex

import anyio
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from common import Slow, authenticate, digest_of, folder, safe_name, serve, user_of
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.starlette import progress_mount

JSON = "application/vnd.pypi.simple.v1+json"


def normalized(project: str) -> str:
    return re.sub(r"[-_.]+", "-", safe_name(project)).lower()


class Index:
    """``projects/NAME/FILE``, and ``sha256/FILE`` with its digest."""

    def __init__(self, data: Path) -> None:
        self.projects = folder(data, "projects")
        self.digests = folder(data, "sha256")
        self.incoming = folder(data, "incoming")

    async def upload(self, request: Request) -> Response:
        user_of(request)
        # The parser keeps a file of more than 1 MiB on disk, not in memory.
        async with request.form(max_files=1, max_fields=500) as form:
            content, project = form.get("content"), normalized(str(form.get("name", "")))
            if form.get(":action") != "file_upload" or not isinstance(content, UploadFile):
                raise HTTPException(400, "this takes :action=file_upload, with content")
            name = safe_name(content.filename or "")
            if normalized(re.split(r"-\d", name)[0]) != project:
                raise HTTPException(400, "the file is not one of that project")
            async with current_upload(request).stage("storing"):
                said = str(form.get("sha256_digest", ""))
                return await self.keep(content, self.projects / project / name, said)

    async def keep(self, content: UploadFile, path: Path, said: str) -> Response:
        partial = self.incoming / token_hex(8)
        try:
            await anyio.to_thread.run_sync(copy, content, partial)
            sha256 = await digest_of(partial)
            if said and not hmac.compare_digest(said.encode(), sha256.encode()):
                raise HTTPException(400, "the digest does not match")
            if path.exists() and self.digest(path) != sha256:
                raise HTTPException(400, "File already exists, with other content")
            (self.digests / path.name).write_text(sha256)
            partial.replace(folder(path.parent) / path.name)
        finally:
            partial.unlink(missing_ok=True)
        return Response("OK", 200)

    def digest(self, path: Path) -> str:
        return (self.digests / path.name).read_text()

    async def list(self, request: Request) -> Response:
        names = sorted(path.name for path in self.projects.iterdir())
        links = [(name, f"{name}/") for name in names]
        return answer(request, "Simple index", links, {"projects": [{"name": n} for n in names]})

    async def project(self, request: Request) -> Response:
        asked = request.path_params["project"]
        name = normalized(asked)
        if asked != name:
            return RedirectResponse(request.url_for("project", project=name), 301)
        if not (self.projects / name).is_dir():
            raise HTTPException(404, "there is no such project")
        files = [(file, self.digest(file)) for file in sorted((self.projects / name).iterdir())]
        links = [(file.name, f"../../files/{name}/{file.name}#sha256={sha}") for file, sha in files]
        document: dict[str, object] = {
            "name": name,
            "files": [
                {"filename": file.name, "url": link.partition("#")[0], "hashes": {"sha256": sha}}
                for (file, sha), (_, link) in zip(files, links, strict=True)
            ],
        }
        return answer(request, name, links, document)

    async def file(self, request: Request) -> Response:
        project, name = (safe_name(request.path_params[key]) for key in ("project", "name"))
        path = self.projects / project / name
        if not path.is_file():
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type="application/octet-stream")


def copy(content: UploadFile, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(content.file, file, 1024 * 1024)


def answer(
    request: Request, title: str, links: list[tuple[str, str]], document: dict[str, object]
) -> Response:
    if JSON in request.headers.get("accept", ""):
        return JSONResponse({"meta": {"api-version": "1.0"}, **document}, media_type=JSON)
    anchors = "\n".join(f'<a href="{escape(link)}">{escape(text)}</a><br>' for text, link in links)
    return HTMLResponse(f"<!DOCTYPE html>\n<title>{escape(title)}</title>\n{anchors}\n")


def create_app(data: Path, slow: float | None = None) -> Starlette:
    tracker, index = ProgressTracker(), Index(data)
    follow = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
    return Starlette(
        routes=[
            progress_mount(tracker, authenticate=authenticate),
            Route("/legacy/", index.upload, methods=["POST"]),
            Route("/simple/", index.list),
            Route("/simple/{project}/", index.project, name="project"),
            Route("/files/{project}/{name}", index.file),
        ],
        middleware=[follow, Middleware(Slow, bytes_per_second=slow)],
        lifespan=tracker.lifespan,
    )


if __name__ == "__main__":
    serve(create_app, __doc__)
