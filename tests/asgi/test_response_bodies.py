"""S3 answers 200 to a completion before it has assembled the parts: the body says what happened."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests._support.protocol_apps import FileApp, send_request
from tests._support.scripted_server import ALICE, Receive, Scope, Send
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of

pytestmark = pytest.mark.anyio

XML = {"content-type": "application/xml"}
HEADER = b'<?xml version="1.0" encoding="UTF-8"?>\n'
ERROR = b"<Error><Code>InternalError</Code></Error>"
RESULT = b"<CompleteMultipartUploadResult/>"


class Streams:
    """Responds with status 200 and a body in several messages."""

    def __init__(self, messages: Sequence[dict[str, object]]) -> None:
        self.messages = messages

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in self.messages:
            await send({"type": "http.response.body", "more_body": True, **message})
        await send({"type": "http.response.body"})


async def complete(
    *messages: dict[str, object], method: str = "POST", path: str = "/b/k?uploadId=u"
) -> tuple[UploadProgress, list[dict[str, object]]]:
    """Send a part and a completion; return the upload, and the body of the second response."""
    tracker = ProgressTracker(store=MemoryStore())
    part = "/b/k?partNumber=1&uploadId=u"
    await send_request(FileApp(), tracker, "PUT", part, content=bytes(10))
    server = await send_request(
        Streams(messages), tracker, method, path, headers=XML, content=b"<a/>"
    )
    await internals_of(tracker).flusher.flush(everything=True)
    [shown] = (await tracker.list(owner=ALICE, states=set(UploadState))).uploads
    return shown, [dict(message) for message in server.sent[1:]]


@pytest.mark.parametrize(
    "bodies",
    [
        [HEADER + ERROR],
        [b" ", b"\n" * 5000, b" " + HEADER[:9], HEADER[9:] + ERROR[:3], ERROR[3:]],
        [ERROR, b"x" * 10_000],
    ],
)
async def test_error_after_success_fails_the_upload(bodies: list[bytes]) -> None:
    messages: list[dict[str, object]] = [{"body": body} for body in bodies]
    shown, sent = await complete(*messages)

    assert (shown.state, shown.bytes_transferred) == (UploadState.FAILED, 10)
    assert shown.error is not None
    assert (shown.error.code, shown.error.http_status) == ("rejected", 200)
    assert [message.get("body") for message in sent] == [*bodies, None]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"body": b" " * 10}, {"body": HEADER + RESULT}],
        [{"body": RESULT}, {"body": ERROR}],
        [{"body": b"x" * 5000}, {"body": ERROR}],
        [{"body": None}],
    ],
)
async def test_any_other_body_completes_the_upload(messages: list[dict[str, object]]) -> None:
    shown, _sent = await complete(*messages)

    assert (shown.state, shown.error) == (UploadState.COMPLETED, None)


async def test_body_of_a_part_is_not_read() -> None:
    shown, _sent = await complete(
        {"body": ERROR}, method="PUT", path="/b/k?partNumber=1&uploadId=u"
    )

    assert shown.error is None
