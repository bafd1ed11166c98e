"""Routes for Starlette and FastAPI: REST, event streams and WebSockets for the owners.

``progress_routes(tracker, authenticate=…)`` goes under a ``Mount`` at ``tracker.config.mount_path``;
``progress_mount`` is that mount. Who may see what is said by ``authenticate``, which there is
no default for.
"""

from upload_progress._runtime.optional import require

require("starlette", extra="starlette")

from upload_progress.asgi import current_upload
from upload_progress.starlette.auth.authenticators import (
    basic,
    bearer,
    capability,
    first_of,
    user_identity,
)
from upload_progress.starlette.routes import progress_mount, progress_routes

__all__ = [
    "basic",
    "bearer",
    "capability",
    "current_upload",
    "first_of",
    "progress_mount",
    "progress_routes",
    "user_identity",
]
