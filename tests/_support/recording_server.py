"""A simulated server on httpx2's mock transport: records requests and sends prepared replies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
from attrs import define, evolve, field

from benchmarks.sample_snapshot import sample_snapshot
from upload_progress import UploadProgress, UploadState
from upload_progress._model.codec import encode_json
from upload_progress.client import AsyncProgressClient

Reply = Exception | Callable[[httpx2.Request], httpx2.Response]
URL = "http://server.test"
STREAM = {"content-type": "text/event-stream"}


def make_snapshot(state: UploadState = UploadState.RECEIVING, **changes: Any) -> UploadProgress:  # noqa: ANN401  # any field
    """Return a snapshot of the upload ``u``."""
    return evolve(sample_snapshot(), **{"upload_id": "u", "state": state, **changes})


def status_reply(status: int, content: bytes = b"", **headers: str) -> Reply:
    """Return a reply that makes a new response each time: a response can be read once."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx2.Response(status, headers=fields, content=content)


def json_reply(value: object) -> Reply:
    return status_reply(200, encode_json(value), content_type="application/json")


def problem_reply(status: int, code: str, **headers: str) -> Reply:
    body = {"title": "No", "status": status, "detail": f"It is {code}.", "code": code}
    content_type = "application/problem+json"
    return status_reply(status, encode_json(body), content_type=content_type, **headers)


def event_stream(*snapshots: UploadProgress, tail: str = "") -> Reply:
    """Return an event stream that ends after these snapshots."""
    lines = ["retry: 1000\n\n"]
    lines += [f"id: {each.sequence}\ndata: {encode_json(each).decode()}\n\n" for each in snapshots]
    return stream_reply("".join([*lines, tail]).encode())


def stream_reply(text: bytes) -> Reply:
    async def body() -> AsyncIterator[bytes]:
        yield text

    return lambda _request: httpx2.Response(200, headers=STREAM, content=body())


@define
class RecordingServer:
    """Answers each kind of request with the next reply of its list, and repeats the last one.

    Attributes:
        put_replies: For uploads, whose bodies are kept in ``bodies``.
        api_replies: For all other requests.
    """

    put_replies: Sequence[Reply] = ()
    api_replies: Sequence[Reply] = ()
    requests: list[httpx2.Request] = field(factory=list, init=False)
    bodies: list[bytes] = field(factory=list, init=False)
    _api_count: int = field(default=0, init=False)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.method != "PUT":
            self._api_count += 1
            replies = self.api_replies or [problem_reply(404, "not_found")]
            return _send(replies, self._api_count, request)
        self.bodies.append(b"")
        async for chunk in request.stream:  # type: ignore[union-attr]  # of an asynchronous client
            self.bodies[-1] += chunk
        return _send(self.put_replies, len(self.bodies), request)


def _send(replies: Sequence[Reply], number: int, request: httpx2.Request) -> httpx2.Response:
    reply = replies[min(number, len(replies)) - 1]
    if isinstance(reply, Exception):
        raise reply
    return reply(request)


def client_for(server: RecordingServer, *, retries: int = 3) -> AsyncProgressClient:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    return AsyncProgressClient(URL, http=http, retries=retries, first_delay_seconds=0.001)
