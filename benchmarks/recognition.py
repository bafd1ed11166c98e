"""What it costs to find out whether a request is a piece of an upload in many requests.

The middleware with all protocols and without any, in turns, around an application that answers at
once: a request that no protocol knows, and each of those that one does. Only the heads differ.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from benchmarks.common import Figure, in_turns, own_cpu, run
from benchmarks.requests import OWNER, drive, swallow
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.receive import Message, Receive, Scope, Send
from upload_progress.connection import Connection
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol

CLAIM = "recognition of uploads in many requests"
ROUNDS = 400
REQUESTS = 50
BUDGET_MICROSECONDS = 20.0

PLAIN = [(b"host", b"example.org"), (b"user-agent", b"curl"), (b"accept", b"*/*")]
HEADS = {
    "GET": ("GET", "/simple/", b"", []),
    "POST without a body": ("POST", "/files", b"", [(b"content-length", b"0")]),
    "DELETE": ("DELETE", "/files/1", b"", []),
    "PUT of 1 KiB": ("PUT", "/files/a.bin", b"", [(b"content-length", b"1024")]),
}
READ = {
    "tus": ("PATCH", "/files/1", b"", [(b"tus-resumable", b"1.0.0"), (b"upload-offset", b"5")]),
    "ietf": ("PATCH", "/files/1", b"", [(b"upload-complete", b"?1"), (b"upload-offset", b"5")]),
    "oci": ("PATCH", "/v2/a/blobs/uploads/1", b"", [(b"content-range", b"0-9")]),
    "s3": ("PUT", "/b/k", b"partNumber=1&uploadId=a", [(b"content-length", b"9")]),
    "range": ("PUT", "/files/a", b"", [(b"content-range", b"bytes 0-9/30")]),
    "none": ("PUT", "/files/a", b"", [(b"content-length", b"9")]),
}


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def scope_of(head: tuple[str, str, bytes, list[tuple[bytes, bytes]]]) -> Scope:
    method, path, query, headers = head
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [*PLAIN, *headers],
    }


def serve(head: str, protocols: Collection[TransferProtocol]) -> None:
    """Answer some requests through the middleware."""
    tracker = ProgressTracker()
    app = UploadProgressMiddleware(
        answer, tracker=tracker, authenticate=lambda _: OWNER, protocols=protocols
    )
    for _ in range(REQUESTS):
        drive(app(scope_of(HEADS[head]), nothing, swallow))


def read(head: str) -> None:
    """Let each protocol look at a head, as the middleware does, until one knows it."""

    for _ in range(REQUESTS):
        connection = Connection(scope_of(READ[head]))
        for protocol in DEFAULT_PROTOCOLS:
            if protocol.read_request(connection) is not None:
                break


def measure() -> list[Figure]:
    """Time all in turns, and compare the fastest runs."""
    own_cpu(-1)
    calls = {
        (head, which): partial(serve, head, protocols)
        for head in HEADS
        for which, protocols in (("with", DEFAULT_PROTOCOLS), ("without", ()))
    }
    samples = in_turns({"|".join(key): call for key, call in calls.items()}, rounds=ROUNDS)
    figures = []
    for head in HEADS:
        recognised, bare = (samples[f"{head}|{which}"] for which in ("with", "without"))
        added = (recognised.least - bare.least) / REQUESTS / 1000
        figures.append(
            Figure(
                what=f"added to {head}, by all protocols",
                value=added,
                unit="µs",
                baseline=bare.least / REQUESTS / 1000,
                ratio=recognised.least / bare.least,
                control=bare.control,
                budget=f"<= {BUDGET_MICROSECONDS} µs",
                holds=added <= BUDGET_MICROSECONDS,
            )
        )
    reads = in_turns({head: partial(read, head) for head in READ}, rounds=ROUNDS)
    for head, sample in reads.items():
        taken = sample.least / REQUESTS / 1000
        figures.append(
            Figure(
                what=f"reading the head of a piece: {head}",
                value=taken,
                unit="µs",
                budget=f"<= {BUDGET_MICROSECONDS} µs",
                holds=taken <= BUDGET_MICROSECONDS,
            )
        )
    return figures


if __name__ == "__main__":
    run(CLAIM, measure)
