"""ASGI middleware that tracks uploads, for any application and framework."""

from upload_progress.asgi.middleware import UploadProgressMiddleware, current_upload
from upload_progress.asgi.readiness import ReadinessEndpoint
from upload_progress.asgi.shutdown import drain_on_signal

__all__ = ["ReadinessEndpoint", "UploadProgressMiddleware", "current_upload", "drain_on_signal"]
