"""The protocols: any head is read without error, and numbers are within the limits."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests._support.request_heads import request
from upload_progress.connection import Connection
from upload_progress.identity import CapabilityIdentity
from upload_progress.protocols import (
    DEFAULT_PROTOCOLS,
    AzureBlocks,
    ContentRange,
    FilePond,
    IetfResumable,
    Oci,
    ReadsResponseBody,
    S3Multipart,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    Tus,
    resolve_path,
    resolve_target,
    target_of,
    upload_id_for,
)
from upload_progress.protocols.base import MAX_OFFSET

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
    b"upload-name",
    b"upload-incomplete",
    b"content-disposition",
    b"authorization",
    b"x-ms-version",
    b"x-upload-content-type",
    b"x-upload-content-length",
]
PATHS = ["/files/1", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/1", "/bucket/key", "/", ""]
HEADER_VALUES = [
    *(b"0", b"10", b"-1", b"*", b"", b"9007199254740991", b"9007199254740992"),
    *(b"9223372036854775808", b"?0", b"?1", b"1.0.0", b"bytes 0-9/10", b"bytes 5-3/10"),
    *(b"0-1999999", b"bytes */10", b"bytes 0-9/*", b"bytes 0-9/5", b"filename d29ybGQ=", b"name"),
    *(b"filename ?", b"partial", b"final;/a /b", b"PATCH", "\u0664".encode()),
    *(b"bytes */*", b"Bytes: 0-9 / 10", b"application/xml", b"multipart/form-data"),
    *(b'attachment; filename="a.txt"', b"AWS4-HMAC-SHA256 Credential=a"),
]
AZURE = (b"x-ms-version", b"2021-08-06")
LENGTH = (b"upload-length", b"30")
QUERIES = [b"", b"uploads", b"uploadId=a&partNumber=1", b"partNumber=0&uploadId=a", b"uploadId="]
QUERIES += [b"partNumber=10001&uploadId=a", b"digest=sha256:1", b"mount=a&from=b", b"uploadId=%ff"]
QUERIES += [b"comp=block&blockid=YQ", b"comp=blocklist", b"uploadType=resumable", b"name=a/b"]
QUERIES += [b"uploadType=resumable&upload_id=1&name=a%2Fb", b"x=uploadType=resumable"]


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
        st.sampled_from(
            ["location", "range", "upload-offset", "upload-complete", "upload-metadata"]
        ),
        st.sampled_from([value.decode() for value in HEADER_VALUES])
        | st.sampled_from(["/a", "a", "http://[", "http://example.org", "https://a/b?c"])
        | st.text(st.characters(codec=None), max_size=40),
    ),
)
@example(("POST", "/b/k"), b"uploadId=a", [(b"content-type", b"text/xml")], 200, {})
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
        if isinstance(protocol, ReadsResponseBody) and protocol.reads_response_body(outcome):
            assert protocol.read_response_body(outcome, query) in (
                outcome,
                TransferOutcome(TransferResult.REJECTED),
            )
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
        (IetfResumable(), request("HEAD", "/files/1")),
        (ContentRange(), request("PUT", "/f")),
        (ContentRange(), request("DELETE", "/f", (b"content-range", b"bytes 0-3/30"))),
        (AzureBlocks(), request("PUT", "/c/b", query=b"comp=block&blockid=YQ%3D%3D")),
        (AzureBlocks(), request("PUT", "/c/b", AZURE, query=b"comp=block")),
        (AzureBlocks(), request("PUT", "/c/b", AZURE, query=b"comp=blocks")),
        (AzureBlocks(), request("POST", "/c/b", AZURE, query=b"comp=block&blockid=YQ%3D%3D")),
        (FilePond(), request("PATCH", "/p", (b"upload-offset", b"0"))),
        (FilePond(), request("PATCH", "/p", (b"upload-offset", b"0"), LENGTH)),
        (FilePond(), request("PATCH", "/p", LENGTH, (b"upload-name", b"a"))),
        (FilePond(), request("HEAD", "/p", query=b"patch=1")),
        (FilePond(), request("POST", "/p", LENGTH)),
    ],
)
def test_requests_of_other_protocols_are_not_read(
    protocol: TransferProtocol, connection: Connection
) -> None:
    assert protocol.specification.startswith("https://")
    assert protocol.read_request(connection) is None


def test_location_with_query() -> None:
    assert resolve_target("http://example.org/a%20b?id=1&x=%20", "/") == "/a b?id=1&x=%20"
    assert resolve_target("?id=1", "/files") == "/files?id=1"
    assert resolve_target("//[", "/") is resolve_target(None, "/") is None
    assert resolve_target("mailto:a", "/") is None
    assert target_of(request("PUT", "/a b", query=b"id=1&x=%20")) == "/a b?id=1&x=%20"


def test_location() -> None:
    assert resolve_path("http://example.org/files/1?x=y", "/") == "/files/1"
    assert resolve_path("/files/1", "/") == "/files/1"
    assert resolve_path("1", "/files/") == "/files/1"
    assert resolve_path("http://[", "/") is resolve_path("", "/") is resolve_path("?a", "/") is None


def test_long_path_is_read_at_once() -> None:
    """Names of repositories contain slashes: a search that tries each of them is too slow."""
    paths = ["/v2/" * 50_000, "/v2/" * 50_000 + "/blobs/uploads", "/blobs/uploads/" * 20_000]
    start_seconds = time.process_time()
    for path in paths:
        assert Oci().read_request(request("PATCH", path)) is None
    assert Oci().read_request(request("PATCH", "/v2/" * 50_000 + "a/blobs/uploads/1"))

    assert time.process_time() - start_seconds < 1


@pytest.mark.parametrize(
    ("resource", "is_capability"),
    [
        ("/files/0b5c1e8d9a7f4e21a6c3d2f1b0987e6d", True),
        ("/v2/a/blobs/uploads/3F2504E0-4F89-41D3-9A0C-0305E82C3301", True),
        ("/files/17", False),
        ("/files/00000000000000000000000000000017", False),
        ("/files/f81d4fae-7dec-11d0-a765-00a0c91e6bf6", False),  # version 1: a time
        ("/files/annual-report-of-the-board-of-directors-2026.pdf", False),
        ("/files/0b5c1e8d9a7f4e21", False),
    ],
)
def test_only_an_unguessable_address_makes_a_capability(resource: str, is_capability: bool) -> None:
    """Who can guess the address can compute the id of its upload."""
    upload_id = upload_id_for(TransferHead("tus", TransferKind.BYTES), resource)
    shared = TransferHead("tus", TransferKind.BYTES, resource_is_unique=False)

    assert CapabilityIdentity().accepts(upload_id) is is_capability
    assert not CapabilityIdentity().accepts(upload_id_for(shared, resource))
