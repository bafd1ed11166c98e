"""The bounded search for a file name in a form: its first 4 KiB, in any chunks."""

from __future__ import annotations

import pytest

from tests._support.scripted_server import (
    LARGE_BYTES,
    body_messages,
    read_body,
    run_request,
    send_response,
    upload_scope,
    wait_for_end,
)
from upload_progress import ProgressTracker
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.protocols import FORM_PREFIX_BYTES

pytestmark = pytest.mark.anyio


async def read_and_respond(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and respond."""
    await read_body(receive)
    await send_response(send)


HEADER = b"Content-Disposition: form-data; name=f; filename=cat.png\r\n\r\n"


@pytest.mark.parametrize(
    ("chunks", "name"),
    [
        ([b"--x\r\n", HEADER, bytes(LARGE_BYTES)], "cat.png"),
        ([b"", b"--x\r\n" + HEADER[:30], HEADER[30:] + bytes(LARGE_BYTES)], "cat.png"),
        (
            [b"--x\r\n", b"y" * FORM_PREFIX_BYTES, b"\r\n--x\r\n" + HEADER, bytes(LARGE_BYTES)],
            None,
        ),
        ([b"--x\r\n" + bytes(LARGE_BYTES)], None),
        ([b"--x\r\n" + HEADER[:-6], HEADER[-6:] + bytes(LARGE_BYTES)], "cat.png"),
        ([*(bytes([byte]) for byte in b"--x\r\n" + HEADER), bytes(LARGE_BYTES)], "cat.png"),
    ],
)
async def test_filename_is_found_in_the_first_bytes(
    *, chunks: list[bytes], name: str | None
) -> None:
    tracker = ProgressTracker()
    content_type = (b"content-type", b"multipart/form-data; boundary=x")
    scope = upload_scope(length=sum(map(len, chunks)), headers=[content_type], method="POST")

    await run_request(read_and_respond, tracker, scope=scope, messages=body_messages(*chunks))

    progress = await wait_for_end(tracker)
    assert progress.filename == name
    assert progress.bytes_transferred == progress.total_bytes == sum(map(len, chunks))


@pytest.mark.parametrize(("header", "name"), [(HEADER, "cat.png"), (b"\r\n\r\n", "one")])
async def test_name_in_a_form_replaces_the_last_segment_of_the_path(
    header: bytes, name: str
) -> None:
    """Streamlit sends forms with PUT to a path that ends with a random id."""
    tracker = ProgressTracker()
    chunks = [b"--x\r\n" + header, bytes(LARGE_BYTES)]
    content_type = (b"content-type", b"multipart/form-data; boundary=x")
    length = sum(map(len, chunks))
    scope = upload_scope(length=length, headers=[content_type], method="PUT", path="/upload/one")

    await run_request(read_and_respond, tracker, scope=scope, messages=body_messages(*chunks))

    assert (await wait_for_end(tracker)).filename == name


async def test_number_of_searches_does_not_depend_on_the_number_of_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    def count(header: bytes) -> None:
        searched.append(len(header))

    monkeypatch.setattr("upload_progress.protocols.request_head._part_filename", count)
    form = b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n" + b"y" * FORM_PREFIX_BYTES
    chunks = [*(bytes([byte]) for byte in form), bytes(LARGE_BYTES)]
    content_type = (b"content-type", b"multipart/form-data; boundary=x")
    scope = upload_scope(length=sum(map(len, chunks)), headers=[content_type], method="POST")
    await run_request(
        read_and_respond, ProgressTracker(), scope=scope, messages=body_messages(*chunks)
    )

    header_bytes = form.index(b"y")
    assert searched == [header_bytes - 4, FORM_PREFIX_BYTES - header_bytes]


async def test_each_header_of_a_part_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts there are: the search is bounded in total."""
    searched: list[bytes] = []
    monkeypatch.setattr("upload_progress.protocols.request_head._part_filename", searched.append)
    chunks = [b"--x\r\nContent-Disposition: form-data; name=resumableFilename\r\n\r\ny\r\n"] * 200
    chunks += [b"\r\n\r\n"] * 200
    content_type = (b"content-type", b"multipart/form-data; boundary=x")
    scope = upload_scope(length=sum(map(len, chunks)), headers=[content_type], method="POST")
    await run_request(
        read_and_respond, ProgressTracker(), scope=scope, messages=body_messages(*chunks)
    )

    assert len(searched) > 50
    assert sum(map(len, searched)) <= FORM_PREFIX_BYTES
