"""``current_upload`` as a dependency of FastAPI."""

from starlette.requests import HTTPConnection

from upload_progress.asgi import current_upload as _current_upload
from upload_progress.upload import Upload

__all__ = ["current_upload"]


def current_upload(request: HTTPConnection) -> Upload:
    """Return the upload that *request* carries, to report stages, metadata or a failure.

    Like ``upload_progress.asgi.current_upload``, and also a dependency of FastAPI.

    Args:
        request: A request of Starlette or FastAPI.

    Returns:
        The upload. Its methods have no effect if the request is not tracked.

    Raises:
        MiddlewareMissing: The request did not pass ``UploadProgressMiddleware``.

    Example:
        ::

            from typing import Annotated

            from fastapi import Depends, FastAPI

            app = FastAPI()

            @app.put("/files/{name}")
            async def put(upload: Annotated[Upload, Depends(current_upload)]) -> None:
                upload.set(metadata={"reviewed": True})
    """
    return _current_upload(request)
