"""An application for the load generator: it receives files, and has room for many watchers.

Run: uvicorn benchmarks.load.site:app --port 8000. With the variable CONTROL_URL, a Pushpin with the
key SIG_KEY holds the event streams; with CENTRIFUGO_URL, a Centrifugo with the keys API_KEY and
TOKEN_KEY does. The password of each user is the name.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from upload_progress import Limits, ProgressTracker
from upload_progress.edge import Centrifugo, GripProxy
from upload_progress.starlette import basic, upload_progress_app

HOLD_SECONDS = 600
MANY = 100_000


async def receive(request: Request) -> PlainTextResponse:
    """Read a file and forget it."""
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"received {size} bytes\n", 201)


def edge() -> Centrifugo | GripProxy | None:
    """Return the push server that the environment names."""
    if url := os.environ.get("CONTROL_URL"):
        return GripProxy(url, key=os.environ["SIG_KEY"], hold_seconds=HOLD_SECONDS)
    if url := os.environ.get("CENTRIFUGO_URL"):
        keys = {"api_key": os.environ["API_KEY"], "token_key": os.environ["TOKEN_KEY"]}
        return Centrifugo(url, **keys, public_url=url)
    return None


limits = Limits(sockets_per_owner=MANY, announced_per_owner=MANY, tracked_per_owner=MANY)
app = upload_progress_app(
    Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"])]),
    authenticate=basic(lambda name, password: name == password),
    tracker=ProgressTracker(limits=limits, edge=edge()),
    revalidate_seconds=HOLD_SECONDS,
)
