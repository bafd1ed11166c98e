"""Applications of seven frameworks respond the same with and without the middleware.

Each application runs on two real servers, with and without the middleware. Responses differ only
in the two added headers. Uploads are reported while they arrive.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from attrs import frozen
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from tests._support.asgi_servers import run_app
from tests._support.scripted_server import App, authenticate_alice
from tests.servers.framework_apps import FRAMEWORKS
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import progress_mount

CONTENT = random.Random(9).randbytes(1_000_000)  # noqa: S311  # the same bytes in every run
# If the body is not read, the server closes the connection while bytes may still be arriving. The
# kernel then sends RST, and the response may be lost. So these requests have no body.
WITHOUT_BODY: dict[str, object] = {"content": b"", "headers": {"Upload-Id": "none"}}
MAX_POLLS = 2000
TIMEOUT_SECONDS = 30


@frozen
class ClientPair:
    """A client for the application with the middleware, and one for the application without."""

    tracked: httpx2.Client
    untracked: httpx2.Client


def tracked(app: App) -> App:
    """Return *app* with middleware and routes, as in the server guide."""
    tracker = ProgressTracker()
    middleware = Middleware(
        UploadProgressMiddleware, tracker=tracker, authenticate=authenticate_alice
    )
    return Starlette(
        routes=[progress_mount(tracker, authenticate=authenticate_alice), Mount("/", app)],
        middleware=[middleware],
        lifespan=tracker.lifespan,
    )


@pytest.fixture(scope="module", params=FRAMEWORKS)
def clients(request: pytest.FixtureRequest) -> Iterator[ClientPair]:
    """Serve the application of a framework, with and without the middleware."""
    app = FRAMEWORKS[request.param]()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(run_app(each))
            for each in (tracked(app), Starlette(routes=[Mount("/", app)]))
        ]
        opened = [
            stack.enter_context(httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS))
            for url in urls
        ]
        yield ClientPair(*opened)


def comparable(response: httpx2.Response) -> tuple[object, ...]:
    """Return a response without the date and the headers that the middleware adds."""
    headers = [
        pair
        for pair in response.headers.multi_items()
        if pair[0] not in {"date", "upload-id", "link"}
    ]
    return (response.status_code, headers, response.content)


def chunks(size: int) -> Iterator[bytes]:
    """Yield the content in chunks of *size*."""
    for start in range(0, len(CONTENT), size):
        yield CONTENT[start : start + size]


REQUESTS: dict[str, tuple[str, str, dict[str, object]]] = {
    "empty": ("PUT", "/raw", {"content": b""}),
    "small": ("PUT", "/raw", {"content": b"small"}),
    "large": ("PUT", "/raw", {"content": CONTENT}),
    "form": ("POST", "/form", {"files": {"file": ("ü 1.bin", CONTENT)}, "data": {"note": "n"}}),
    "refused": ("PUT", "/refused", WITHOUT_BODY),
    "broken": ("PUT", "/broken", {"content": CONTENT}),
    "unsupported method": ("PATCH", "/raw", WITHOUT_BODY),
    "unknown path": ("PUT", "/nowhere", WITHOUT_BODY),
    "GET": ("GET", "/raw", {}),
    "tus creation": (
        "POST",
        "/resumable",
        {"headers": {"Tus-Resumable": "1.0.0", "Upload-Length": "9"}},
    ),
    "tus": (
        "PATCH",
        "/resumable",
        {"content": b"abc", "headers": {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}},
    ),
    "IETF": (
        "POST",
        "/resumable",
        {
            "content": b"abc",
            "headers": {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"},
        },
    ),
    "S3": ("PUT", "/resumable?partNumber=1&uploadId=u", {"content": b"abc"}),
    "Content-Range": (
        "PUT",
        "/resumable",
        {"content": b"abc", "headers": {"Content-Range": "bytes 0-2/9"}},
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_responses_are_the_same(name: str, clients: ClientPair) -> None:
    method, path, body = REQUESTS[name]
    responses = [
        client.request(method, path, **body)  # type: ignore[arg-type]  # arguments differ by request
        for client in (clients.tracked, clients.untracked)
    ]

    assert comparable(responses[0]) == comparable(responses[1])


def test_body_of_unknown_length_is_the_same(clients: ClientPair) -> None:
    responses = [
        client.put("/raw", content=chunks(77_777))
        for client in (clients.tracked, clients.untracked)
    ]

    assert comparable(responses[0]) == comparable(responses[1])
    assert responses[0].json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_form_is_received(clients: ClientPair) -> None:
    response = clients.tracked.post("/form", files={"file": ("f", CONTENT)}, data={"note": "n"})
    upload = clients.tracked.get(response.links["status"]["url"]).json()

    reported = response.json()
    assert reported["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (reported["name"], reported["note"]) == ("f", "n")
    assert (upload["state"], upload["filename"]) == ("completed", "f")


def test_progress_is_reported_during_the_upload(clients: ClientPair) -> None:
    states = list[str]()

    def body() -> Iterator[bytes]:
        yield CONTENT[:500_000]
        polls = (clients.tracked.get("/uploads/shown/progress").json() for _ in range(MAX_POLLS))
        seen = next(poll for poll in polls if poll.get("bytes_transferred") == 500_000)
        states.append(seen["state"])
        yield CONTENT[500_000:]

    headers = {"Upload-Id": "shown", "Content-Length": str(len(CONTENT))}
    clients.tracked.put("/raw", content=body(), headers=headers)
    end = clients.tracked.get("/uploads/shown/progress").json()

    assert states == ["receiving"]
    assert (end["state"], end["percent"]) == ("completed", 100.0)


def test_refused_and_failed_uploads_are_reported(clients: ClientPair) -> None:
    ends = {}
    for name, body in (("refused", b""), ("broken", CONTENT)):
        clients.tracked.put(f"/{name}", content=body, headers={"Upload-Id": name})
        ends[name] = clients.tracked.get(f"/uploads/{name}/progress").json()

    reported = {name: (end["state"], end["error"]["http_status"]) for name, end in ends.items()}
    assert reported == {"refused": ("failed", 413), "broken": ("failed", 500)}
