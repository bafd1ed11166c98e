"""Content-Range: forms of the header, queries, identity of an upload, and Google's sessions."""

from __future__ import annotations

import time

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import (
    ContentRange,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
)
from upload_progress.protocols.content_range import end_of_range, read_range

RANGE = ContentRange()
R = TransferResult


def read(
    text: str, *headers: tuple[bytes, bytes], method: str = "PUT", query: bytes = b""
) -> TransferHead:
    """Return the transfer of a request with ``Content-Range``."""
    connection = request(
        method, "/files/a.bin", (b"content-range", text.encode()), *headers, query=query
    )
    head = RANGE.read_request(connection)
    assert head is not None
    return head


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", (0, 10, 10)),
        ("Bytes 0-9/10", (0, 10, 10)),
        ("BYTES=0-9/10", (0, 10, 10)),
        ("bytes: 0-9/10", (0, 10, 10)),
        ("bytes 0-9 / 10", (0, 10, 10)),
        (" bytes  0 - 9/10 ", (0, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        ("bytes 5-9", (5, 10, None)),
        ("0-1999999", (0, 2_000_000, None)),
        ("0-9/10", (0, 10, 10)),
        ("bytes 5-10/10", (5, 10, 10)),
        ("bytes 0-10/10", (0, 10, 10)),
        ("bytes 10-10/10", None),
        ("bytes 0-11/10", None),
        ("bytes */10", None),
        ("bytes 9-0/10", None),
        ("bytes 0-9007199254740991/*", None),
        ("bytes -1-9/10", None),
        ("items 0-9/10", None),
        ("bytes 0-9/10/10", None),
        ("", None),
        (None, None),
    ],
)
def test_forms_of_content_range(text: str | None, expected: tuple[int, int, int | None]) -> None:
    assert read_range(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-9", 10),
        ("Bytes: 0-9", 10),
        ("0-9", 10),
        ("bytes 0-9/20", 10),
        ("bytes=0-9,20-29", 10),
        ("bytes=5-9", None),
        ("bytes=0-x", None),
        ("", None),
        (None, None),
    ],
)
def test_range_of_responses(text: str | None, expected: int | None) -> None:
    assert end_of_range(text) == expected


def test_long_header_is_read_at_once() -> None:
    start_seconds = time.process_time()
    for text in ("bytes" + " " * 60_000 + "x", "bytes 0-9" + " " * 60_000 + "x", "=" * 60_000):
        assert read_range(text) is None
        assert end_of_range(text) is None

    assert time.process_time() - start_seconds < 0.1


@pytest.mark.parametrize("text", ["bytes 5-3/30", "items 0-3/30", "bytes x", "", "bytes 0-40/30"])
def test_header_that_is_not_understood_is_a_part_of_unknown_size(text: str) -> None:
    head = read(text, (b"content-length", b"4"))

    assert head.kind is TransferKind.BYTES
    assert (head.offset, head.length, head.total_bytes) == (None, None, None)
    assert not head.completes_at_total
    assert RANGE.read_response(head, 200, {}).result is R.ACCEPTED


@pytest.mark.parametrize("text", ["bytes */30", "Bytes: */30", "*/30", "bytes=*/30"])
def test_query(text: str) -> None:
    head = read(text, (b"content-length", b"0"), (b"content-type", b"text/plain"))

    assert (head.kind, head.total_bytes) == (TransferKind.QUERY, 30)
    assert not head.carries_bytes
    assert (head.filename, head.content_type) == ("a.bin", None)
    assert RANGE.read_response(head, 308, {"range": "bytes=0-9"}) == TransferOutcome(
        R.ACCEPTED, offset=10
    )
    assert RANGE.read_response(head, 308, {}) == TransferOutcome(R.ACCEPTED, offset=0)
    assert RANGE.read_response(head, 200, {}) == TransferOutcome(R.COMPLETED, total_bytes=30)
    assert RANGE.read_response(head, 200, {"range": "0-29"}).result is R.COMPLETED
    assert RANGE.read_response(head, 204, {"range": "0-9"}) == TransferOutcome(
        R.ACCEPTED, offset=10
    )


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410, 499, 500])
def test_refused_query_says_nothing(status: int) -> None:
    assert RANGE.read_response(read("bytes */30"), status, {}) == TransferOutcome(R.REFUSED)


def test_query_of_an_upload_of_unknown_size() -> None:
    head = read("bytes */*")

    assert (head.kind, head.total_bytes) == (TransferKind.QUERY, None)
    assert RANGE.read_response(head, 308, {"range": "0-4"}).offset == 5
    assert RANGE.read_response(head, 200, {}) == TransferOutcome(R.COMPLETED)
    assert RANGE.read_response(head, 200, {"range": "0-4"}).result is R.ACCEPTED


@pytest.mark.parametrize("body", [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")])
def test_request_with_a_body_is_no_query(body: tuple[bytes, bytes]) -> None:
    head = read("bytes */*", body)

    assert (head.kind, head.offset) == (TransferKind.BYTES, None)


def test_permanent_redirect_accepts_nothing() -> None:
    """308 is also "Permanent Redirect" (RFC 9110, section 15.4.9)."""
    head = read("bytes 0-9/30")

    assert RANGE.read_response(head, 308, {"location": "/b"}).result is R.REFUSED
    assert RANGE.read_response(head, 308, {"range": "x"}).result is R.REFUSED
    accepted = RANGE.read_response(head, 308, {"range": "0-4", "location": "/b"})
    assert accepted == TransferOutcome(R.ACCEPTED, offset=5)
    assert RANGE.read_response(head, 308, {}) == TransferOutcome(R.ACCEPTED, offset=0)


def test_upload_is_identified_by_path_and_query() -> None:
    assert read("bytes 0-9/30").resource == "/files/a.bin"
    assert read("bytes 0-9/30", query=b"file=a").resource == "/files/a.bin?file=a"


def test_posted_upload_is_identified_by_its_file_name_too() -> None:
    named = [(b"content-disposition", f'attachment; filename="{name}"'.encode()) for name in "ab"]
    resources = {read("bytes 0-9/30", name, method="POST").resource for name in named}
    resources.add(read("bytes 0-9/30", method="POST").resource)

    assert len(resources) == 3
    assert len({read("bytes 0-9/30", name).resource for name in named}) == 1


def test_name_and_type_are_those_of_a_plain_upload() -> None:
    typed = (b"content-type", b"text/plain; charset=utf-8")
    named = (b"content-disposition", b'attachment; filename="b.txt"')

    assert (head := read("bytes 0-9/30", typed)).filename == "a.bin"
    assert head.content_type == "text/plain"
    assert read("bytes 0-9/30", named, method="PATCH").filename == "b.txt"
    assert read("bytes 0-9/30", method="PATCH").filename is None


GOOGLE = b"uploadType=resumable&name=folder%2Fa.txt"


def create(*headers: tuple[bytes, bytes], query: bytes = GOOGLE) -> TransferHead | None:
    """Return the creation of one of Google's sessions."""
    return RANGE.read_request(request("POST", "/upload/b/o", *headers, query=query))


def test_creation_of_a_google_session() -> None:
    head = create((b"x-upload-content-type", b"text/plain"), (b"x-upload-content-length", b"30"))

    assert head is not None
    assert (head.kind, head.total_bytes, head.carries_bytes) == (TransferKind.CREATE, 30, False)
    assert (head.filename, head.content_type) == ("a.txt", "text/plain")
    location = "http://example.org/upload/b/o?uploadType=resumable&upload_id=1"
    assert RANGE.read_response(head, 200, {"location": location}) == TransferOutcome(
        R.CREATED, "/upload/b/o?uploadType=resumable&upload_id=1"
    )
    assert RANGE.read_response(head, 200, {"location": "/b"}).result is R.NOTHING
    assert RANGE.read_response(head, 200, {}).result is R.NOTHING
    assert RANGE.read_response(head, 403, {}).result is R.REFUSED


def test_google_session_without_a_size() -> None:
    head = create((b"x-upload-content-type", b"text/plain"))

    assert head is not None
    assert head.total_bytes is None
    sized = create((b"x-upload-content-length", b"3"), query=b"uploadType=resumable")
    assert sized is not None
    assert (sized.filename, sized.content_type) == (None, None)


def test_own_query_parameters_create_no_google_session() -> None:
    length = (b"x-upload-content-length", b"30")

    assert create() is None
    assert create(length, query=b"kind=uploadType=resumable") is None
    assert create(length, query=b"uploadType=media") is None
    assert create(length, query=GOOGLE + b"&upload_id=1") is None
    assert RANGE.read_request(request("DELETE", "/upload/b/o", length, query=GOOGLE)) is None


def test_whole_upload_to_a_google_session() -> None:
    query = GOOGLE + b"&upload_id=1"
    head = RANGE.read_request(
        request("PUT", "/upload/b/o", (b"content-length", b"30"), query=query)
    )

    assert head is not None
    assert (head.kind, head.length, head.total_bytes) == (TransferKind.BYTES, 30, 30)
    assert head.filename == "a.txt"
    assert RANGE.read_response(head, 200, {}).result is R.COMPLETED
    assert RANGE.read_response(head, 308, {"range": "bytes=0-9"}) == TransferOutcome(
        R.ACCEPTED, offset=10
    )
    assert RANGE.read_response(head, 503, {}).result is R.REFUSED
