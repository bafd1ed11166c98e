"""The demo application: a small artifact server with upload progress.

It is also an example: the middleware counts bytes, the mounted routes report progress, and both
share one authenticator.
"""

from pathlib import Path
from typing import Final

from anyio import to_thread
from attrs import frozen
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.demo.authentication import DemoSessionMiddleware, authenticate, require_user
from upload_progress.demo.files import FileStorage, safe_name
from upload_progress.demo.pages import page_routes
from upload_progress.demo.responses import EXCEPTION_HANDLERS, FILE_NOT_FOUND, json_response
from upload_progress.demo.shutdown import RunningUploads
from upload_progress.demo.uploads import FileReceiver
from upload_progress.settings import Settings, settings_from_environment
from upload_progress.starlette import progress_mount
from upload_progress.tracker import ProgressTracker

__all__ = ["MAX_BODY_BYTES", "create_app"]

MAX_BODY_BYTES: Final = 20_000_000_000
_NO_SETTINGS: Final = settings_from_environment({})


def create_app(
    tracker: ProgressTracker,
    *,
    root: Path,
    secret_key: str,
    bytes_per_second: int | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    running_uploads: RunningUploads | None = None,
    settings: Settings = _NO_SETTINGS,
) -> Starlette:
    """Create the demo application.

    Args:
        tracker: Tracks the uploads.
        root: The folder of received files.
        secret_key: Signs the session cookies.
        bytes_per_second: The rate at which each upload is read; None for no limit.
        max_body_bytes: The largest accepted request body.
        running_uploads: Interrupts uploads when the server shuts down.
        settings: Options of the middleware and the routes.
    """
    storage = FileStorage(root)
    storage.prepare()
    receiver = FileReceiver(storage, max_body_bytes, bytes_per_second)
    files = _FileEndpoints(storage, receiver, running_uploads or RunningUploads())
    return Starlette(
        routes=[
            *page_routes(tracker.config.mount_path),
            Route("/files", require_user(files.list), methods=["GET"]),
            Route("/files", require_user(files.post), methods=["POST"]),
            Route("/files/{name}", require_user(files.get), methods=["GET"]),
            Route("/files/{name:path}", require_user(files.put), methods=["PUT"]),
            progress_mount(tracker, authenticate=authenticate, **settings.routes),
        ],
        middleware=[
            # Outermost: the authenticator of the next one reads the session.
            Middleware(DemoSessionMiddleware, secret_key=secret_key),
            Middleware(
                UploadProgressMiddleware,
                tracker=tracker,
                authenticate=authenticate,
                **settings.middleware,
            ),
        ],
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=tracker.lifespan,
    )


@frozen
class _FileEndpoints:
    """The endpoints of ``/files``; each user has separate files."""

    storage: FileStorage
    receiver: FileReceiver
    running_uploads: RunningUploads

    async def list(self, _request: Request, user: str) -> Response:
        return json_response(await to_thread.run_sync(self.storage.list, user))

    async def get(self, request: Request, user: str) -> Response:
        name = safe_name(request.path_params["name"])
        path = await to_thread.run_sync(self.storage.find, user, name)
        if path is None:
            return FILE_NOT_FOUND.to_response()
        headers = {
            "cache-control": "no-store",
            # An uploaded file must never run as a page of this server.
            "content-security-policy": "sandbox; default-src 'none'",
            "x-content-type-options": "nosniff",
        }
        return FileResponse(path, 200, headers, "application/octet-stream", filename=name)

    async def put(self, request: Request, user: str) -> Response:
        with self.running_uploads.interruptible():
            # The files of a folder are stored side by side.
            name = request.path_params["name"].replace("/", "_")
            stored = await self.receiver.put(request, user, name)
        return json_response(stored, status=201)

    async def post(self, request: Request, user: str) -> Response:
        with self.running_uploads.interruptible():
            stored = await self.receiver.post(request, user)
        return json_response(stored, status=201)
