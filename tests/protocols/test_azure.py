"""Azure: a blob from blocks."""

from __future__ import annotations

import pytest

from tests._support.request_heads import request
from upload_progress.protocols import (
    AzureBlocks,
    TransferHead,
    TransferKind,
    TransferResult,
)

AZURE = AzureBlocks()
R = TransferResult


def read(query: bytes, *headers: tuple[bytes, bytes]) -> TransferHead:
    """Return the transfer of a request of Azure's client."""
    version = (b"x-ms-version", b"2021-08-06")
    head = AZURE.read_request(request("PUT", "/c/d/a.bin", version, *headers, query=query))
    assert head is not None
    return head


def test_blocks_are_parts() -> None:
    blocks = [
        read(b"comp=block&blockid=" + block, (b"content-length", b"7")) for block in (b"YQ", b"Yg")
    ]

    assert len({block.part for block in blocks}) == 2
    assert {(block.kind, block.resource, block.length, block.filename) for block in blocks} == {
        (TransferKind.BYTES, "/c/d/a.bin", 7, "a.bin")
    }
    assert AZURE.read_response(blocks[0], 201, {}).result is R.ACCEPTED


def test_block_list_completes() -> None:
    head = read(b"comp=blocklist", (b"x-ms-blob-content-type", b"text/plain"))

    assert (head.kind, head.content_type) == (TransferKind.COMPLETE, "text/plain")
    assert not head.carries_bytes
    assert AZURE.read_response(head, 201, {}).result is R.COMPLETED


@pytest.mark.parametrize(("status", "result"), [(400, R.REJECTED), (503, R.REFUSED)])
def test_refusals(status: int, result: TransferResult) -> None:
    for query in (b"comp=block&blockid=YQ", b"comp=blocklist"):
        assert AZURE.read_response(read(query), status, {}).result is result
