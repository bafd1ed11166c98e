"""Routes for Starlette and FastAPI: HTTP, event streams and WebSockets.

``progress_mount(tracker, authenticate=…)`` returns a mount at ``tracker.config.mount_path``;
``progress_routes`` returns its routes, for a mount of your own. ``authenticate`` decides which
user sees which uploads; it has no default. ``upload_progress_app`` wraps an application of any
ASGI framework in one line.
"""

from upload_progress._runtime.optional import require

require("starlette", extra="starlette")

from upload_progress.asgi import current_upload
from upload_progress.starlette.application import UploadProgressApp, upload_progress_app
from upload_progress.starlette.auth.authenticators import (
    basic,
    bearer,
    capability,
    first_of,
    user_identity,
)
from upload_progress.starlette.routes import progress_mount, progress_routes

__all__ = [
    "UploadProgressApp",
    "basic",
    "bearer",
    "capability",
    "current_upload",
    "first_of",
    "progress_mount",
    "progress_routes",
    "upload_progress_app",
    "user_identity",
]
