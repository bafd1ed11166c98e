"""The protocols: any head is read without error, and numbers are within the limits."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upload_progress.connection import Connection
from upload_progress.protocols import (
    DEFAULT_PROTOCOLS,
    ContentRange,
    IetfResumable,
    Oci,
    S3Multipart,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    Tus,
    upload_id_for,
)
from upload_progress.protocols.base import MAX_OFFSET, resolve_path
from upload_progress.protocols.content_range import end_of_range, read_range

HEADER_NAMES = [
    b"tus-resumable",
    b"upload-offset",
    b"upload-length",
    b"upload-complete",
    b"upload-concat",
    b"upload-metadata",
    b"upload-draft-interop-version",
    b"content-range",
    b"content-length",
    b"content-type",
    b"x-amz-decoded-content-length",
    b"x-http-method-override",
]
PATHS = ["/files/1", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/1", "/bucket/key", "/", ""]
HEADER_VALUES = [
    *(b"0", b"10", b"-1", b"*", b"", b"9007199254740991", b"9007199254740992"),
    *(b"9223372036854775808", b"?0", b"?1", b"1.0.0", b"bytes 0-9/10", b"bytes 5-3/10"),
    *(b"0-1999999", b"bytes */10", b"bytes 0-9/*", b"bytes 0-9/5", b"filename d29ybGQ=", b"name"),
    *(b"filename ?", b"partial", b"final;/a /b", b"PATCH", "\u0664".encode()),
]
QUERIES = [b"", b"uploads", b"uploadId=a&partNumber=1", b"partNumber=0&uploadId=a", b"uploadId="]
QUERIES += [b"partNumber=10001&uploadId=a", b"digest=sha256:1", b"mount=a&from=b", b"uploadId=%ff"]


def request(
    method: str, path: str, *headers: tuple[bytes, bytes], query: bytes = b""
) -> Connection:
    """Return a request with this head."""
    return Connection(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list(headers),
        }
    )


def assert_valid_numbers(transfer_head: TransferHead | TransferOutcome) -> None:
    """Check that no number is negative or above ``MAX_OFFSET``."""
    numbers = [
        transfer_head.offset,
        transfer_head.total_bytes,
        transfer_head.length if isinstance(transfer_head, TransferHead) else 0,
    ]
    assert all(number is None or 0 <= number <= MAX_OFFSET for number in numbers)


@given(
    st.tuples(
        st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "X"]),
        st.sampled_from(PATHS) | st.text(st.characters(codec=None), max_size=40),
    ),
    st.sampled_from(QUERIES) | st.binary(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(HEADER_NAMES) | st.binary(max_size=9),
            st.sampled_from(HEADER_VALUES) | st.binary(max_size=60),
        )
    ),
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["location", "range", "upload-offset", "upload-complete"]),
        st.sampled_from([value.decode() for value in HEADER_VALUES])
        | st.sampled_from(["/a", "a", "http://[", "http://example.org", "https://a/b?c"])
        | st.text(st.characters(codec=None), max_size=40),
    ),
)
@example(("POST", "/files"), b"", [(b"tus-resumable", b"1.0.0")], 201, {"location": "/files/1"})
def test_any_head_is_read_without_error(
    target: tuple[str, str],
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    status: int,
    response_headers: dict[str, str],
) -> None:
    connection = request(*target, *headers, query=query)
    transfer_heads = {protocol: protocol.read_request(connection) for protocol in DEFAULT_PROTOCOLS}
    for protocol, transfer_head in [
        (each, transfer_head)
        for each, transfer_head in transfer_heads.items()
        if transfer_head is not None
    ]:
        assert transfer_head.protocol == protocol.name
        assert_valid_numbers(transfer_head)
        outcome = protocol.read_response(transfer_head, status, response_headers)
        assert_valid_numbers(outcome)
        assert outcome.result is not TransferResult.CREATED or outcome.resource
        for resource in (transfer_head.resource, outcome.resource):
            assert resource is None or upload_id_for(transfer_head, resource).startswith(
                protocol.name
            )


@pytest.mark.parametrize(
    ("protocol", "connection"),
    [
        (Tus(), request("GET", "/files/1", (b"tus-resumable", b"1.0.0"))),
        (Tus(), request("POST", "/f", (b"tus-resumable", b"1.0.0"), (b"upload-concat", b"final;"))),
        (Tus(), request("PATCH", "/files/1")),
        (IetfResumable(), request("DELETE", "/files/1")),
        (IetfResumable(), request("POST", "/files", (b"upload-complete", b"yes"))),
        (Oci(), request("PATCH", "/v2/a/blobs/uploads/1/2")),
        (Oci(), request("PATCH", "/v2/blobs/uploads/1")),
        (Oci(), request("PATCH", "/a/blobs/uploads/1")),
        (Oci(), request("GET", "/v2/a/blobs/uploads/1")),
        (Oci(), request("POST", "/v2/a/blobs/uploads/1")),
        (Oci(), request("PUT", "/v2/a/blobs/uploads/")),
        (S3Multipart(), request("PUT", "/b/k", query=b"uploadId=&partNumber=1")),
        (S3Multipart(), request("PUT", "/b/k", query=b"uploadId=a&partNumber=0")),
        (S3Multipart(), request("PUT", "/b/k", query=b"uploadId=a&partNumber=10001")),
        (S3Multipart(), request("PUT", "/b/k", query=b"uploadId=a")),
        (S3Multipart(), request("GET", "/b/k", query=b"uploadId=a")),
        (ContentRange(), request("PUT", "/f", (b"content-range", b"bytes */30"))),
        (ContentRange(), request("PUT", "/f", (b"content-range", b"bytes 5-3/30"))),
        (ContentRange(), request("PUT", "/f", (b"content-range", b"bytes 0-30/30"))),
        (ContentRange(), request("PUT", "/f", (b"content-range", b"items 0-3/30"))),
    ],
)
def test_requests_of_other_protocols_are_not_read(
    protocol: TransferProtocol, connection: Connection
) -> None:
    assert protocol.specification.startswith("https://")
    assert protocol.read_request(connection) is None


def test_tus_filename() -> None:
    for metadata, name in [
        (b"filetype YQ==,filename d29ybGQudHh0", "world.txt"),
        (b"name YS9iXGM=", "c"),
        (b"filename ?", None),
        (b"filename", None),
        (b"relativePath YQ==", None),
    ]:
        transfer_head = Tus().read_request(
            request("POST", "/f", (b"tus-resumable", b"1.0.0"), (b"upload-metadata", metadata))
        )
        assert transfer_head is not None
        assert transfer_head.filename == name


def test_ietf_outcomes() -> None:
    draft = IetfResumable()
    first = draft.read_request(
        request("POST", "/f", (b"upload-complete", b"?1"), (b"content-length", b"10"))
    )
    assert first is not None
    assert (first.kind, first.total_bytes, first.is_last) == (TransferKind.CREATE, 10, True)
    assert draft.read_response(first, 200, {}).result is TransferResult.COMPLETED
    incomplete = draft.read_response(first, 200, {"upload-complete": "?0", "location": "/f/1"})
    assert incomplete == TransferOutcome(TransferResult.CREATED, "/f/1")
    assert (
        draft.read_response(first, 200, {"upload-complete": "?0"}).result is TransferResult.NOTHING
    )
    assert draft.read_response(first, 409, {}).result is TransferResult.REFUSED
    append = draft.read_request(
        request("PATCH", "/f/1", (b"upload-complete", b"?0"), (b"upload-offset", b"7"))
    )
    assert append is not None
    assert (append.offset, append.is_last) == (7, False)
    assert draft.read_response(append, 204, {"upload-offset": "17"}) == TransferOutcome(
        TransferResult.ACCEPTED, offset=17
    )
    deletion = draft.read_request(
        request("DELETE", "/f/1", (b"upload-draft-interop-version", b"8"))
    )
    assert deletion is not None
    assert draft.read_response(deletion, 204, {}).result is TransferResult.ABORTED


def test_s3_outcomes() -> None:
    s3 = S3Multipart()
    part = s3.read_request(request("PUT", "/b/k", query=b"uploadId=a&partNumber=7"))
    assert part is not None
    assert (part.part, part.filename) == ("7", "k")
    assert s3.read_response(part, 200, {}).result is TransferResult.ACCEPTED
    assert s3.read_response(part, 503, {}).result is TransferResult.REFUSED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", (0, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        ("0-1999999", (0, 2_000_000, None)),
        ("bytes=0-9/10", (0, 10, 10)),
        ("bytes */10", None),
        ("bytes 9-0/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-9007199254740991/*", None),
        ("bytes -1-9/10", None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(text: str | None, expected: tuple[int, int, int | None] | None) -> None:
    assert read_range(text) == expected


def test_range_of_responses() -> None:
    assert end_of_range("bytes=0-9") == end_of_range("0-9") == 10
    assert end_of_range("bytes=5-9") is end_of_range(None) is end_of_range("bytes=0-x") is None


def test_location() -> None:
    assert resolve_path("http://example.org/files/1?x=y", "/") == "/files/1"
    assert resolve_path("/files/1", "/") == "/files/1"
    assert resolve_path("1", "/files/") == "/files/1"
    assert resolve_path("http://[", "/") is resolve_path("", "/") is None


def test_long_path_is_read_at_once() -> None:
    """Names of repositories contain slashes: a search that tries each of them is too slow."""
    paths = ["/v2/" * 50_000, "/v2/" * 50_000 + "/blobs/uploads", "/blobs/uploads/" * 20_000]
    start_seconds = time.process_time()
    for path in paths:
        assert Oci().read_request(request("PATCH", path)) is None
    assert Oci().read_request(request("PATCH", "/v2/" * 50_000 + "a/blobs/uploads/1"))

    assert time.process_time() - start_seconds < 1
