"""Heads of any content are read in linear time, before the client is known."""

from __future__ import annotations

import time

import pytest
from attrs import define

from tests._support.scripted_server import Message, Receive, Scope, Send
from upload_progress.connection import Connection
from upload_progress.starlette import UploadProgressApp, capability, upload_progress_app

pytestmark = pytest.mark.anyio

SIZE = 64 * 1024
MAX_SECONDS = 1.2
"""For all headers of a request together; a parser in quadratic time needs 2 s for one of them."""
HEADERS = [
    "accept",
    "accept-encoding",
    "authorization",
    "content-disposition",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "forwarded",
    "if-none-match",
    "last-event-id",
    "origin",
    "prefer",
    "sec-websocket-protocol",
    "transfer-encoding",
    "tus-resumable",
    "upload-complete",
    "upload-concat",
    "upload-group",
    "upload-id",
    "upload-incomplete",
    "upload-length",
    "upload-metadata",
    "upload-name",
    "upload-offset",
    "x-amz-decoded-content-length",
    "x-forwarded-for",
    "x-ms-blob-content-type",
    "x-progress-id",
    "x-real-ip",
    "x-upload-content-length",
    "x-upload-content-type",
]
PATTERNS = {
    "semicolons": ";",
    "quotes": '"',
    "backslashes": "\\",
    "spaces": " ",
    "commas": ", ",
    "digits": "9",
    "letters": "a",
    "slashes": "/",
    "escapes": "%41",
    "percent signs": "%",
    "ampersands": "&",
    "names": "; filename=",
    "encoded names": "; filename*=utf-8''%41",
    "continued names": "; filename*0=a",
    "open quotes": ';x="',
    "ranges": "bytes 0-",
    "entity tags": 'W/"x", ',
    "qualities": "a;q=0.1,",
    "paths of OCI": "/v2/blobs/uploads/",
    "parameters": "uploadId=x&upload_id=&",
    "tickets": "ticket=w.x&",
}
TUS = {"tus-resumable": "1.0.0"}
REQUESTS: list[tuple[str, str, str, dict[str, str]]] = [
    ("POST", "/files", "", TUS),
    ("PATCH", "/files/1", "", {**TUS, "upload-offset": "0"}),
    ("HEAD", "/files/1", "", TUS),
    ("POST", "/files", "", {"upload-complete": "?1"}),
    ("PATCH", "/files", "patch=1", {"upload-length": "9", "upload-offset": "0"}),
    ("PUT", "/bucket/key", "partNumber=1&uploadId=u", {}),
    ("PUT", "/container/blob", "comp=block&blockid=1", {"x-ms-version": "1"}),
    ("PUT", "/a", "upload_id=x", {}),
    ("POST", "/form", "", {"content-type": "multipart/form-data; boundary=x"}),
    ("GET", "/uploads/x/progress", "", {}),
    ("GET", "/uploads/progress", "", {"accept": "text/event-stream"}),
    ("POST", "/uploads", "", {}),
    ("DELETE", "/uploads/x", "", {}),
]


@define
class Answers:
    """An application that answers at once, and the status that it or the API has sent."""

    status: int = 0

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Read a message, and answer."""
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(self, message: Message) -> None:
        """Remember the status."""
        self.status = message.get("status", self.status)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Read the heads once: the event loop makes no difference."""
    return "asyncio"


def nobody(_connection: Connection) -> None:
    """Return no identity."""


async def receive() -> Message:
    """Return a short body."""
    return {"type": "http.request", "body": b"abc"}


def scope_of(method: str, path: str, query: bytes, headers: dict[str, str]) -> Scope:
    """Return the scope of a request."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


async def answer_within_the_limit(
    application: UploadProgressApp, answers: Answers, scope: Scope
) -> None:
    """Run a request, and check the time of the processor."""
    start_seconds = time.thread_time()
    await application(scope, receive, answers.send)

    assert time.thread_time() - start_seconds < MAX_SECONDS
    assert 200 <= answers.status < 500


@pytest.mark.parametrize("authenticate", [nobody, capability()], ids=["nobody", "capability"])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
async def test_large_head_costs_linear_time(pattern: str, authenticate: object) -> None:
    assert callable(authenticate)
    text = (pattern * SIZE)[:SIZE]
    answers = Answers()
    application = upload_progress_app(answers, authenticate=authenticate)
    for method, path, query, own in REQUESTS:
        headers = dict.fromkeys(HEADERS, text) | own
        await answer_within_the_limit(
            application, answers, scope_of(method, path, query.encode(), headers)
        )
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "GET"):
        for path in ("/", "/uploads/"):
            long_path = scope_of(method, path + text, b"", {})
            long_query = scope_of(method, f"{path}x/progress", text.encode(), {})
            await answer_within_the_limit(application, answers, long_path)
            await answer_within_the_limit(application, answers, long_query)
