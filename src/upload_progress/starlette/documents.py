"""Serving the OpenAPI and AsyncAPI documents of the routes.

They describe the API and hold no data of a user, so they need no authentication.
"""

from collections.abc import Callable
from functools import cached_property

from attrs import frozen
from starlette.responses import Response

from upload_progress._model.codec import encode_json
from upload_progress.starlette.context import RequestContext
from upload_progress.starlette.http import static_response

__all__ = ["ApiDocument"]


@frozen(eq=False, repr=False)
class ApiDocument:
    """Serves one document.

    Attributes:
        generate: Returns the document; called at the first request.
    """

    generate: Callable[[], object]

    async def get(self, request: RequestContext) -> Response:
        """``GET /uploads/openapi.json`` or ``asyncapi.json``: the document."""
        # "no-cache": a client asks whether its copy is current, and gets a 304.
        return static_response(
            request.connection,
            self._content,
            media_type="application/json",
            cache_control="no-cache",
        )

    @cached_property
    def _content(self) -> bytes:
        return encode_json(self.generate())
