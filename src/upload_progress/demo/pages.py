"""The web page of the demo: sign-in, index and assets.

No inline script or style and no third-party resource, so that the content security policy allows
this server only (Content Security Policy Level 3).
"""

from collections.abc import Mapping
from contextlib import aclosing
from html import escape
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from upload_progress.demo.authentication import (
    authenticated_user,
    is_cross_origin,
    is_password,
    sign_in,
    sign_out,
)
from upload_progress.demo.responses import FILE_NOT_FOUND
from upload_progress.starlette.component import component_script, script_integrity, script_version
from upload_progress.starlette.http import FOREIGN_ORIGIN

__all__ = ["page_routes"]

_ASSETS: Final = {
    "demo.css": "text/css; charset=utf-8",
    "demo.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_MAX_FORM_BYTES: Final = 4096
_PAGE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not "no-referrer", which makes browsers send forms with "Origin: null".
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def page_routes(mount_path: str) -> list[Route]:
    """Return the routes of the web page.

    Args:
        mount_path: The path of the progress routes.
    """
    pages = _Pages(mount_path)
    return [
        Route("/", pages.index),
        Route("/login", pages.login, methods=["GET"]),
        Route("/login", pages.sign_in, methods=["POST"]),
        Route("/logout", pages.sign_out, methods=["POST"]),
        Route("/assets/{name}", pages.asset),
    ]


class _Pages:
    def __init__(self, mount_path: str) -> None:
        self._folder = files("upload_progress.demo") / "page"
        script = component_script() or b""
        self._values = {
            "component": f"{mount_path}/upload-progress.js?v={script_version(script)}",
            "mount": mount_path,
            "integrity": script_integrity(script),
        }

    def _page(self, name: str, *, status: int = 200, **values: str) -> Response:
        return HTMLResponse(self._render(name, values), status, _PAGE_HEADERS)

    def _render(self, name: str, values: Mapping[str, str]) -> str:
        text = (self._folder / name).read_text(encoding="utf-8")
        for key, value in {**self._values, **values}.items():
            text = text.replace(f"{{{{{key}}}}}", escape(value))
        return text

    async def index(self, request: Request) -> Response:
        user = authenticated_user(request)
        if user is None:
            return RedirectResponse("/login", 303, _PAGE_HEADERS)
        return self._page("index.html", user=user, origin=str(request.base_url).rstrip("/"))

    async def login(self, _request: Request) -> Response:
        return self._page("login.html", error="")

    async def sign_in(self, request: Request) -> Response:
        if is_cross_origin(request):
            return FOREIGN_ORIGIN.to_response()
        form = await _read_form(request)
        user = form.get("user", "")
        if not is_password(user, form.get("password", "")):
            return self._page("login.html", status=403, error="Wrong name or password.")
        sign_in(request, user)
        return RedirectResponse("/", 303, _PAGE_HEADERS)

    async def sign_out(self, request: Request) -> Response:
        if is_cross_origin(request):
            return FOREIGN_ORIGIN.to_response()
        sign_out(request)
        return RedirectResponse("/login", 303, _PAGE_HEADERS)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return FILE_NOT_FOUND.to_response()
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(self._render(name, {}), headers=headers, media_type=_ASSETS[name])


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of an URL-encoded form; no fields if it exceeds ``_MAX_FORM_BYTES``."""
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _MAX_FORM_BYTES:
                return {}
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}
