"""ASGI middleware that tracks uploads, for any application and framework."""

from upload_progress.asgi.middleware import UploadProgressMiddleware, current_upload

__all__ = ["UploadProgressMiddleware", "current_upload"]
