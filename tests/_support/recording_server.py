"""A server that plays what a test has written, without a network: httpx2's mock transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
from attrs import define, evolve, field

from benchmarks.snapshots import snapshot
from upload_progress import UploadProgress, UploadState
from upload_progress._model.codec import encode_json
from upload_progress.client import AsyncProgressClient

Act = Exception | Callable[[httpx2.Request], httpx2.Response]
URL = "http://server.test"
STREAM = {"content-type": "text/event-stream"}


def told(state: UploadState = UploadState.RECEIVING, **changes: Any) -> UploadProgress:  # noqa: ANN401  # any field
    """Return a snapshot."""
    return evolve(snapshot(), **{"upload_id": "u", "state": state, **changes})


def answer(status: int, content: bytes = b"", **headers: str) -> Act:
    """Return an act that answers so, each time anew: an answer can be read once."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx2.Response(status, headers=fields, content=content)


def as_json(value: object) -> Act:
    return answer(200, encode_json(value), content_type="application/json")


def problem(status: int, code: str, **headers: str) -> Act:
    body = {"title": "No", "status": status, "detail": f"It is {code}.", "code": code}
    content_type = "application/problem+json"
    return answer(status, encode_json(body), content_type=content_type, **headers)


def events(*snapshots: UploadProgress, tail: str = "") -> Act:
    """Return an event stream that ends."""
    lines = ["retry: 1000\n\n"]
    lines += [f"id: {each.sequence}\ndata: {encode_json(each).decode()}\n\n" for each in snapshots]
    return stream_of("".join([*lines, tail]).encode())


def stream_of(text: bytes) -> Act:
    async def body() -> AsyncIterator[bytes]:
        yield text

    return lambda _request: httpx2.Response(200, headers=STREAM, content=body())


@define
class Play:
    """Answers each kind of request with the next act of its list; the last one goes on for ever.

    Attributes:
        puts: Of uploads; what they carried is kept in ``received``.
        asks: Of all other calls.
    """

    puts: Sequence[Act] = ()
    asks: Sequence[Act] = ()
    requests: list[httpx2.Request] = field(factory=list, init=False)
    received: list[bytes] = field(factory=list, init=False)
    _played: dict[str, int] = field(factory=dict, init=False)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.method != "PUT":
            return self._next("asks", self.asks or [problem(404, "not_found")], request)
        self.received.append(b"")
        async for transfer_head in request.stream:  # type: ignore[union-attr]  # of an asynchronous client
            self.received[-1] += transfer_head
        return self._next("puts", self.puts, request)

    def _next(self, kind: str, acts: Sequence[Act], request: httpx2.Request) -> httpx2.Response:
        number = self._played.get(kind, 0)
        self._played[kind] = number + 1
        act = acts[min(number, len(acts) - 1)]
        if isinstance(act, Exception):
            raise act
        return act(request)


def client_of(play: Play, *, retries: int = 3) -> AsyncProgressClient:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(play))
    return AsyncProgressClient(URL, http=http, retries=retries, first_pause_seconds=0.001)
