"""The middleware for any ASGI application, whatever its framework."""

from upload_progress.asgi.middleware import UploadProgressMiddleware, current_upload

__all__ = ["UploadProgressMiddleware", "current_upload"]
