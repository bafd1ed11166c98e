"""tus: metadata, offsets, queries and addresses."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import (
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
    Tus,
)

TUS = Tus()
R = TransferResult


def read(
    method: str, *headers: tuple[bytes, bytes], path: str = "/files/1", query: bytes = b""
) -> TransferHead:
    """Return the transfer of a request of tus."""
    head = TUS.read_request(
        request(method, path, (b"tus-resumable", b"1.0.0"), *headers, query=query)
    )
    assert head is not None
    return head


@pytest.mark.parametrize(
    ("metadata", "filename", "content_type"),
    [
        (b"filetype dGV4dC9wbGFpbg==,filename d29ybGQudHh0", "world.txt", "text/plain"),
        (b"name YS9iXGM=, type dGV4dC9wbGFpbg==", "c", "text/plain"),
        (b"filename ?", None, None),
        (b"filename", None, None),
        (b"filename YS8=", None, None),
        (b"relativePath YQ==", None, None),
        (b"", None, None),
    ],
)
def test_metadata(metadata: bytes, filename: str | None, content_type: str | None) -> None:
    head = read("POST", (b"upload-metadata", metadata))
    assert (head.filename, head.content_type) == (filename, content_type)

    answer = TUS.read_response(
        read("HEAD"), 200, {"upload-offset": "0", "upload-metadata": metadata.decode()}
    )
    assert (answer.filename, answer.content_type) == (filename, content_type)


def test_query() -> None:
    head = read("HEAD", query=b"id=1")

    assert (head.kind, head.resource) == (TransferKind.QUERY, "/files/1?id=1")
    assert not head.carries_bytes
    assert TUS.read_response(
        head, 204, {"upload-offset": "10", "upload-length": "30"}
    ) == TransferOutcome(R.ACCEPTED, offset=10, total_bytes=30)


def test_answer_about_a_part_tells_no_total() -> None:
    headers = {"upload-offset": "10", "upload-length": "10", "upload-concat": "partial"}

    assert TUS.read_response(read("HEAD"), 200, headers) == TransferOutcome(R.ACCEPTED, offset=10)


@pytest.mark.parametrize("status", [403, 404, 410, 500, 200])
def test_query_without_an_offset_says_nothing(status: int) -> None:
    assert TUS.read_response(read("HEAD"), status, {}) == TransferOutcome(R.REFUSED)


def test_address_includes_the_query() -> None:
    created = TUS.read_response(read("POST"), 201, {"location": "/files?id=1"})

    assert created.resource == "/files?id=1"
    for method in ("PATCH", "DELETE", "HEAD"):
        assert read(method, path="/files", query=b"id=1").resource == created.resource


def test_body_of_a_creation_carries_bytes() -> None:
    octets = b"application/offset+octet-stream"
    for media_type, carries_bytes in [
        (octets, True),
        (b"Application/Offset+Octet-Stream; a=b", True),
        (b"application/json", False),
    ]:
        assert read("POST", (b"content-type", media_type)).carries_bytes is carries_bytes


@pytest.mark.parametrize("offset", [(b"upload-offset", b"-1"), (b"x-other", b"1")])
def test_bytes_without_an_offset_are_appended(offset: tuple[bytes, bytes]) -> None:
    assert read("PATCH", offset).offset is None


@pytest.mark.parametrize(
    ("method", "status", "result"),
    [
        *(("PATCH", status, R.REJECTED) for status in (400, 404, 410, 413, 422)),
        *(("PATCH", status, R.REFUSED) for status in (409, 423, 460, 500, 503)),
        ("POST", 413, R.REJECTED),
        ("POST", 201, R.NOTHING),
        ("DELETE", 204, R.ABORTED),
        ("DELETE", 404, R.REJECTED),
    ],
)
def test_results(method: str, status: int, result: TransferResult) -> None:
    assert TUS.read_response(read(method), status, {}).result is result
