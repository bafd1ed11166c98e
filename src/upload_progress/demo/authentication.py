"""Who may call an endpoint of the demo: users, from their own page or a program."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from upload_progress.connection import Connection
from upload_progress.demo.sessions import Sessions, is_password
from upload_progress.identity import Identity
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import basic, first_of
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.http import FOREIGN_ORIGIN, Problem, problem_response

__all__ = [
    "Endpoint",
    "authenticator",
    "is_foreign",
    "user_of",
    "users_only",
]

Endpoint = Callable[[Request, str], Awaitable[Response]]

_ORIGINS: Final = Origins.of(())
_SIGN_IN: Final = Problem(
    401, "unauthenticated", "Sign in: the users are alice and bob, the password is the name."
)
_CHALLENGE: Final = {"www-authenticate": 'Basic realm="upload-progress", charset="UTF-8"'}


def authenticator(sessions: Sessions) -> Authenticate:
    """Return what says who asks: by HTTP Basic if it is there, else by cookie."""
    return first_of(basic(is_password), sessions.identify)


def is_foreign(request: Request) -> bool:
    """Tell whether another site's page makes the browser ask this, signed in or not."""
    # The strictest of the rules: it also keeps others from signing a browser in.
    return not _ORIGINS.permits_socket(Connection(request.scope), has_ticket=False)


def user_of(request: Request, authenticate: Authenticate) -> str | None:
    """Return the name of the user who asks; None for nobody."""
    identity = authenticate(Connection(request.scope))
    assert identity is None or isinstance(identity, Identity)  # noqa: S101  # ours never waits
    return None if identity is None else identity.id


def users_only(
    authenticate: Authenticate, endpoint: Endpoint
) -> Callable[[Request], Awaitable[Response]]:
    """Return *endpoint* as one for users, called with their name."""

    async def guarded(request: Request) -> Response:
        user = user_of(request, authenticate)
        if user is None:
            return problem_response(_sign_in(request))
        if request.method not in {"GET", "HEAD"} and is_foreign(request):
            return problem_response(FOREIGN_ORIGIN)
        return await endpoint(request, user)

    return guarded


def _sign_in(request: Request) -> Problem:
    """Return the 401; a browser would show its own dialog above the page that has a form."""
    headers = request.headers
    is_browser = "sec-fetch-mode" in headers or headers.get("user-agent", "").startswith("Mozilla/")
    return _SIGN_IN if is_browser else _SIGN_IN.with_headers(_CHALLENGE)
