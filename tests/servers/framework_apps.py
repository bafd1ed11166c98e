"""The same small application in four frameworks.

``PUT /raw`` returns the digest of the body, ``POST /form`` that of a file in a form. ``PUT
/refused`` responds without reading, ``PUT /broken`` raises an exception after reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

import django
import fastapi
import litestar
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, JsonResponse
from django.urls import path

from tests._support.scripted_server import App

__all__ = ["FRAMEWORKS"]

Summary = dict[str, str | int]


class DeliberateError(Exception):
    """Raised by ``PUT /broken``."""


def summarize(content: bytes, name: str | None, note: str | None) -> Summary:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "name": name or "",
        "note": note or "",
    }


async def digest(chunks: AsyncIterable[bytes]) -> Summary:
    content = b"".join([chunk async for chunk in chunks])
    return summarize(content, None, None)


def as_asgi(app: Any) -> App:  # noqa: ANN401  # each framework has its own types for ASGI
    """Return *app* with our type of an ASGI application."""
    asgi_app: App = app
    return asgi_app


def fastapi_app() -> App:
    app = fastapi.FastAPI()

    @app.put("/raw", status_code=201)
    async def raw(request: fastapi.Request) -> Summary:
        return await digest(request.stream())

    @app.post("/form")
    async def form(request: fastapi.Request) -> Summary:
        async with request.form() as form_data:
            file = form_data["file"]
            assert not isinstance(file, str)
            return summarize(await file.read(), file.filename, str(form_data["note"]))

    @app.put("/refused")
    async def refused() -> None:
        raise fastapi.HTTPException(413)

    @app.put("/broken")
    async def broken(request: fastapi.Request) -> None:
        await request.body()
        raise DeliberateError

    return app


def litestar_app() -> App:
    @litestar.put("/raw")
    async def raw(request: litestar.Request[Any, Any, Any]) -> litestar.Response[Summary]:
        return litestar.Response(await digest(request.stream()), status_code=201)

    @litestar.post("/form")
    async def form(request: litestar.Request[Any, Any, Any]) -> litestar.Response[Summary]:
        form_data = await request.form()
        file = form_data["file"]
        summary = summarize(await file.read(), file.filename, form_data["note"])
        await form_data.close()
        return litestar.Response(summary, status_code=200)

    @litestar.put("/refused")
    async def refused() -> None:
        raise litestar.exceptions.HTTPException(status_code=413)

    @litestar.put("/broken")
    async def broken(request: litestar.Request[Any, Any, Any]) -> None:
        await request.body()
        raise DeliberateError

    # Litestar's logging configuration would apply to the whole process.
    return as_asgi(litestar.Litestar([raw, form, refused, broken], logging_config=None))


def quart_app() -> App:
    app = quart.Quart("tests", root_path=str(Path(__file__).parent))

    @app.put("/raw")
    async def raw() -> tuple[Summary, int]:
        return await digest(quart.request.body), 201

    @app.post("/form")
    async def form() -> Summary:
        [file] = (await quart.request.files).values()
        note = (await quart.request.form)["note"]
        return summarize(file.read(), file.filename, note)

    @app.put("/refused")
    async def refused() -> tuple[str, int]:
        return "too large", 413

    @app.put("/broken")
    async def broken() -> str:
        await quart.request.get_data()
        raise DeliberateError

    return as_asgi(app)


def django_app() -> App:
    async def raw(request: ASGIRequest) -> HttpResponse:
        return JsonResponse(summarize(request.body, None, None), status=201)

    def form(request: ASGIRequest) -> HttpResponse:
        file = request.FILES["file"]
        return JsonResponse(summarize(file.read(), file.name, request.POST["note"]))

    async def refused(_request: ASGIRequest) -> HttpResponse:
        return HttpResponse("too large", status=413)

    async def broken(_request: ASGIRequest) -> HttpResponse:
        raise DeliberateError

    views = {"raw": raw, "form": form, "refused": refused, "broken": broken}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=tuple(path(name, view) for name, view in views.items()),
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        LOGGING_CONFIG=None,
        SECRET_KEY="invented",
        USE_I18N=False,
    )
    django.setup()
    return as_asgi(get_asgi_application())


FRAMEWORKS: dict[str, Callable[[], App]] = {
    "FastAPI": fastapi_app,
    "Litestar": litestar_app,
    "Quart": quart_app,
    "Django": django_app,
}
