"""Random transfers against a model of what the application really has.

The application keeps exactly the bytes that it accepts. After each request, every worker must show
them: no refused byte, and `completed` only if the application has the whole upload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from tests._support.protocol_apps import send_request
from tests._support.scripted_server import (
    ALICE,
    Message,
    Receive,
    Scope,
    Send,
    body_messages,
)
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of

pytestmark = pytest.mark.anyio

TOTAL = 24
MAY_GO_ON = (403, 409, 412, 416, 423, 425, 429, 460, 500, 503, 507)
TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}


@define
class Step:
    """One request, and what the application does with it.

    Attributes:
        start: Position of its first byte; None to continue at the end of what is accepted.
        size: Number of its bytes.
        kept: How many of them the application keeps, if it accepts the request.
        status: The response; None to raise an exception, 0 to accept.
        sent: How many bytes arrive before the client disconnects; None if it does not.
        worker: Index of the worker that gets the request.
    """

    start: int | None
    size: int
    kept: int
    status: int | None
    sent: int | None
    worker: int


def steps(*statuses: int | None) -> st.SearchStrategy[list[Step]]:
    """Return sequences of requests with these responses; most are accepted."""
    return st.lists(
        st.builds(
            Step,
            start=st.one_of(st.none(), st.none(), st.integers(0, TOTAL - 1)),
            size=st.integers(1, TOTAL),
            kept=st.one_of(st.just(TOTAL), st.integers(0, TOTAL)),
            status=st.one_of(st.just(0), st.sampled_from(statuses)),
            sent=st.one_of(st.none(), st.none(), st.integers(0, TOTAL)),
            worker=st.integers(0, 1),
        ),
        max_size=10,
    )


@define
class Application:
    """What the application has.

    Attributes:
        has: Positions of the bytes that it has accepted.
        interrupted: Positions of bytes that arrived before a connection broke, by worker. They are
            shown until the application says at that worker how many bytes it has.
        failed_starts: How often it failed before it had accepted a request: each ends an attempt.
    """

    has: set[int] = field(factory=set)
    interrupted: tuple[set[int], set[int]] = field(factory=lambda: (set(), set()))
    failed_starts: int = 0
    _has_accepted: bool = False

    def respond(self, status: int | None) -> None:
        """Record a response; 0 for a success, None for an exception."""
        self._has_accepted = self._has_accepted or status == 0
        self.failed_starts += not self._has_accepted and status != 0

    @property
    def arrived(self) -> set[int]:
        """Positions of all bytes that may be shown."""
        return self.has | self.interrupted[0] | self.interrupted[1]

    @property
    def end(self) -> int:
        """Number of bytes from the start, without a gap."""
        return next(at for at in range(TOTAL + 1) if at not in self.has)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.end == TOTAL


Respond = Callable[[Send], Awaitable[None]]


def application(respond: Respond) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an ASGI application that reads the body, then responds."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            more = message["more_body"]
        await respond(send)

    return app


def body(step: Step, size: int) -> list[Message]:
    """Return the body of a request, broken off after ``step.sent`` bytes."""
    if step.sent is None or step.sent >= size:
        return body_messages(bytes(size))
    return [*body_messages(bytes(step.sent), b"")[:-1], {"type": "http.disconnect"}]


async def show(workers: list[ProgressTracker]) -> list[UploadProgress]:
    """Return what each worker lists, once all have stored what they know."""
    for worker in workers:
        await internals_of(worker).flusher.flush(everything=True)
    pages = [await worker.list(owner=ALICE, states=set(UploadState)) for worker in workers]
    return [page.uploads[0] for page in pages if page.uploads]


async def check(workers: list[ProgressTracker], model: Application) -> None:
    """Compare what the workers show with what the application has."""
    for shown in await show(workers):
        assert len(model.has) <= shown.bytes_transferred <= len(model.arrived)
        assert (shown.state is UploadState.COMPLETED) is model.is_whole
        assert (shown.percent == 100.0) <= (len(model.arrived) == TOTAL)
        assert 1 <= shown.attempt <= 1 + model.failed_starts


def two_workers() -> list[ProgressTracker]:
    """Return two workers that share a store."""
    store = MemoryStore()
    return [ProgressTracker(store=store), ProgressTracker(store=store)]


@given(sequence=steps(*MAY_GO_ON, None))
async def test_content_ranges(sequence: list[Step]) -> None:
    """Ranges in any order, of which the application accepts all, some or nothing."""
    workers, model = two_workers(), Application()
    for step in sequence:
        start = model.end if step.start is None else step.start
        stop = min(start + step.size, TOTAL)
        sent = set(range(start, stop))

        async def respond(
            send: Send, step: Step = step, start: int = start, sent: set[int] = sent
        ) -> None:
            model.respond(step.status)
            if step.status is None:
                raise RuntimeError
            status, headers = step.status, []
            if status == 0 and (step.kept >= len(sent) or start > model.end):
                model.has |= sent
                status = 200
            elif status == 0:
                model.has |= {at for at in sent if at < start + step.kept}
                status, end = 308, model.end
                headers = [(b"range", f"bytes=0-{end - 1}".encode())] if end else []
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        messages = body(step, len(sent))
        if step.sent is not None and step.sent < len(sent):
            model.interrupted[step.worker].update(range(start, start + step.sent))
        try:
            await send_request(
                application(respond),
                workers[step.worker],
                "PUT",
                "/files/a",
                headers={"content-range": f"bytes {start}-{stop - 1}/{TOTAL}"},
                messages=messages,
            )
        except RuntimeError:
            assert step.status is None
        await check(workers, model)
        if model.is_whole:
            return


@given(sequence=steps(*MAY_GO_ON, None))
async def test_tus(sequence: list[Step]) -> None:
    """Appended bytes, of which the application accepts all, some or nothing."""
    workers, model = two_workers(), Application()

    async def create(send: Send) -> None:
        headers = [(b"location", b"/files/1")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    headers = {**TUS, "upload-length": str(TOTAL)}
    await send_request(application(create), workers[0], "POST", "/files", headers=headers)
    for step in sequence:
        start = model.end
        size = min(step.size, TOTAL - start)

        async def respond(
            send: Send, step: Step = step, start: int = start, size: int = size
        ) -> None:
            if step.status is None:
                raise RuntimeError
            headers = []
            if step.status == 0:
                model.has |= set(range(start, start + min(size, step.kept)))
                model.interrupted[step.worker].clear()
                headers = [(b"upload-offset", str(model.end).encode())]
            status = step.status or 204
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        if step.sent is not None and step.sent < size:
            model.interrupted[step.worker].update(range(start, start + step.sent))
        try:
            await send_request(
                application(respond),
                workers[step.worker],
                "PATCH",
                "/files/1",
                headers={**TUS, **OCTETS, "upload-offset": str(start)},
                messages=body(step, size),
            )
        except RuntimeError:
            assert step.status is None
        await check(workers, model)
        if model.is_whole:
            return
