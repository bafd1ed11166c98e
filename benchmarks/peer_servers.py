"""The servers in Python that ``benchmarks.peers`` compares.

Arguments: a name, a port, the largest size that is accepted, in bytes, a folder for files, and the
URL of Redis. Each application reads the body and drops it, unless its library stores files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.server import authenticate
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.tracked_request import App
from upload_progress.starlette import progress_mount


async def read(request: Request, max_bytes: int) -> Response:
    """Read the body, and refuse one that is too large after its last byte."""
    size_bytes = 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
    return JSONResponse({"bytes": size_bytes}, 200 if size_bytes <= max_bytes else 413)


def file_route(max_bytes: int) -> Route:
    """Return the route that reads a body."""

    async def put(request: Request) -> Response:
        return await read(request, max_bytes)

    return Route("/file", put, methods=["PUT", "POST"])


def bare(max_bytes: int, _folder: str, _url: str) -> App:
    """Return Starlette without progress."""
    return Starlette(routes=[file_route(max_bytes)])


def library(max_bytes: int, _folder: str, url: str) -> App:
    """Return the same with this library, and Redis as store and broker."""
    tracker = ProgressTracker.from_url(url)
    routes = [file_route(max_bytes), progress_mount(tracker, authenticate=authenticate)]
    inner = Starlette(routes=routes, lifespan=tracker.lifespan)
    return UploadProgressMiddleware(inner, tracker=tracker, authenticate=authenticate)


def redis_per_chunk(max_bytes: int, _folder: str, url: str) -> App:
    """Return the same with one command to Redis for each chunk, as many applications do it."""
    client = Redis.from_url(url)

    async def put(request: Request) -> Response:
        size_bytes, upload_id = 0, request.query_params["id"]
        async for chunk in request.stream():
            size_bytes += len(chunk)
            await client.set(f"naive:{upload_id}", size_bytes, ex=3600)
        return JSONResponse({"bytes": size_bytes}, 200 if size_bytes <= max_bytes else 413)

    async def get(request: Request) -> Response:
        value = await client.get(f"naive:{request.query_params['id']}")
        return JSONResponse({"received": None if value is None else int(value)})

    return Starlette(
        routes=[Route("/file", put, methods=["PUT"]), Route("/progress", get, methods=["GET"])]
    )


def gradio(max_bytes: int, _folder: str, _url: str) -> App:
    """Return an application of Gradio, which stores files in a temporary folder."""
    gr = import_module("gradio")
    from fastapi import FastAPI  # noqa: PLC0415  # optional

    with gr.Blocks() as blocks:
        gr.File()
    app: App = gr.mount_gradio_app(FastAPI(), blocks, path="", max_file_size=max_bytes)
    return app


def tuspyserver(max_bytes: int, folder: str, _url: str) -> App:
    """Return tuspyserver, which stores files in *folder*."""
    from fastapi import FastAPI  # noqa: PLC0415  # optional
    from tuspyserver import create_tus_router  # noqa: PLC0415  # optional

    app = FastAPI()
    app.include_router(create_tus_router(prefix="files", files_dir=folder, max_size=max_bytes))
    return app


APPLICATIONS: dict[str, Callable[[int, str, str], App]] = {
    "bare": bare,
    "library": library,
    "redis": redis_per_chunk,
    "gradio": gradio,
    "tuspyserver": tuspyserver,
}


def main() -> None:
    """Serve until terminated."""
    name, port, max_bytes, folder, url = sys.argv[1:]
    app = APPLICATIONS[name](int(max_bytes), folder, url)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")


if __name__ == "__main__":
    main()
