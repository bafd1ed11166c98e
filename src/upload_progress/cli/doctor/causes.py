"""The causes that ``doctor`` tells apart, each with its fix.

Sources of the configuration: nginx ``ngx_http_proxy_module`` and its page on WebSocket proxying;
Caddy ``reverse_proxy``; Traefik's buffering middleware and ``responseForwarding``; Apache
``mod_proxy``, ``mod_proxy_http`` and ``mod_proxy_wstunnel``.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, unique
from typing import Final

__all__ = ["Cause", "fix", "proxies_in"]


@unique
class Cause(Enum):
    """Why progress is late, wrong or missing."""

    CLOCK = "The clocks of this machine and of the server differ."
    WORKERS = "Several workers answer, and they do not share their uploads."
    RESPONSE_BUFFERING = "Responses are held back, so event streams do not get through."
    COMPRESSION = "Event streams are compressed, and held back while they are."
    NO_WEBSOCKET_LIBRARY = "The server supports no WebSockets: a library for them is missing there."
    WEBSOCKET_BLOCKED = "WebSockets do not get through."
    REQUEST_BUFFERING = "Requests are held back until they are complete."
    READS_LATE = "The endpoint does not read the request while it arrives."
    MIDDLEWARE_MISSING = "The application does not track uploads: no UploadProgressMiddleware."
    NO_IDENTITY = "authenticate of UploadProgressMiddleware returns no identity for the upload."
    LIMIT = "The user has too many uploads: this one is not tracked."
    OTHER_TRACKER = "The middleware tracks the upload, but the progress routes do not know it."
    REFUSED = "The server refuses the probe."


_PROXY_FIXES: Final[Mapping[Cause, Mapping[str, str]]] = {
    Cause.REQUEST_BUFFERING: {
        "nginx": "proxy_request_buffering off; proxy_http_version 1.1;",
        "Caddy": "remove request_buffers from reverse_proxy: without it requests are streamed",
        "Traefik": "remove the buffering middleware from this router",
        "Apache": "SetEnv proxy-sendchunked 1   (without SetInputFilter BUFFER and proxy-sendcl)",
    },
    Cause.RESPONSE_BUFFERING: {
        "nginx": "proxy_buffering off; proxy_http_version 1.1; gzip off;",
        "Caddy": "reverse_proxy … { flush_interval -1 }",
        "Traefik": "remove compress and buffering from this router, or set flushInterval to 1ms",
        "Apache": "ProxyPass /uploads http://…/uploads flushpackets=on",
    },
    Cause.WEBSOCKET_BLOCKED: {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection upgrade;",
        "Caddy": "nothing: Caddy forwards WebSockets; check the other proxies",
        "Traefik": "nothing: Traefik forwards WebSockets; check the other proxies",
        "Apache": "ProxyPass /uploads http://…/uploads upgrade=websocket",
    },
}
_OTHER_FIXES: Final[Mapping[Cause, Sequence[str]]] = {
    Cause.CLOCK: ("synchronize both clocks, as with chrony or systemd-timesyncd",),
    Cause.WORKERS: (
        "give all workers one store: ProgressTracker.from_url('redis://…'), or run one worker",
        "if that is done: the load balancer must send these requests to the same deployment",
    ),
    Cause.RESPONSE_BUFFERING: (
        "without a proxy: remove middleware that collects responses around the progress routes",
    ),
    Cause.COMPRESSION: (
        "compress no text/event-stream, and nothing with Cache-Control: no-transform",
    ),
    Cause.NO_WEBSOCKET_LIBRARY: ("pip install websockets   (or: pip install 'uvicorn[standard]')",),
    Cause.WEBSOCKET_BLOCKED: (
        "without a proxy: the application itself has no WebSocket route at this path",
    ),
    Cause.REQUEST_BUFFERING: (
        "without a proxy: let UploadProgressMiddleware be outside of middleware that reads bodies",
    ),
    Cause.READS_LATE: (
        "read the body as it arrives: async for chunk in request.stream()",
        "check rights and open connections before, or while the body arrives",
    ),
    Cause.MIDDLEWARE_MISSING: (
        "app = upload_progress_app(app, authenticate=…), or add UploadProgressMiddleware",
    ),
    Cause.NO_IDENTITY: (
        "give routes and middleware the same authenticate; if it failed, the log says so",
    ),
    Cause.LIMIT: ("wait until uploads have ended, or raise Limits(tracked_per_owner=…)",),
    Cause.OTHER_TRACKER: ("give routes and middleware the same tracker and the same authenticate",),
    Cause.REFUSED: ("doctor needs an endpoint that accepts 1 MiB; see the status above",),
}

_NAMES: Final = {"nginx": "nginx", "openresty": "nginx", "caddy": "Caddy", "apache": "Apache"}
_OTHER_NAMES: Final = ("cloudflare", "envoy", "haproxy", "varnish", "awselb", "google", "traefik")


def proxies_in(headers: Mapping[str, str]) -> frozenset[str]:
    """Return the proxies that name themselves in the headers of a response.

    >>> proxies_in({"server": "nginx/1.28.0"})
    frozenset({'nginx'})
    >>> proxies_in({"server": "uvicorn"})
    frozenset()
    >>> proxies_in({"via": "1.1 squid-7"})
    frozenset({'1.1 squid-7'})
    """
    via, server = headers.get("via", ""), headers.get("server", "")
    known = {name for word, name in _NAMES.items() if word in f"{via} {server}".lower()}
    known |= {word for word in _OTHER_NAMES if word in f"{via} {server}".lower()}
    return frozenset(known or ({via} if via else ()))


def fix(cause: Cause, proxies: Collection[str] = ()) -> list[str]:
    """Return the lines that say how a cause is removed.

    Args:
        cause: The cause.
        proxies: The proxies that were seen: others are left out, if one of these is known.
    """
    hints = _PROXY_FIXES.get(cause, {})
    seen = {name: hint for name, hint in hints.items() if name in proxies}
    lines = [f"  {name:<9}{hint}" for name, hint in (seen or hints).items()]
    return [*lines, *(f"  {line}" for line in _OTHER_FIXES.get(cause, ()))]
