"""The demo application: an artifact server with progress, as small as it goes.

Read it as an example: the middleware counts, the routes answer, and both are told by one
function who is asking.
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
from upload_progress.demo.authentication import authenticator, users_only
from upload_progress.demo.files import FileSpace, safe_name
from upload_progress.demo.pages import page_routes
from upload_progress.demo.responses import HANDLERS, NO_FILE, json_answer
from upload_progress.demo.sessions import Sessions
from upload_progress.demo.shutdown import Stop
from upload_progress.demo.uploads import Receiver
from upload_progress.starlette import progress_mount
from upload_progress.starlette.http import problem_response
from upload_progress.tracker import ProgressTracker

__all__ = ["MOST_BYTES", "create_app"]

MOST_BYTES: Final = 20_000_000_000


def create_app(
    tracker: ProgressTracker,
    *,
    root: Path,
    key: bytes,
    slow_bytes_per_second: int | None = None,
    most_bytes: int = MOST_BYTES,
    stop: Stop | None = None,
) -> Starlette:
    """Return the demo.

    Args:
        tracker: Keeps the progress.
        root: The folder for received files.
        key: Signs the cookies of signed-in browsers.
        slow_bytes_per_second: How fast each upload is read; None for as fast as it comes.
        most_bytes: The largest request body taken.
        stop: Interrupts uploads when the server stops.
    """
    space = FileSpace(root)
    space.prepare()
    sessions = Sessions(key)
    authenticate = authenticator(sessions)
    files = _Files(space, Receiver(space, most_bytes, slow_bytes_per_second), stop or Stop())
    return Starlette(
        routes=[
            *page_routes(sessions, authenticate),
            Route("/files", users_only(authenticate, files.list), methods=["GET"]),
            Route("/files", users_only(authenticate, files.post), methods=["POST"]),
            Route("/files/{name}", users_only(authenticate, files.get), methods=["GET"]),
            Route("/files/{name}", users_only(authenticate, files.put), methods=["PUT"]),
            progress_mount(tracker, authenticate=authenticate),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        exception_handlers=dict(HANDLERS),
        lifespan=tracker.lifespan,
    )


@frozen
class _Files:
    """The endpoints of ``/files``: each user has a space of their own."""

    space: FileSpace
    receiver: Receiver
    stop: Stop

    async def list(self, _request: Request, user: str) -> Response:
        return json_answer(await to_thread.run_sync(self.space.list, user))

    async def get(self, request: Request, user: str) -> Response:
        name = safe_name(request.path_params["name"])
        path = await to_thread.run_sync(self.space.find, user, name)
        if path is None:
            return problem_response(NO_FILE)
        headers = {
            "cache-control": "no-store",
            # Whatever was uploaded must never run as a page of this server.
            "content-security-policy": "sandbox; default-src 'none'",
            "x-content-type-options": "nosniff",
        }
        return FileResponse(path, 200, headers, "application/octet-stream", filename=name)

    async def put(self, request: Request, user: str) -> Response:
        with self.stop.interruptible():
            stored = await self.receiver.put(request, user, request.path_params["name"])
        return json_answer(stored, status=201)

    async def post(self, request: Request, user: str) -> Response:
        with self.stop.interruptible():
            stored = await self.receiver.post(request, user)
        return json_answer(stored, status=201)
