"""One request, and the ASGI application that handles the requests of one path."""

from collections.abc import Awaitable, Callable, Mapping

import anyio
from attrs import frozen
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upload_progress._internals import TrackerInternals
from upload_progress.connection import Connection
from upload_progress.exceptions import UploadNotFound, UploadProgressError
from upload_progress.starlette.http import (
    NOT_FOUND,
    WEBSOCKET_UNSUPPORTED,
    ErrorResponse,
    RequestRefused,
)

__all__ = ["Handler", "MountCheck", "RequestContext", "Resource", "cancel_on_disconnect"]


@frozen(eq=False, repr=False)
class MountCheck:
    """Logs a warning if links do not lead to the routes, or the routes cannot know an upload.

    Attributes:
        internals: The parts of the tracker.
    """

    internals: TrackerInternals

    def check(self, scope: Scope) -> None:
        """Compare the mount path with the path under which *scope* reached the routes."""
        root_path, mount_path = scope.get("root_path", ""), self.internals.config.mount_path
        # A proxy may have removed a prefix of the path.
        if not root_path or not mount_path.endswith(root_path):
            self.internals.log_limiter.log_warning(
                f"progress_routes are mounted at {root_path or '/'!r}, but links begin with "
                f"{mount_path!r}: set ProgressTracker(mount_path=…) to the path of the mount",
                effect="links in snapshots lead nowhere",
                topic="mount path",
            )

        path = scope.get("path", "")
        if not f"{path}/".startswith(f"{root_path}/"):
            self.internals.log_limiter.log_warning(
                f"the root path {root_path!r} is not the beginning of the path {path!r}, as with "
                "FastAPI(root_path=…) behind a proxy that removes a prefix: use "
                "upload_progress_app(root_path=…), or the option of the server",
                effect="the progress API responds with 404 or 405",
                topic="root path",
            )

    def check_upgrade(self, connection: Connection) -> None:
        """Refuse a WebSocket handshake that the server has passed on as an ordinary request.

        Raises:
            RequestRefused: The server supports no WebSockets.
        """
        if (connection.header("upgrade") or "").lower() == "websocket":
            self.internals.log_limiter.log_warning(
                "the server supports no WebSockets: install a library for them beside it, as with "
                "pip install websockets",
                effect="pages follow uploads by event streams",
            )
            raise RequestRefused(WEBSOCKET_UNSUPPORTED)

    def check_preflight(self, connection: Connection) -> None:
        """Say what a page of another origin needs, if its browser asks for it."""
        if connection.method == "OPTIONS" and connection.header("access-control-request-method"):
            self.internals.log_limiter.log_warning(
                "a page of another origin may not read the progress; if it is yours, put "
                "CORSMiddleware around the progress routes, outside of upload_progress_app",
                effect="its browser sends no request",
            )

    def check_not_found(self) -> None:
        """Say why no upload is found, if no middleware has tracked one."""
        if not self.internals.gets_uploads:
            self.internals.log_limiter.log_warning(
                "no UploadProgressMiddleware uses the tracker of the routes, no upload is found: "
                "add it with the same tracker, or use upload_progress_app",
                effect="the progress API responds with 404",
            )


@frozen(eq=False, repr=False)
class RequestContext:
    """One HTTP request, and the means to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    connection: Connection

    def path_parameter(self, name: str) -> str:
        """Return the path parameter *name*."""
        return str(self.scope["path_params"][name])

    @property
    def is_head(self) -> bool:
        """Whether the method is ``HEAD``: the response has no body."""
        return self.connection.method == "HEAD"


Handler = Callable[[RequestContext], Awaitable[Response | None]]
"""Handles a request; returns None if it has sent the response itself."""


@frozen(eq=False, repr=False)
class Resource:
    """An ASGI application for one path.

    Attributes:
        mount_check: Called with the scope of each request.
        handlers: The handler of each method; without any, every request gets a 404.
    """

    mount_check: MountCheck
    handlers: Mapping[str, Handler]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        self.mount_check.check(scope)
        request = RequestContext(scope, receive, send, Connection(scope))
        try:
            self.mount_check.check_upgrade(request.connection)
            response = await self._handler(request.connection)(request)
        except UploadProgressError as error:
            if isinstance(error, UploadNotFound):
                self.mount_check.check_not_found()
            response = ErrorResponse.for_exception(error).to_response()
        if response is None:
            return
        if request.is_head:
            response.body = b""
        try:
            await response(scope, receive, send)
        except OSError:
            return  # the client has disconnected

    def _handler(self, connection: Connection) -> Handler:
        handler = self.handlers.get(connection.method)
        if handler is not None:
            return handler
        self.mount_check.check_preflight(connection)
        if not self.handlers:
            raise RequestRefused(NOT_FOUND)
        allow = ", ".join(sorted(self.handlers))
        detail = f"This path supports the methods {allow}."
        headers = {"allow": allow}
        raise RequestRefused(
            ErrorResponse.build(405, "method_not_allowed", detail, headers=headers)
        )


async def cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel *scope* when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
