"""An application for the load generator: it receives files, and has room for many watchers.

Run: uvicorn benchmarks.load.site:app --port 8000. With the variable CONTROL_URL, a Pushpin with the
key SIG_KEY holds the event streams. The password of each user is the name.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from upload_progress import Limits, ProgressTracker
from upload_progress.edge import GripProxy
from upload_progress.starlette import basic, upload_progress_app

HOLD_SECONDS = 600
MANY = 100_000


async def receive(request: Request) -> PlainTextResponse:
    """Read a file and forget it."""
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"received {size} bytes\n", 201)


control_url = os.environ.get("CONTROL_URL")
proxy = None
if control_url:
    proxy = GripProxy(control_url, key=os.environ["SIG_KEY"], hold_seconds=HOLD_SECONDS)
limits = Limits(sockets_per_owner=MANY, announced_per_owner=MANY, tracked_per_owner=MANY)
app = upload_progress_app(
    Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"])]),
    authenticate=basic(lambda name, password: name == password),
    tracker=ProgressTracker(limits=limits, edge=proxy),
    revalidate_seconds=HOLD_SECONDS,
)
