"""What all routes of one mount share, and how each request is answered."""

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

import anyio
from attrs import define, field, frozen
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from upload_progress._fanout.subscription import Subscription
from upload_progress._model.codec import encode_json
from upload_progress.connection import Connection
from upload_progress.exceptions import UploadProgressError
from upload_progress.starlette.auth.authentication import RequestAuthenticator
from upload_progress.starlette.auth.tickets import AccessGrant, TicketService
from upload_progress.starlette.connections import ConnectionRegistry, Sockets, seat_name
from upload_progress.starlette.http import (
    COMMON_HEADERS,
    NOT_FOUND,
    Problem,
    Refused,
    problem_of,
    problem_response,
)
from upload_progress.tracker import ProgressTracker, internals_of

__all__ = [
    "RequestContext",
    "Handler",
    "Resource",
    "RouteContext",
    "cancel_when_gone",
    "json_response",
]

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@define(eq=False, repr=False)
class RouteContext:
    """One mount of the routes.

    Attributes:
        stream_life_seconds: After how long an event stream ends, for the client to reopen it.
    """

    tracker: ProgressTracker
    door: RequestAuthenticator
    connections: ConnectionRegistry
    sockets: Sockets
    tickets: TicketService
    stream_life_seconds: float
    _is_checked: bool = field(default=False, init=False)

    def check_mount(self, scope: Scope) -> None:
        """Warn, once, when links in snapshots lead elsewhere than to these routes."""
        if self._is_checked:
            return
        self._is_checked = True
        root, told = scope.get("root_path", ""), self.tracker.config.mount_path
        if not root or not told.endswith(root):
            logger.warning(
                "progress_routes are mounted at %r, but ProgressTracker(mount_path=%r) puts that "
                "path into links: make both the same",
                root or "/",
                told,
            )

    @contextmanager
    def watching(
        self, grant: AccessGrant, connection: Connection, upload_id: str | None
    ) -> Generator[Subscription]:
        """Hold a watcher, counted among those of who was admitted, while the block runs.

        Raises:
            QuotaExceeded: There are too many.
        """
        with self.connections.seat(seat_name(grant.identity, connection, upload_id)):
            subscription = internals_of(self.tracker).subscribe()
            try:
                yield subscription
            finally:
                subscription.close()


@frozen(eq=False, repr=False)
class RequestContext:
    """One request and the way back."""

    scope: Scope
    receive: Receive
    send: Send
    connection: Connection

    def parameter(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.scope["path_params"][name])

    @property
    def is_head(self) -> bool:
        """Whether only the head of an answer is wanted."""
        return self.connection.method == "HEAD"


Handler = Callable[[RequestContext], Awaitable[Response | None]]
"""Answers a request; None when it has sent the answer itself."""


@frozen(eq=False, repr=False)
class Resource:
    """An ASGI application for one path: a handler for each method, problems for the rest."""

    site: RouteContext
    handlers: Mapping[str, Handler]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.site.check_mount(scope)
        exchange = RequestContext(scope, receive, send, Connection(scope))
        try:
            response = await self._handler(exchange)(exchange)
        except UploadProgressError as error:
            response = problem_response(problem_of(error))
        if response is None:
            return
        if exchange.is_head:
            response.body = b""
        try:
            await response(scope, receive, send)
        except OSError:
            return  # the client has gone

    def _handler(self, exchange: RequestContext) -> Handler:
        handler = self.handlers.get(exchange.connection.method)
        if handler is not None:
            return handler
        if not self.handlers:
            raise Refused(NOT_FOUND)
        allow = ", ".join(sorted(self.handlers))
        detail = f"This path knows the methods {allow}."
        raise Refused(Problem(405, "method_not_allowed", detail, headers={"allow": allow}))


async def cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel *scope* when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with *value* as JSON."""
    return Response(
        encode_json(value),
        status_code=status,
        headers={**COMMON_HEADERS, **(headers or {})},
        media_type="application/json",
    )
