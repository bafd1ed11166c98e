"""S3 multipart: what its requests have and others have not, and errors after status 200."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import S3Multipart, TransferKind, TransferOutcome, TransferResult

S3 = S3Multipart()
R = TransferResult
COMPLETED = TransferOutcome(R.COMPLETED)


def test_part() -> None:
    head = S3.read_request(request("PUT", "/b/k", query=b"uploadId=a&partNumber=7"))

    assert head is not None
    assert (head.part, head.filename) == ("7", "k")
    assert S3.read_response(head, 200, {}).result is R.ACCEPTED
    assert S3.read_response(head, 503, {}).result is R.REFUSED
    for status in (404, 410):
        assert S3.read_response(head, status, {}).result is R.REJECTED


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"application/xml; charset=utf-8"),
        (b"content-type", b"text/xml"),
        (b"authorization", b"AWS4-HMAC-SHA256 Credential=a"),
        (b"authorization", b"AWS a:b"),
        (b"x-amz-content-sha256", b"a"),
        (b"amz-sdk-invocation-id", b"a"),
    ],
)
def test_completion(header: tuple[bytes, bytes]) -> None:
    head = S3.read_request(request("POST", "/b/k", header, query=b"uploadId=a"))

    assert head is not None
    assert (head.kind, head.carries_bytes) == (TransferKind.COMPLETE, False)


@pytest.mark.parametrize("parameter", [b"X-Amz-Signature=a", b"X-Amz-Credential=a"])
def test_completion_with_a_presigned_address(parameter: bytes) -> None:
    assert S3.read_request(request("POST", "/b/k", query=b"uploadId=a&" + parameter))


SIGNED = (b"authorization", b"AWS4-HMAC-SHA256 Credential=a")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"application/octet-stream")],
        [(b"authorization", b"Bearer a")],
        [SIGNED, (b"content-type", b"multipart/form-data; boundary=a")],
        [SIGNED, (b"content-length", b"100000000")],
    ],
)
def test_upload_of_an_application_is_no_completion(headers: list[tuple[bytes, bytes]]) -> None:
    assert S3.read_request(request("POST", "/upload", *headers, query=b"uploadId=a")) is None


ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code></Error>'


@pytest.mark.parametrize(
    ("body", "is_error"),
    [
        (ERROR, True),
        (b"<Error><Code>InternalError</Code></Error>", True),
        (b'<Error xmlns="a">', True),
        (b'<?xml version="1.0"?><CompleteMultipartUploadResult/>', False),
        (b"<Errors/>", False),
        (b"", False),
    ],
)
def test_body_of_a_completion(body: bytes, is_error: bool) -> None:
    outcome = S3.read_response_body(COMPLETED, body)

    assert outcome == (TransferOutcome(R.REJECTED) if is_error else COMPLETED)


def test_only_the_body_of_a_successful_completion_is_read() -> None:
    assert S3.reads_response_body(COMPLETED)
    for result in set(R) - {R.COMPLETED}:
        assert not S3.reads_response_body(TransferOutcome(result))
