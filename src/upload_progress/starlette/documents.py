"""Serving the OpenAPI and AsyncAPI documents of the routes.

They describe the API and hold no data of a user, so they need no authentication.
"""

from functools import cached_property

from attrs import frozen
from starlette.responses import Response

from upload_progress._model.codec import encode_json
from upload_progress.openapi import asyncapi_document, openapi_document
from upload_progress.starlette.context import RequestContext
from upload_progress.starlette.http import static_response

__all__ = [
    "ApiDocuments",
]


@frozen(eq=False, repr=False)
class ApiDocuments:
    """Serves both documents; each is generated at its first request.

    Attributes:
        mount_path: The path of the mount, as clients see it.
    """

    mount_path: str

    async def openapi(self, request: RequestContext) -> Response:
        """``GET /uploads/openapi.json``: the OpenAPI document."""
        return _json_response(request, self._openapi)

    async def asyncapi(self, request: RequestContext) -> Response:
        """``GET /uploads/asyncapi.json``: the AsyncAPI document."""
        return _json_response(request, self._asyncapi)

    @cached_property
    def _openapi(self) -> bytes:
        return encode_json(openapi_document(mount_path=self.mount_path))

    @cached_property
    def _asyncapi(self) -> bytes:
        return encode_json(asyncapi_document(mount_path=self.mount_path))


def _json_response(request: RequestContext, content: bytes) -> Response:
    # "no-cache": a client asks whether its copy is current, and gets a 304.
    return static_response(
        request.connection, content, media_type="application/json", cache_control="no-cache"
    )
