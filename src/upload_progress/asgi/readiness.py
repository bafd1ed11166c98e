"""The endpoint for probes of a load balancer or orchestrator."""

from typing import Final

from upload_progress._internals import internals_of
from upload_progress._model.codec import encode_json
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.tracker import ProgressTracker

__all__ = ["ReadinessEndpoint"]

_HEADERS: Final = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class ReadinessEndpoint:
    """An ASGI application that answers with ``tracker.readiness()`` as JSON.

    The status is 200, and 503 after ``tracker.drain()``. It needs no authentication, and tells
    everyone how many uploads are open: do not let a proxy pass it on. It asks no store, so that
    no worker is taken out of service while the store is away.

    Example:
        ::

            from starlette.routing import Route

            routes = [Route("/ready", ReadinessEndpoint(tracker))]

    Args:
        tracker: The tracker.
    """

    def __init__(self, tracker: ProgressTracker) -> None:
        self._internals = internals_of(tracker)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        readiness = self._internals.readiness()
        content = encode_json(readiness)
        headers = [*_HEADERS, (b"content-length", str(len(content)).encode())]
        status = 200 if readiness.is_ready else 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
