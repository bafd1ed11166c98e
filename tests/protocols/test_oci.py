"""OCI: refusals, mounts, names, and ranges without a unit."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import Oci, TransferHead, TransferKind, TransferResult

OCI = Oci()
R = TransferResult
UPLOADS = "/v2/shop/cart/blobs/uploads/"


def read(
    method: str, *headers: tuple[bytes, bytes], session: str = "1", query: bytes = b""
) -> TransferHead:
    """Return the transfer of a request of a registry's client."""
    head = OCI.read_request(request(method, UPLOADS + session, *headers, query=query))
    assert head is not None
    return head


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, R.REJECTED) for status in (400, 403, 404, 405, 413)),
        *((status, R.REFUSED) for status in (401, 416, 429, 500)),
    ],
)
def test_refusals(method: str, status: int, result: TransferResult) -> None:
    head = read(method, session="" if method == "POST" else "1", query=b"digest=sha256:1")

    assert OCI.read_response(head, status, {}).result is result


def test_range_without_a_unit() -> None:
    assert read("PATCH", (b"content-range", b"10-19")).offset == 10
    assert read("PATCH").offset is None
    accepted = OCI.read_response(read("PATCH"), 202, {"range": "0-19"})
    assert (accepted.result, accepted.offset) == (R.ACCEPTED, 20)


def test_digest_is_the_name() -> None:
    query = b"digest=sha256%3Aabc"

    assert read("PUT", query=query).filename == "sha256:abc"
    assert read("POST", session="", query=query).filename == "sha256:abc"
    assert read("PATCH", query=query).filename is None
    assert read("PUT").filename is None


@pytest.mark.parametrize("query", [b"mount=sha256:1&from=a/b", b"mount=a&digest=a"])
def test_mount_carries_no_bytes(query: bytes) -> None:
    head = read("POST", session="", query=query)

    assert (head.kind, head.carries_bytes) == (TransferKind.CREATE, False)
    assert OCI.read_response(head, 201, {"location": "/v2/a/blobs/sha256:1"}).result is R.NOTHING
    opened = OCI.read_response(head, 202, {"location": f"{UPLOADS}9?state=a"})
    assert (opened.result, opened.resource) == (R.CREATED, f"{UPLOADS}9")
