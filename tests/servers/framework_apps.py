"""The same small application in four frameworks: what it got, and how it says no.

``PUT /raw`` tells the digest of a body, ``POST /form`` that of a form's file, ``PUT /refused``
answers without reading, ``PUT /broken`` raises an error when it has read.
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

Facts = dict[str, str | int]


class Broken(Exception):
    """Raised on purpose."""


def facts(content: bytes, name: str | None, note: str | None) -> Facts:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "name": name or "",
        "note": note or "",
    }


async def digest(chunks: AsyncIterable[bytes]) -> Facts:
    content = b"".join([chunk async for chunk in chunks])
    return facts(content, None, None)


def spoken(app: Any) -> App:  # noqa: ANN401  # each has types of its own for the same messages
    """Return *app* as what it is: an ASGI application."""
    speaking: App = app
    return speaking


def fastapi_app() -> App:
    app = fastapi.FastAPI()

    @app.put("/raw", status_code=201)
    async def raw(request: fastapi.Request) -> Facts:
        return await digest(request.stream())

    @app.post("/form")
    async def form(request: fastapi.Request) -> Facts:
        async with request.form() as sent:
            file = sent["file"]
            assert not isinstance(file, str)
            return facts(await file.read(), file.filename, str(sent["note"]))

    @app.put("/refused")
    async def refused() -> None:
        raise fastapi.HTTPException(413)

    @app.put("/broken")
    async def broken(request: fastapi.Request) -> None:
        await request.body()
        raise Broken

    return app


def litestar_app() -> App:
    @litestar.put("/raw")
    async def raw(request: litestar.Request[Any, Any, Any]) -> litestar.Response[Facts]:
        return litestar.Response(await digest(request.stream()), status_code=201)

    @litestar.post("/form")
    async def form(request: litestar.Request[Any, Any, Any]) -> litestar.Response[Facts]:
        sent = await request.form()
        file = sent["file"]
        said = facts(await file.read(), file.filename, sent["note"])
        await sent.close()
        return litestar.Response(said, status_code=200)

    @litestar.put("/refused")
    async def refused() -> None:
        raise litestar.exceptions.HTTPException(status_code=413)

    @litestar.put("/broken")
    async def broken(request: litestar.Request[Any, Any, Any]) -> None:
        await request.body()
        raise Broken

    # Its own set-up of logging would be that of the whole process.
    return spoken(litestar.Litestar([raw, form, refused, broken], logging_config=None))


def quart_app() -> App:
    app = quart.Quart("tests", root_path=str(Path(__file__).parent))

    @app.put("/raw")
    async def raw() -> tuple[Facts, int]:
        return await digest(quart.request.body), 201

    @app.post("/form")
    async def form() -> Facts:
        [file] = (await quart.request.files).values()
        note = (await quart.request.form)["note"]
        return facts(file.read(), file.filename, note)

    @app.put("/refused")
    async def refused() -> tuple[str, int]:
        return "too large", 413

    @app.put("/broken")
    async def broken() -> str:
        await quart.request.get_data()
        raise Broken

    return spoken(app)


def django_app() -> App:
    async def raw(request: ASGIRequest) -> HttpResponse:
        return JsonResponse(facts(request.body, None, None), status=201)

    def form(request: ASGIRequest) -> HttpResponse:
        file = request.FILES["file"]
        return JsonResponse(facts(file.read(), file.name, request.POST["note"]))

    async def refused(_request: ASGIRequest) -> HttpResponse:
        return HttpResponse("too large", status=413)

    async def broken(_request: ASGIRequest) -> HttpResponse:
        raise Broken

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
    return spoken(get_asgi_application())


FRAMEWORKS: dict[str, Callable[[], App]] = {
    "FastAPI": fastapi_app,
    "Litestar": litestar_app,
    "Quart": quart_app,
    "Django": django_app,
}
