"""The routes under one mount, and how their parts are put together."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Final, TypeVar

from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import Scope

from upload_progress._internals import internals_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import Authenticate, HoldsStreams, IssuesTokens
from upload_progress.openapi import asyncapi_document, openapi_document
from upload_progress.starlette.auth.authentication import RequestAuthenticator
from upload_progress.starlette.auth.edge_tokens import EdgeTokens
from upload_progress.starlette.auth.identity_resolver import IdentityResolver
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.auth.tickets import TICKET_BYTES, Tickets, TicketService
from upload_progress.starlette.component import MODULES, ComponentScript
from upload_progress.starlette.connections import ConnectionRegistry, SocketSubscriptions
from upload_progress.starlette.context import Handler, MountCheck, Resource
from upload_progress.starlette.documents import ApiDocument
from upload_progress.starlette.endpoints import RestEndpoints
from upload_progress.starlette.sse import EventStreams
from upload_progress.starlette.websocket import UnknownWebSocketPath, WebSocketEndpoint
from upload_progress.tracker import ProgressTracker

__all__ = ["REVALIDATE_SECONDS", "STREAM_LIFE_SECONDS", "progress_mount", "progress_routes"]

REVALIDATE_SECONDS: Final = 60.0
STREAM_LIFE_SECONDS: Final = 600.0

_PathRoute = TypeVar("_PathRoute", Route, WebSocketRoute, Mount)


def progress_routes(
    tracker: ProgressTracker,
    *,
    authenticate: Authenticate,
    allowed_origins: Iterable[str] = (),
    revalidate_seconds: float = REVALIDATE_SECONDS,
    stream_life_seconds: float = STREAM_LIFE_SECONDS,
) -> list[BaseRoute]:
    """Return the routes of the progress API, for a ``Mount`` of your own.

    Under a plain ``Mount``, Starlette redirects ``POST /uploads`` to ``/uploads/``, unless
    ``UploadProgressMiddleware`` is installed. ``progress_mount`` needs no redirect.

    Example:
        Mount the routes at the ``mount_path`` of the tracker::

            tracker = ProgressTracker(mount_path="/api/uploads")
            routes = progress_routes(tracker, authenticate=capability())
            app = Starlette(routes=[Mount("/api/uploads", routes=routes)])

    Args:
        tracker: The tracker whose uploads are shown. Its ``mount_path`` must be the path at
            which the routes are mounted.
        authenticate: Returns the ``Identity`` of a ``Connection``, or None; plain or async.
        allowed_origins: Origins, such as ``https://app.example``, whose pages may open sockets
            and send requests on behalf of their users. Pages of this server always may.
        revalidate_seconds: Interval after which an open stream or WebSocket is authenticated
            again. Default: 60 seconds.
        stream_life_seconds: Duration after which an event stream ends; the client reopens it.
            Default: 600 seconds.

    Returns:
        The routes, with paths relative to the mount.

    Raises:
        InvalidValue: An argument is not valid.
    """
    if not callable(authenticate):
        raise InvalidValue("authenticate", "must be a callable that returns the identity")
    for name, seconds in [
        ("revalidate_seconds", revalidate_seconds),
        ("stream_life_seconds", stream_life_seconds),
    ]:
        if not seconds > 0:
            raise InvalidValue(name, "must be greater than 0")
    internals = internals_of(tracker)
    internals.has_routes = True
    proxy, edge_tokens = _edge_parts(tracker, revalidate_seconds)
    has_edge = edge_tokens is not None
    clock = tracker.config.clock
    identities = IdentityResolver(authenticate, clock, internals.log_limiter)
    make_ticket = partial(internals.directory.make_token, "ticket", TICKET_BYTES)
    own_tickets = Tickets(clock, make=make_ticket)
    tickets = TicketService(internals, own_tickets, identities, 3 * revalidate_seconds)
    authenticator = RequestAuthenticator(
        identities, Origins.parse(allowed_origins), tickets, clock, revalidate_seconds
    )
    connections = ConnectionRegistry(internals)
    streams = EventStreams(
        tracker, authenticator, connections, stream_life_seconds, proxy, has_edge
    )
    sockets = SocketSubscriptions(tracker, connections)
    endpoints = RestEndpoints(tracker, authenticator, connections, streams, sockets, edge_tokens)
    mount_check = MountCheck(internals)
    socket = WebSocketEndpoint(tracker, authenticator, connections, mount_check, proxy, has_edge)
    return _routes(endpoints, socket, mount_check)


def _edge_parts(
    tracker: ProgressTracker, revalidate_seconds: float
) -> tuple[HoldsStreams | None, EdgeTokens | None]:
    """Return the edge as the proxy that it is, or as what gives tokens for it."""
    edge: object = internals_of(tracker).backends.edge
    if isinstance(edge, IssuesTokens):
        return None, EdgeTokens(edge, tracker.config, revalidate_seconds)
    if not isinstance(edge, HoldsStreams):
        return None, None
    if edge.hold_seconds > revalidate_seconds:
        raise InvalidValue("revalidate_seconds", "must be at least the hold_seconds of the edge")
    return edge, None


def _routes(
    endpoints: RestEndpoints,
    socket: WebSocketEndpoint,
    mount_check: MountCheck,
) -> list[BaseRoute]:
    def route(path: str, **handlers: Handler) -> Route:
        if "GET" in handlers:
            handlers["HEAD"] = handlers["GET"]
        route = Route(path, Resource(mount_check, handlers), include_in_schema=False)
        return _matching_slash(route)

    openapi = partial(openapi_document, mount_path=mount_check.internals.config.mount_path)
    asyncapi = partial(asyncapi_document, mount_path=mount_check.internals.config.mount_path)
    return [
        # Polls are the most frequent requests: Starlette tries one route after the other.
        route("/{upload_id}/progress", GET=endpoints.progress),
        route("/progress", GET=endpoints.list),
        route("/", POST=endpoints.announce),
        route("/tickets", POST=endpoints.ticket),
        route("/upload-progress.js", GET=ComponentScript().get),
        *(route(f"/{name}", GET=ComponentScript(name).get) for name in MODULES),
        route("/openapi.json", GET=ApiDocument(openapi).get),
        route("/asyncapi.json", GET=ApiDocument(asyncapi).get),
        route("/{upload_id}/subscribe", POST=endpoints.subscribe),
        route("/{client_id}/unsubscribe", DELETE=endpoints.unsubscribe),
        route(
            "/{upload_id}",
            DELETE=endpoints.cancel,
            HEAD=endpoints.offset,
            PATCH=endpoints.report,
        ),
        _matching_line_breaks(route("/{rest:path}")),
        _matching_slash(WebSocketRoute("/progress", socket)),
        _matching_slash(WebSocketRoute("/{upload_id}/progress", socket)),
        _matching_line_breaks(WebSocketRoute("/{rest:path}", UnknownWebSocketPath())),
    ]


def _matching_slash(route: _PathRoute) -> _PathRoute:
    """Have a route also match its path with a slash at the end, which some frameworks add."""
    if route.path != "/":
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + "/?$")
    return route


def _matching_line_breaks(route: _PathRoute) -> _PathRoute:
    """Have a route for any path match line breaks, too; Starlette compiles it without DOTALL."""
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


class _ExactMount(Mount):
    """A mount that also matches its own path without a trailing slash."""

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
    """Return ``progress_routes`` mounted at the ``mount_path`` of the tracker.

    Unlike Starlette's own ``Mount``, it answers ``POST /uploads`` itself instead of redirecting
    it to ``/uploads/``.

    Example:
        ::

            tracker = ProgressTracker()
            app = Starlette(
                routes=[progress_mount(tracker, authenticate=capability())],
                lifespan=tracker.lifespan,
            )

    Args:
        tracker: The tracker whose uploads are shown.
        authenticate: See ``progress_routes``.
        allowed_origins: See ``progress_routes``.
        revalidate_seconds: See ``progress_routes``.
        stream_life_seconds: See ``progress_routes``.

    Returns:
        The mount, a route of Starlette or FastAPI.

    Raises:
        InvalidValue: An argument is not valid.
    """
    routes = progress_routes(
        tracker,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        revalidate_seconds=revalidate_seconds,
        stream_life_seconds=stream_life_seconds,
    )
    return _matching_line_breaks(_ExactMount(tracker.config.mount_path, routes=routes))
