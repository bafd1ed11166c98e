"""The IETF draft: completeness in requests and responses, queries, names, and older versions."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import (
    IetfResumable,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
)

IETF = IetfResumable()
R = TransferResult
LAST, PART = (b"upload-complete", b"?1"), (b"upload-complete", b"?0")
INTEROP = (b"upload-draft-interop-version", b"8")
FINAL, OPEN = {"upload-complete": "?1"}, {"upload-complete": "?0"}


def read(method: str, *headers: tuple[bytes, bytes], query: bytes = b"") -> TransferHead:
    """Return the transfer of a request of the draft."""
    head = IETF.read_request(request(method, "/f/1", *headers, query=query))
    assert head is not None
    return head


def test_whole_upload_in_one_request() -> None:
    head = read("POST", LAST, (b"content-length", b"10"))

    assert (head.kind, head.total_bytes, head.is_last) == (TransferKind.CREATE, 10, True)
    assert IETF.read_response(head, 200, {}).result is R.COMPLETED
    assert IETF.read_response(head, 200, {**OPEN, "location": "/f/1?a=b"}) == TransferOutcome(
        R.CREATED, "/f/1?a=b"
    )
    assert IETF.read_response(head, 200, OPEN).result is R.NOTHING


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_every_method_with_a_body_creates(method: str) -> None:
    assert read(method, PART).kind is TransferKind.CREATE


def test_append() -> None:
    head = read("PATCH", PART, (b"upload-offset", b"7"), query=b"a=b")

    assert (head.kind, head.resource, head.offset) == (TransferKind.BYTES, "/f/1?a=b", 7)
    assert not head.is_last
    assert IETF.read_response(head, 204, {"upload-offset": "17"}) == TransferOutcome(
        R.ACCEPTED, offset=17
    )
    last = read("PATCH", LAST, (b"upload-offset", b"7"), (b"content-length", b"3"))
    assert last.total_bytes == 10
    unknown = read("PATCH", LAST, (b"upload-offset", b"x"), (b"content-length", b"3"))
    assert (unknown.offset, unknown.total_bytes) == (None, None)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("status", "headers", "result"),
    [
        (200, FINAL, R.COMPLETED),
        (400, FINAL, R.REJECTED),
        (409, FINAL, R.REJECTED),
        (500, FINAL, R.REJECTED),
        (500, {"upload-complete": " ?1"}, R.REJECTED),
        (400, OPEN, R.REJECTED),
        (413, {}, R.REJECTED),
        (413, {"upload-limit": "max-append-size=5"}, R.REFUSED),
        (409, OPEN, R.REFUSED),
        (500, {"upload-complete": "yes"}, R.REFUSED),
        (307, {"location": "/g"}, R.REFUSED),
    ],
)
def test_response_to_a_part(
    first: bool, status: int, headers: dict[str, str], result: TransferResult
) -> None:
    """``?1`` in a response ends the upload, also before all of it has been sent."""
    head = read("POST", PART) if first else read("PATCH", PART, (b"upload-offset", b"7"))

    assert IETF.read_response(head, status, headers).result is result


def test_inverse_header_of_older_versions() -> None:
    whole = read("POST", (b"upload-incomplete", b"?0"))
    part = read("POST", (b"upload-incomplete", b"?1"))

    assert (whole.is_last, part.is_last) == (True, False)
    assert IETF.read_response(part, 500, {"upload-incomplete": "?0"}).result is R.REJECTED
    assert IETF.read_response(whole, 200, {"upload-incomplete": "?1"}).result is R.NOTHING


def test_name_and_type_come_with_the_creation() -> None:
    described = (
        (b"content-disposition", b'inline; filename="a.txt"'),
        (b"content-type", b"text/plain"),
    )
    first = read("POST", PART, *described)
    assert (first.filename, first.content_type) == ("a.txt", "text/plain")

    part_type = read("POST", PART, (b"content-type", b"application/partial-upload"))
    assert part_type.content_type is None
    later = read("PATCH", PART, (b"upload-offset", b"1"), (b"content-type", b"text/plain"))
    assert (later.filename, later.content_type) == (None, None)


def test_query() -> None:
    head = read("HEAD", INTEROP, query=b"a=b")
    assert (head.kind, head.resource) == (TransferKind.QUERY, "/f/1?a=b")
    assert not head.carries_bytes

    answer = {"upload-offset": "10", "upload-length": "30"}
    assert IETF.read_response(head, 204, {**answer, **OPEN}) == TransferOutcome(
        R.ACCEPTED, offset=10, total_bytes=30
    )
    assert IETF.read_response(head, 204, {"upload-offset": "10"}).offset == 10
    whole = {"upload-offset": "30", "upload-length": "30"}
    assert IETF.read_response(head, 204, {**whole, **FINAL}) == TransferOutcome(
        R.COMPLETED, offset=30, total_bytes=30
    )
    assert IETF.read_response(head, 204, {**whole, **OPEN}).result is R.ACCEPTED
    assert IETF.read_response(head, 204, {**answer, **FINAL}).result is R.ACCEPTED


@pytest.mark.parametrize("status", [200, 307, 404, 410, 500])
def test_query_without_an_offset_says_nothing(status: int) -> None:
    outcome = IETF.read_response(read("HEAD", INTEROP), status, FINAL)

    assert outcome == TransferOutcome(R.REFUSED)


def test_deletion() -> None:
    head = read("DELETE", INTEROP)

    assert head.kind is TransferKind.ABORT
    assert IETF.read_response(head, 204, {}).result is R.ABORTED
