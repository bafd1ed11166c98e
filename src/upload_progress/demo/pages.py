"""The web page of the demo: sign-in, the page itself, and what they load.

Nothing is inline and nothing comes from elsewhere, so the content security policy allows
only this server (Content Security Policy Level 3).
"""

import hashlib
from collections.abc import Mapping
from contextlib import aclosing
from html import escape
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from upload_progress.demo.authentication import is_foreign, user_of
from upload_progress.demo.responses import NO_FILE
from upload_progress.demo.sessions import COOKIE, SESSION_SECONDS, Sessions, is_password
from upload_progress.interfaces import Authenticate
from upload_progress.starlette.component import component, integrity
from upload_progress.starlette.http import FOREIGN_ORIGIN, problem_response

__all__ = ["page_routes"]

_ASSETS: Final = {
    "demo.css": "text/css; charset=utf-8",
    "demo.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_LONGEST_FORM_BYTES: Final = 4096
_PAGE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not "no-referrer", under which a form is sent with "Origin: null".
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def page_routes(sessions: Sessions, authenticate: Authenticate) -> list[Route]:
    """Return the routes that a browser's window goes to."""
    pages = _Pages(sessions, authenticate)
    return [
        Route("/", pages.home),
        Route("/login", pages.login, methods=["GET"]),
        Route("/login", pages.sign_in, methods=["POST"]),
        Route("/logout", pages.sign_out, methods=["POST"]),
        Route("/assets/{name}", pages.asset),
    ]


class _Pages:
    def __init__(self, sessions: Sessions, authenticate: Authenticate) -> None:
        self._sessions = sessions
        self._authenticate = authenticate
        self._folder = files("upload_progress.demo") / "page"
        script = component() or b""
        version = hashlib.sha256(script).hexdigest()[:12]
        self._words = {
            "component": f"/uploads/upload-progress.js?v={version}",
            "integrity": integrity(script),
        }

    def _page(self, name: str, *, status: int = 200, **words: str) -> Response:
        return HTMLResponse(self._filled(name, words), status, _PAGE_HEADERS)

    def _filled(self, name: str, words: Mapping[str, str]) -> str:
        text = (self._folder / name).read_text(encoding="utf-8")
        for word, value in {**self._words, **words}.items():
            text = text.replace(f"{{{{{word}}}}}", escape(value))
        return text

    async def home(self, request: Request) -> Response:
        user = user_of(request, self._authenticate)
        if user is None:
            return RedirectResponse("/login", 303, _PAGE_HEADERS)
        return self._page(
            "index.html",
            user=user,
            origin=str(request.base_url).rstrip("/"),
        )

    async def login(self, _request: Request) -> Response:
        return self._page("login.html", problem="")

    async def sign_in(self, request: Request) -> Response:
        if is_foreign(request):
            return problem_response(FOREIGN_ORIGIN)
        form = await _small_form(request)
        user, password = form.get("user", ""), form.get("password", "")
        if not is_password(user, password):
            wrong = "That name and password do not belong together."
            return self._page("login.html", status=403, problem=wrong)
        answer = RedirectResponse("/", 303, _PAGE_HEADERS)
        answer.set_cookie(
            COOKIE,
            self._sessions.cookie(user),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        if is_foreign(request):
            return problem_response(FOREIGN_ORIGIN)
        answer = RedirectResponse("/login", 303, _PAGE_HEADERS)
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return problem_response(NO_FILE)
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(self._filled(name, {}), headers=headers, media_type=_ASSETS[name])


async def _small_form(request: Request) -> dict[str, str]:
    """Return the fields of an urlencoded form; what is larger than a sign-in is none."""
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _LONGEST_FORM_BYTES:
                return {}
    pairs = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in pairs.items()}
