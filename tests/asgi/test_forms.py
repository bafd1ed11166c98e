"""The bounded look into a form: its first 4 KiB, however the client cuts them up."""

from __future__ import annotations

import pytest

from tests._support.asgi_probe import BIG, body, drink, ended, head, respond, run_through
from upload_progress import ProgressTracker
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.protocols import MULTIPART_LOOK_BYTES

pytestmark = pytest.mark.anyio


async def sink(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read everything, and answer."""
    await drink(receive)
    await respond(send)


HEADER = b"Content-Disposition: form-data; name=f; filename=cat.png\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "name"),
    [
        ([b"--x\r\n", HEADER, bytes(BIG)], "cat.png"),
        ([b"", b"--x\r\n" + HEADER[:30], HEADER[30:] + bytes(BIG)], "cat.png"),
        ([b"--x\r\n", b"y" * MULTIPART_LOOK_BYTES, b"\r\n--x\r\n" + HEADER, bytes(BIG)], None),
        ([b"--x\r\n" + bytes(BIG)], None),
    ],
)
async def test_a_name_is_found_within_the_first_bytes(
    *, pieces: list[bytes], name: str | None
) -> None:
    tracker = ProgressTracker()
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    scope = head(length=sum(map(len, pieces)), headers=[kind], method="POST")

    await run_through(sink, tracker, scope=scope, messages=body(*pieces))

    progress = await ended(tracker)
    assert progress.filename == name
    assert progress.bytes_transferred == progress.total_bytes == sum(map(len, pieces))
