"""The same small application in several frameworks.

``PUT /raw`` returns the digest of the body, ``POST /form`` that of a file in a form. ``PUT
/refused`` responds without reading, ``PUT /broken`` raises an exception after reading. ``POST`` and
``PATCH /resumable`` respond with the headers of the protocols for uploads in several requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import falcon.asgi
import fastapi
import litestar
import quart
import sanic
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests._support.scripted_server import App, Message, Receive, Scope, Send

__all__ = ["FRAMEWORKS"]

Summary = dict[str, str | int]

RESUMABLE_HEADERS = {
    "Location": "/v2/a/blobs/uploads/1",
    "Upload-Offset": "3",
    "Range": "0-2",
    "ETag": '"1"',
    "Tus-Resumable": "1.0.0",
}


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


def starlette_app() -> App:
    async def raw(request: Request) -> Response:
        return JSONResponse(await digest(request.stream()), status_code=201)

    async def form(request: Request) -> Response:
        async with request.form() as form_data:
            file = form_data["file"]
            assert not isinstance(file, str)
            summary = summarize(await file.read(), file.filename, str(form_data["note"]))
        return JSONResponse(summary)

    def refused(_request: Request) -> Response:
        return PlainTextResponse("too large", status_code=413)

    async def broken(request: Request) -> Response:
        await request.body()
        raise DeliberateError

    async def resumable(request: Request) -> Response:
        await request.body()
        return Response(status_code=201, headers=RESUMABLE_HEADERS)

    return Starlette(
        routes=[
            Route("/raw", raw, methods=["PUT"]),
            Route("/form", form, methods=["POST"]),
            Route("/refused", refused, methods=["PUT"]),
            Route("/broken", broken, methods=["PUT"]),
            Route("/resumable", resumable, methods=["POST", "PATCH", "PUT"]),
        ]
    )


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

    @app.api_route("/resumable", methods=["POST", "PATCH", "PUT"])
    async def resumable(request: fastapi.Request) -> fastapi.Response:
        await request.body()
        return fastapi.Response(status_code=201, headers=RESUMABLE_HEADERS)

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

    @litestar.route("/resumable", http_method=["POST", "PATCH", "PUT"], status_code=201)
    async def resumable(request: litestar.Request[Any, Any, Any]) -> litestar.Response[None]:
        await request.body()
        return litestar.Response(None, headers=RESUMABLE_HEADERS)

    handlers = [raw, form, refused, broken, resumable]
    # Litestar's logging configuration would apply to the whole process.
    return as_asgi(litestar.Litestar(handlers, logging_config=None))


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

    @app.route("/resumable", methods=["POST", "PATCH", "PUT"])
    async def resumable() -> tuple[str, int, dict[str, str]]:
        await quart.request.get_data()
        return "", 201, RESUMABLE_HEADERS

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

    async def resumable(_request: ASGIRequest) -> HttpResponse:
        return HttpResponse(status=201, headers=RESUMABLE_HEADERS)

    views = {
        "raw": raw,
        "form": form,
        "refused": refused,
        "broken": broken,
        "resumable": resumable,
    }
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


def sanic_app() -> App:
    app: Any = sanic.Sanic("tests", configure_logging=False)
    # It would rewrite methods of Sanic, which other applications share.
    app.config.TOUCHUP = False

    async def raw(request: Any) -> Any:  # noqa: ANN401  # Sanic's types are generic
        return sanic.json(summarize(request.body, None, None), status=201)

    async def form(request: Any) -> Any:  # noqa: ANN401  # as above
        file = request.files.get("file")
        return sanic.json(summarize(file.body, file.name, request.form.get("note")))

    async def refused(_request: Any) -> Any:  # noqa: ANN401  # as above
        return sanic.text("too large", status=413)

    async def broken(_request: Any) -> Any:  # noqa: ANN401  # as above
        raise DeliberateError

    async def resumable(_request: Any) -> Any:  # noqa: ANN401  # as above
        return sanic.empty(status=201, headers=dict(RESUMABLE_HEADERS))

    app.add_route(raw, "/raw", methods=["PUT"])
    app.add_route(form, "/form", methods=["POST"])
    app.add_route(refused, "/refused", methods=["PUT"])
    app.add_route(broken, "/broken", methods=["PUT"])
    app.add_route(resumable, "/resumable", methods=["POST", "PATCH", "PUT"])
    return started_first(app)


class StartupEndedError(Exception):
    """Ends the lifespan of an application after its start."""


def started_first(app: Any) -> App:  # noqa: ANN401  # each framework has its own types for ASGI
    """Return *app* for a mount, which gets no lifespan events: started before the first request."""
    is_started = False

    async def started(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal is_started
        if not is_started:
            is_started = True
            messages = iter([{"type": "lifespan.startup"}])

            async def receive_startup() -> Message:
                for message in messages:
                    return message
                raise StartupEndedError

            async def ignore(_message: Message) -> None: ...

            with suppress(StartupEndedError):
                await app({"type": "lifespan", "state": {}}, receive_startup, ignore)
        await app(scope, receive, send)

    return started


def falcon_app() -> App:
    app = falcon.asgi.App()

    class Raw:
        async def on_put(self, request: Any, response: Any) -> None:  # noqa: ANN401  # Falcon's are generic
            response.media, response.status = await digest(request.stream), 201

    class Form:
        async def on_post(self, request: Any, response: Any) -> None:  # noqa: ANN401  # as above
            parts = {
                part.name: (await part.stream.read(), part.filename)
                async for part in await request.get_media()
            }
            response.media = summarize(*parts["file"], parts["note"][0].decode())

    class Refused:
        async def on_put(self, _request: Any, response: Any) -> None:  # noqa: ANN401  # as above
            response.text, response.status = "too large", 413

    class Broken:
        async def on_put(self, request: Any, _response: Any) -> None:  # noqa: ANN401  # as above
            await request.stream.read()
            raise DeliberateError

    class Resumable:
        async def on_post(self, request: Any, response: Any) -> None:  # noqa: ANN401  # as above
            await request.stream.read()
            response.status = 201
            response.set_headers(RESUMABLE_HEADERS)

        on_put = on_patch = on_post

    for name, resource in {
        "/raw": Raw(),
        "/form": Form(),
        "/refused": Refused(),
        "/broken": Broken(),
        "/resumable": Resumable(),
    }.items():
        app.add_route(name, resource)
    return as_asgi(app)


FRAMEWORKS: dict[str, Callable[[], App]] = {
    "Starlette": starlette_app,
    "FastAPI": fastapi_app,
    "Litestar": litestar_app,
    "Quart": quart_app,
    "Django": django_app,
    "Sanic": sanic_app,
    "Falcon": falcon_app,
}
