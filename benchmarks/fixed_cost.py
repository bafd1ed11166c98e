"""Budget 27: what one small upload, and one poll, cost whatever their size.

A ``PUT`` of 70,000 bytes goes through the middleware to an application that reads it, and a poll of
a running upload through the progress routes; both in this process, without a server. Each is timed
interleaved with the bare application, and its Python calls are counted. The owner is known either
at once or from a coroutine, which runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import process_time_ns
from types import FrameType

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from benchmarks.harness import Figure, Samples, pin_to_processor, rotate, run
from benchmarks.synthetic_requests import OWNER, application, discard
from upload_progress import Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope
from upload_progress.connection import Connection
from upload_progress.starlette import progress_routes

TITLE = "fixed cost of an upload and of a poll"
ROUNDS = 60
REQUESTS = 100
COUNTED = 100
MAX_CALLS = {"upload": 250, "upload, awaited owner": 470, "poll": 155}
"""How many Python calls each may need, those of Starlette, anyio and asyncio included."""

CHUNKS = (65_536, 4_464)
HEADERS = [
    (b"host", b"example.org"),
    (b"user-agent", b"curl"),
    (b"accept", b"*/*"),
    (b"content-length", b"%d" % sum(CHUNKS)),
]
POLLED = "polled-upload-0123456789"
Step = Callable[[], Awaitable[object]]


def scope_of(method: str, path: str) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": HEADERS,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def receive_chunks() -> Receive:
    messages = iter(
        {"type": "http.request", "body": bytes(size), "more_body": size == CHUNKS[0]}
        for size in CHUNKS
    )

    async def receive() -> Message:
        return next(messages)

    return receive


def known_owner(_connection: Connection) -> Identity:
    return OWNER


async def awaited_owner(_connection: Connection) -> Identity:
    return OWNER


async def static_document(_request: Request) -> JSONResponse:
    return JSONResponse({"state": "receiving", "transferred_bytes": 1})


async def variants_of(tracker: ProgressTracker) -> dict[str, Step]:
    """Return what is compared: each is one request."""
    middleware = {
        "upload": UploadProgressMiddleware(application, tracker=tracker, authenticate=known_owner),
        "upload, awaited owner": UploadProgressMiddleware(
            application, tracker=tracker, authenticate=awaited_owner
        ),
    }
    routes = progress_routes(tracker, authenticate=known_owner)
    progress = Starlette(routes=[Mount("/uploads", routes=routes), Route("/", static_document)])

    async def upload_bare() -> None:
        await application(scope_of("PUT", "/files/a.bin"), receive_chunks(), discard)

    def upload_by(name: str) -> Step:
        async def upload() -> None:
            await middleware[name](scope_of("PUT", "/files/a.bin"), receive_chunks(), discard)

        return upload

    async def poll() -> None:
        await progress(scope_of("GET", f"/uploads/{POLLED}/progress"), receive_chunks(), discard)

    async def poll_bare() -> None:
        await progress(scope_of("GET", "/"), receive_chunks(), discard)

    return {
        "bare upload": upload_bare,
        "bare poll": poll_bare,
        **{name: upload_by(name) for name in middleware},
        "poll": poll,
    }


async def time_variants(variants: dict[str, Step], rounds: int) -> dict[str, Samples]:
    """Return the processor time of some requests, and of the reports that follow from them."""
    samples, names = {name: Samples() for name in variants}, list(variants)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name in rotate(names, number):
                started = process_time_ns()
                for _ in range(REQUESTS):
                    await variants[name]()
                await asyncio.sleep(0.15)
                samples[name].durations.append((process_time_ns() - started) / REQUESTS / 1000)
            gc.collect()
    finally:
        gc.enable()
    return samples


async def count_calls(step: Step) -> float:
    """Return how many Python functions one request calls, with its report."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    previous = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in range(COUNTED):
            await step()
        await asyncio.sleep(0.15)
    finally:
        sys.setprofile(previous)
    return calls / COUNTED


async def in_tracker(measure: Callable[[dict[str, Step]], Awaitable[object]]) -> None:
    """Call *measure* with the variants, while an upload is received that is polled."""
    tracker = ProgressTracker()
    async with (
        tracker.lifespan(),
        tracker.track(owner=OWNER.id, upload_id=POLLED, total_bytes=1 << 40) as upload,
    ):
        upload.advance(1 << 30)
        variants = await variants_of(tracker)
        for step in variants.values():
            await step()
        await asyncio.sleep(0.3)
        await measure(variants)


def count() -> dict[str, float]:
    """Return the Python calls that each request needs, of the library and its dependencies."""
    calls = dict[str, float]()

    async def measure(variants: dict[str, Step]) -> None:
        for name, step in variants.items():
            calls[name] = await count_calls(step)

    asyncio.run(in_tracker(measure))
    return calls


def measure() -> list[Figure]:
    """Count, then time the variants interleaved, and compare the medians."""
    pin_to_processor(-1)
    calls, samples = count(), dict[str, Samples]()

    async def measure_times(variants: dict[str, Step]) -> None:
        samples.update(await time_variants(variants, ROUNDS))

    asyncio.run(in_tracker(measure_times))
    figures = []
    for name, limit in MAX_CALLS.items():
        bare = f"bare {name.partition(',')[0]}"
        added = median(samples[name].durations) - median(samples[bare].durations)
        figures += [
            Figure(
                name=f"{name}: Python calls",
                value=calls[name],
                unit="calls",
                baseline=calls[bare],
                budget=f"<= {limit}",
                is_met=calls[name] <= limit,
            ),
            Figure(
                name=f"{name}: processor time added",
                value=added,
                unit="µs",
                baseline=median(samples[bare].durations),
                control=samples[bare].control,
            ),
        ]
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
