"""The routes under one mount point."""

from collections.abc import Iterable
from typing import Final

from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Scope

from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import Authenticate
from upload_progress.starlette.auth.authentication import RequestAuthenticator
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.auth.tickets import Tickets, TicketService
from upload_progress.starlette.component import Script
from upload_progress.starlette.connections import ConnectionRegistry, Sockets
from upload_progress.starlette.context import Handler, Resource, RouteContext
from upload_progress.starlette.endpoints import Rest
from upload_progress.starlette.websocket import NoSocket, Socket
from upload_progress.tracker import ProgressTracker, internals_of

__all__ = ["REVALIDATE_SECONDS", "STREAM_LIFE_SECONDS", "progress_mount", "progress_routes"]

REVALIDATE_SECONDS: Final = 60.0
STREAM_LIFE_SECONDS: Final = 600.0


def progress_routes(
    tracker: ProgressTracker,
    *,
    authenticate: Authenticate,
    allowed_origins: Iterable[str] = (),
    revalidate_seconds: float = REVALIDATE_SECONDS,
    stream_life_seconds: float = STREAM_LIFE_SECONDS,
) -> list[BaseRoute]:
    """Return the routes that tell owners how far their uploads are, for a ``Mount``.

    Behind ``UploadProgressMiddleware``, ``POST /uploads`` arrives there as well; without it,
    Starlette redirects that to ``/uploads/``, and ``progress_mount`` does not.

    Args:
        tracker: Knows. Its ``mount_path`` must be where these routes are mounted.
        authenticate: Says who is asking: ``Connection`` → ``Identity`` or None.
        allowed_origins: Origins such as ``https://app.example``, whose pages may open sockets
            and act for their users, besides pages of this server.
        revalidate_seconds: How often an open stream or socket must show anew who watches.
        stream_life_seconds: After how long an event stream ends, for the client to reopen it.

    Raises:
        InvalidValue: An argument makes no sense.
    """
    if not callable(authenticate):
        raise InvalidValue("authenticate", "must be callable, and say who is asking")
    for name, seconds in [
        ("revalidate_seconds", revalidate_seconds),
        ("stream_life_seconds", stream_life_seconds),
    ]:
        if not seconds > 0:
            raise InvalidValue(name, "must be more than 0")
    internals_of(tracker).has_routes = True
    tickets = TicketService(tracker, Tickets(tracker.config.clock), 3 * revalidate_seconds)
    door = RequestAuthenticator(
        authenticate,
        Origins.of(allowed_origins),
        tickets,
        tracker.config.clock,
        LogLimiter(tracker.config.clock),
        revalidate_seconds,
    )
    connections = ConnectionRegistry(tracker.config.limits.sockets_per_owner)
    sockets = Sockets(tracker, connections)
    return _routes(RouteContext(tracker, door, connections, sockets, tickets, stream_life_seconds))


def _routes(site: RouteContext) -> list[BaseRoute]:
    rest, script, socket = Rest(site), Script(), Socket(site)

    def route(path: str, **handlers: Handler) -> Route:
        if "GET" in handlers:
            handlers["HEAD"] = handlers["GET"]
        return Route(path, Resource(site, handlers), include_in_schema=False)

    return [
        route("/", POST=rest.announce),
        route("/progress", GET=rest.list),
        route("/tickets", POST=rest.ticket),
        route("/upload-progress.js", GET=script.get),
        route("/{upload_id}/progress", GET=rest.progress),
        route("/{upload_id}/subscribe", POST=rest.subscribe),
        route("/{client_id}/unsubscribe", DELETE=rest.unsubscribe),
        route("/{upload_id}", DELETE=rest.cancel, HEAD=rest.offset),
        route("/{rest:path}"),
        WebSocketRoute("/progress", socket),
        WebSocketRoute("/{upload_id}/progress", socket),
        WebSocketRoute("/{rest:path}", NoSocket(site)),
    ]


class _ExactMount(Mount):
    """A mount that also answers at its own path, without a slash behind it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        if match is not Match.NONE or "path" not in scope:
            return match, child
        path = f"{scope['path']}/"
        match, child = super().matches({**scope, "path": path})
        if match is Match.NONE or f"{child['root_path']}/" != path:
            return Match.NONE, {}
        return match, {**child, "path": path}


def progress_mount(
    tracker: ProgressTracker,
    *,
    authenticate: Authenticate,
    allowed_origins: Iterable[str] = (),
    revalidate_seconds: float = REVALIDATE_SECONDS,
    stream_life_seconds: float = STREAM_LIFE_SECONDS,
) -> Mount:
    """Return ``progress_routes`` mounted at the tracker's ``mount_path``, ready to be a route.

    Unlike Starlette's own ``Mount``, it answers ``POST /uploads`` itself, instead of
    redirecting it to ``/uploads/``.

    Args:
        tracker: Knows how far uploads are, and where this is mounted.
        authenticate: See ``progress_routes``.
        allowed_origins: See ``progress_routes``.
        revalidate_seconds: See ``progress_routes``.
        stream_life_seconds: See ``progress_routes``.

    Raises:
        InvalidValue: An argument makes no sense.
    """
    routes = progress_routes(
        tracker,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        revalidate_seconds=revalidate_seconds,
        stream_life_seconds=stream_life_seconds,
    )
    return _ExactMount(tracker.config.mount_path, routes=routes)
