"""Budget 20: time to detect whether a request is part of an upload in several requests.

Requests run through the middleware with all protocols and without any, interleaved, to an
application that responds at once. Then the protocols read the head of a request of each protocol.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from benchmarks.harness import Figure, interleave, pin_to_processor, run
from benchmarks.synthetic_requests import OWNER, discard, run_without_loop
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send
from upload_progress.connection import Connection
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol

TITLE = "protocol detection"
ROUNDS = 400
REQUESTS = 50
BUDGET_MICROSECONDS = 20.0

PLAIN = [(b"host", b"example.org"), (b"user-agent", b"curl"), (b"accept", b"*/*")]
REQUEST_HEADS = {
    "GET": ("GET", "/simple/", b"", []),
    "POST without a body": ("POST", "/files", b"", [(b"content-length", b"0")]),
    "DELETE": ("DELETE", "/files/1", b"", []),
    "PUT of 1 KiB": ("PUT", "/files/a.bin", b"", [(b"content-length", b"1024")]),
}
TRANSFER_HEADS = {
    "tus": ("PATCH", "/files/1", b"", [(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"5")]),
    "ietf": ("PATCH", "/files/1", b"", [(b"upload-complete", b"?1"), (b"upload-offset", b"5")]),
    "oci": ("PATCH", "/v2/a/blobs/uploads/1", b"", [(b"content-range", b"0-9")]),
    "s3": ("PUT", "/b/k", b"partNumber=1&uploadId=a", [(b"content-length", b"9")]),
    "range": ("PUT", "/files/a", b"", [(b"content-range", b"bytes 0-9/30")]),
    "none": ("PUT", "/files/a", b"", [(b"content-length", b"9")]),
}


async def response(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def empty_receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def scope_of(request_head: tuple[str, str, bytes, list[tuple[bytes, bytes]]]) -> Scope:
    method, path, query, headers = request_head
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [*PLAIN, *headers],
    }


def respond_to(request_head: str, protocols: Collection[TransferProtocol]) -> None:
    """Handle some requests through the middleware."""
    tracker = ProgressTracker()
    app = UploadProgressMiddleware(
        response, tracker=tracker, authenticate=lambda _: OWNER, protocols=protocols
    )
    for _ in range(REQUESTS):
        run_without_loop(app(scope_of(REQUEST_HEADS[request_head]), empty_receive, discard))


def read_heads(request_head: str) -> None:
    """Let the protocols read a head until one recognizes it, as the middleware does."""
    for _ in range(REQUESTS):
        connection = Connection(scope_of(TRANSFER_HEADS[request_head]))
        for protocol in DEFAULT_PROTOCOLS:
            if protocol.read_request(connection) is not None:
                break


def measure() -> list[Figure]:
    """Time the variants interleaved, and compare the fastest runs."""
    pin_to_processor(-1)
    calls = {
        (request_head, variant): partial(respond_to, request_head, protocols)
        for request_head in REQUEST_HEADS
        for variant, protocols in (("with", DEFAULT_PROTOCOLS), ("without", ()))
    }
    samples = interleave({"|".join(key): call for key, call in calls.items()}, rounds=ROUNDS)
    figures = []
    for request_head in REQUEST_HEADS:
        detecting, untracked = (
            samples[f"{request_head}|{variant}"] for variant in ("with", "without")
        )
        added = (detecting.minimum - untracked.minimum) / REQUESTS / 1000
        figures.append(
            Figure(
                name=f"added to {request_head} by all protocols",
                value=added,
                unit="µs",
                baseline=untracked.minimum / REQUESTS / 1000,
                ratio=detecting.minimum / untracked.minimum,
                control=untracked.control,
                budget=f"<= {BUDGET_MICROSECONDS} µs",
                is_met=added <= BUDGET_MICROSECONDS,
            )
        )
    reads = interleave(
        {request_head: partial(read_heads, request_head) for request_head in TRANSFER_HEADS},
        rounds=ROUNDS,
    )
    for request_head, sample in reads.items():
        microseconds = sample.minimum / REQUESTS / 1000
        figures.append(
            Figure(
                name=f"reading a request head: {request_head}",
                value=microseconds,
                unit="µs",
                budget=f"<= {BUDGET_MICROSECONDS} µs",
                is_met=microseconds <= BUDGET_MICROSECONDS,
            )
        )
    return figures


if __name__ == "__main__":
    run(TITLE, measure)
