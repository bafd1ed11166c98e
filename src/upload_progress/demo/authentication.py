"""Authentication of the demo: HTTP Basic for programs, a signed session cookie for browsers.

The users are ``alice``, ``bob`` and ``operator``, who may look at the uploads of all; the password
is the name. Starlette's ``SessionMiddleware`` keeps the session in a signed cookie (RFC 6265), so
the server stores nothing.
"""

import hmac
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from upload_progress.connection import Connection
from upload_progress.identity import Identity
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import basic, first_of
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.http import FOREIGN_ORIGIN, ErrorResponse

__all__ = [
    "OPERATOR",
    "SESSION_COOKIE",
    "SESSION_SECONDS",
    "USERS",
    "DemoSessionMiddleware",
    "Endpoint",
    "authenticate",
    "authenticated_user",
    "is_cross_origin",
    "is_password",
    "require_user",
    "sign_in",
    "sign_out",
]

Endpoint = Callable[[Request, str], Awaitable[Response]]

OPERATOR: Final = "operator"
USERS: Final = ("alice", "bob", OPERATOR)
SESSION_COOKIE: Final = "upload_progress_demo"
SESSION_SECONDS: Final = 12 * 3600

_ORIGINS: Final = Origins.parse(())
_UNAUTHENTICATED: Final = ErrorResponse.build(
    401, "unauthenticated", "Sign in: the users are alice and bob, the password is the name."
)
_CHALLENGE: Final = {"www-authenticate": 'Basic realm="upload-progress", charset="UTF-8"'}


class DemoSessionMiddleware:
    """Starlette's session middleware with a ``Secure`` cookie on HTTPS only.

    ``SessionMiddleware`` takes ``https_only`` once, while the scheme is known per request:
    a reverse proxy may end TLS in front of the demo.
    """

    def __init__(self, app: ASGIApp, *, secret_key: str) -> None:
        create = partial(
            SessionMiddleware,
            app,
            secret_key=secret_key,
            session_cookie=SESSION_COOKIE,
            max_age=SESSION_SECONDS,
        )
        self._http = create()
        self._https = create(https_only=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with ``scope["session"]``."""
        is_https = scope.get("scheme") in {"https", "wss"}
        await (self._https if is_https else self._http)(scope, receive, send)


def is_password(user: str, password: str) -> bool:
    """Return whether *user* exists and *password* is correct, in constant time."""
    return user in USERS and hmac.compare_digest(
        user.encode("utf-8", "replace"), password.encode("utf-8", "replace")
    )


def sign_in(request: Request, user: str) -> None:
    """Start a session of *user*, for ``SESSION_SECONDS`` from now."""
    request.session.update(user=user, expires_at=time.time() + SESSION_SECONDS)


def sign_out(request: Request) -> None:
    """End the session."""
    request.session.clear()


def _session_identity(connection: Connection) -> Identity | None:
    """Return the user of the session cookie; None without a valid session."""
    session = connection.scope.get("session")
    if not session or time.time() >= session["expires_at"]:
        return None
    return _identity_of(session["user"], session["expires_at"])


def _identity_of(user: str, expires_at: float | None = None) -> Identity:
    return Identity(user, expires_at, is_operator=user == OPERATOR)


def _basic_identity(user: str, password: str) -> Identity | None:
    return _identity_of(user) if is_password(user, password) else None


authenticate: Final[Authenticate] = first_of(basic(_basic_identity), _session_identity)
"""The demo's authenticator: HTTP Basic if present, else the session."""


def is_cross_origin(request: Request) -> bool:
    """Return whether a page of another site made the browser send *request*."""
    # The strictest rule, whether signed in or not: it also prevents login CSRF.
    return not _ORIGINS.permits_socket(Connection(request.scope), has_ticket=False)


def authenticated_user(request: Request) -> str | None:
    """Return the name of the authenticated user; None if there is none."""
    identity = authenticate(Connection(request.scope))
    assert identity is None or isinstance(identity, Identity)  # noqa: S101  # both are synchronous
    return None if identity is None else identity.id


def require_user(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return *endpoint* behind authentication; it receives the user's name as second argument."""

    async def authenticated_endpoint(request: Request) -> Response:
        user = authenticated_user(request)
        if user is None:
            return _unauthenticated(request).to_response()
        if request.method not in {"GET", "HEAD"} and is_cross_origin(request):
            return FOREIGN_ORIGIN.to_response()
        return await endpoint(request, user)

    return authenticated_endpoint


def _unauthenticated(request: Request) -> ErrorResponse:
    """Return the 401; without a challenge to a browser, which would open its own dialog."""
    headers = request.headers
    is_browser = "sec-fetch-mode" in headers or headers.get("user-agent", "").startswith("Mozilla/")
    return _UNAUTHENTICATED if is_browser else _UNAUTHENTICATED.with_headers(_CHALLENGE)
