"""FilePond: a file in chunks."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import (
    FilePond,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferResult,
)

POND = FilePond()
R = TransferResult
LENGTH = (b"upload-length", b"30")
FORM = (b"content-type", b"multipart/form-data; boundary=a")


def read(
    *headers: tuple[bytes, bytes], name: bytes = b"a.txt", method: str = "PATCH"
) -> TransferHead | None:
    """Return the transfer of a request of FilePond."""
    headers = (LENGTH, (b"upload-offset", b"10"), (b"upload-name", name), *headers)
    return POND.read_request(request(method, "/process", *headers, query=b"patch=7"))


def test_chunk() -> None:
    head = read((b"content-length", b"10"))

    assert head is not None
    assert (head.kind, head.resource) == (TransferKind.BYTES, "/process?patch=7")
    assert (head.offset, head.length, head.total_bytes) == (10, 10, 30)
    assert head.completes_at_total
    assert POND.read_response(head, 204, {}) == TransferOutcome(R.ACCEPTED)
    assert POND.read_response(head, 204, {"upload-offset": "20"}).offset == 20


@pytest.mark.parametrize(
    ("name", "filename"),
    [
        ("Größe.txt".encode(), "Größe.txt"),
        (b"a/b\\c.txt", "c.txt"),
        (b"\xff", "\ufffd"),
        (b"", None),
    ],
)
def test_name(name: bytes, filename: str | None) -> None:
    head = read(name=name)

    assert head is not None
    assert head.filename == filename


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, R.REFUSED) for status in (400, 409, 413, 422, 500)),
        *((status, R.REJECTED) for status in (404, 410)),
    ],
)
def test_chunk_is_sent_again_after_most_errors(status: int, result: TransferResult) -> None:
    head = read()

    assert head is not None
    assert POND.read_response(head, status, {}).result is result


def test_request_of_tus_is_left_alone() -> None:
    assert read((b"tus-resumable", b"1.0.0")) is None
    assert read(method="PUT") is None


def test_creation_is_no_upload_of_its_own() -> None:
    """Its body is a form with metadata only."""
    small = request("POST", "/process", LENGTH, FORM, (b"content-length", b"29"))
    head = POND.read_request(small)

    assert head is not None
    assert (head.kind, head.carries_bytes) == (TransferKind.CREATE, False)
    assert POND.read_response(head, 200, {}) == TransferOutcome(R.NOTHING)


@pytest.mark.parametrize(
    "headers", [[FORM], [FORM, (b"content-length", b"30")], [(b"content-length", b"1")]]
)
def test_request_that_may_carry_the_file_is_no_creation(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert POND.read_request(request("POST", "/process", LENGTH, *headers)) is None
