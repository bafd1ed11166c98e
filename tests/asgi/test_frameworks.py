"""In other people's hands: FastAPI, Litestar, Quart and Django see what they would see without.

Each runs twice on a real server, with the middleware around it and without; the same requests
are answered alike, but for the two headers. And its uploads are followed while they arrive.
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
# Where nobody reads the body, a server closes the connection while some of it may be on its way;
# the system answers that with a reset, and the answer may be lost. So those get none.
NONE: dict[str, object] = {"content": b"", "headers": {"Upload-Id": "none"}}
LOOKS = 2000
SECONDS = 30


@frozen
class Pair:
    """A client for the application with the middleware, and one for it without."""

    followed: httpx2.Client
    bare: httpx2.Client


def followed(app: App) -> App:
    """Return *app* as the server guide puts any application under progress."""
    tracker = ProgressTracker()
    follow = Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate_alice)
    return Starlette(
        routes=[progress_mount(tracker, authenticate=authenticate_alice), Mount("/", app)],
        middleware=[follow],
        lifespan=tracker.lifespan,
    )


@pytest.fixture(scope="module", params=FRAMEWORKS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Serve one framework's application, with and without."""
    app = FRAMEWORKS[request.param]()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(run_app(each))
            for each in (followed(app), Starlette(routes=[Mount("/", app)]))
        ]
        clients = [
            stack.enter_context(httpx2.Client(base_url=url, timeout=SECONDS)) for url in urls
        ]
        yield Pair(*clients)


def comparable(answer: httpx2.Response) -> tuple[object, ...]:
    """Return all of an answer but the date, and what the middleware adds."""
    headers = [
        pair
        for pair in answer.headers.multi_items()
        if pair[0] not in {"date", "upload-id", "link"}
    ]
    return (answer.status_code, headers, answer.content)


def pieces(size: int) -> Iterator[bytes]:
    """Yield the content, in pieces of a *size* that fits no buffer."""
    for start in range(0, len(CONTENT), size):
        yield CONTENT[start : start + size]


REQUESTS: dict[str, tuple[str, str, dict[str, object]]] = {
    "nothing": ("PUT", "/raw", {"content": b""}),
    "small": ("PUT", "/raw", {"content": b"small"}),
    "large": ("PUT", "/raw", {"content": CONTENT}),
    "form": ("POST", "/form", {"files": {"file": ("ü 1.bin", CONTENT)}, "data": {"note": "n"}}),
    "refused": ("PUT", "/refused", NONE),
    "broken": ("PUT", "/broken", {"content": CONTENT}),
    "of no method": ("PATCH", "/raw", NONE),
    "to nowhere": ("PUT", "/nowhere", NONE),
    "asking only": ("GET", "/raw", {}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_the_same(name: str, pair: Pair) -> None:
    method, path, body = REQUESTS[name]
    answers = [
        client.request(method, path, **body)  # type: ignore[arg-type]  # each has its own names
        for client in (pair.followed, pair.bare)
    ]

    assert comparable(answers[0]) == comparable(answers[1])


def test_a_body_of_unknown_length_is_the_same(pair: Pair) -> None:
    answers = [client.put("/raw", content=pieces(77_777)) for client in (pair.followed, pair.bare)]

    assert comparable(answers[0]) == comparable(answers[1])
    assert answers[0].json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_form_arrives(pair: Pair) -> None:
    answer = pair.followed.post("/form", files={"file": ("f", CONTENT)}, data={"note": "n"})
    upload = pair.followed.get(answer.links["status"]["url"]).json()

    told = answer.json()
    assert told["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (told["name"], told["note"]) == ("f", "n")
    assert (upload["state"], upload["filename"]) == ("completed", "f")


def test_progress_is_shown_while_it_arrives(pair: Pair) -> None:
    states = list[str]()

    def body() -> Iterator[bytes]:
        yield CONTENT[:500_000]
        looks = (pair.followed.get("/uploads/shown/progress").json() for _ in range(LOOKS))
        seen = next(look for look in looks if look.get("bytes_transferred") == 500_000)
        states.append(seen["state"])
        yield CONTENT[500_000:]

    headers = {"Upload-Id": "shown", "Content-Length": str(len(CONTENT))}
    pair.followed.put("/raw", content=body(), headers=headers)
    end = pair.followed.get("/uploads/shown/progress").json()

    assert states == ["receiving"]
    assert (end["state"], end["percent"]) == ("completed", 100.0)


def test_what_is_refused_or_breaks_is_told(pair: Pair) -> None:
    ends = {}
    for name, body in (("refused", b""), ("broken", CONTENT)):
        pair.followed.put(f"/{name}", content=body, headers={"Upload-Id": name})
        ends[name] = pair.followed.get(f"/uploads/{name}/progress").json()

    told = {name: (end["state"], end["error"]["http_status"]) for name, end in ends.items()}
    assert told == {"refused": ("failed", 413), "broken": ("failed", 500)}
