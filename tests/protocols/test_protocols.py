"""Which protocol is this? Any head has an answer, and none raises; numbers stay countable."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upload_progress._model.byte_ranges import covered, end_of, merged, whole_parts
from upload_progress._model.models import ByteRange
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

NAMES = [
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
VALUES = [
    *(b"0", b"10", b"-1", b"*", b"", b"9007199254740991", b"9007199254740992"),
    *(b"9223372036854775808", b"?0", b"?1", b"1.0.0", b"bytes 0-9/10", b"bytes 5-3/10"),
    *(b"0-1999999", b"bytes */10", b"bytes 0-9/*", b"bytes 0-9/5", b"filename d29ybGQ=", b"name"),
    *(b"filename ?", b"partial", b"final;/a /b", b"PATCH", "\u0664".encode()),
]
QUERIES = [b"", b"uploads", b"uploadId=a&partNumber=1", b"partNumber=0&uploadId=a", b"uploadId="]
QUERIES += [b"partNumber=10001&uploadId=a", b"digest=sha256:1", b"mount=a&from=b", b"uploadId=%ff"]


def head(method: str, path: str, *headers: tuple[bytes, bytes], query: bytes = b"") -> Connection:
    """Return the head of a request."""
    return Connection(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list(headers),
        }
    )


def assert_countable(transfer_head: TransferHead | TransferOutcome) -> None:
    """No number is negative, or larger than every JSON reader understands."""
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
            st.sampled_from(NAMES) | st.binary(max_size=9),
            st.sampled_from(VALUES) | st.binary(max_size=60),
        )
    ),
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["location", "range", "upload-offset", "upload-complete"]),
        st.sampled_from([value.decode() for value in VALUES])
        | st.sampled_from(["/a", "a", "http://[", "http://example.org", "https://a/b?c"])
        | st.text(st.characters(codec=None), max_size=40),
    ),
)
@example(("POST", "/files"), b"", [(b"tus-resumable", b"1.0.0")], 201, {"location": "/files/1"})
def test_any_head_can_be_read(
    target: tuple[str, str],
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    status: int,
    answered: dict[str, str],
) -> None:
    request = head(*target, *headers, query=query)
    read = {protocol: protocol.read_request(request) for protocol in DEFAULT_PROTOCOLS}
    for protocol, transfer_head in [
        (each, transfer_head) for each, transfer_head in read.items() if transfer_head is not None
    ]:
        assert transfer_head.protocol == protocol.name
        assert_countable(transfer_head)
        outcome = protocol.read_response(transfer_head, status, answered)
        assert_countable(outcome)
        assert outcome.result is not TransferResult.CREATED or outcome.resource
        for resource in (transfer_head.resource, outcome.resource):
            assert resource is None or upload_id_for(transfer_head, resource).startswith(
                protocol.name
            )


@pytest.mark.parametrize(
    ("protocol", "request_head"),
    [
        (Tus(), head("GET", "/files/1", (b"tus-resumable", b"1.0.0"))),
        (Tus(), head("POST", "/f", (b"tus-resumable", b"1.0.0"), (b"upload-concat", b"final;"))),
        (Tus(), head("PATCH", "/files/1")),
        (IetfResumable(), head("DELETE", "/files/1")),
        (IetfResumable(), head("POST", "/files", (b"upload-complete", b"yes"))),
        (Oci(), head("PATCH", "/v2/a/blobs/uploads/1/2")),
        (Oci(), head("GET", "/v2/a/blobs/uploads/1")),
        (Oci(), head("POST", "/v2/a/blobs/uploads/1")),
        (Oci(), head("PUT", "/v2/a/blobs/uploads/")),
        (S3Multipart(), head("PUT", "/b/k", query=b"uploadId=&partNumber=1")),
        (S3Multipart(), head("PUT", "/b/k", query=b"uploadId=a&partNumber=0")),
        (S3Multipart(), head("PUT", "/b/k", query=b"uploadId=a&partNumber=10001")),
        (S3Multipart(), head("PUT", "/b/k", query=b"uploadId=a")),
        (S3Multipart(), head("GET", "/b/k", query=b"uploadId=a")),
        (ContentRange(), head("PUT", "/f", (b"content-range", b"bytes */30"))),
        (ContentRange(), head("PUT", "/f", (b"content-range", b"bytes 5-3/30"))),
        (ContentRange(), head("PUT", "/f", (b"content-range", b"bytes 0-30/30"))),
        (ContentRange(), head("PUT", "/f", (b"content-range", b"items 0-3/30"))),
    ],
)
def test_what_is_not_of_the_protocol_is_left_to_others(
    protocol: TransferProtocol, request_head: Connection
) -> None:
    assert protocol.specification.startswith("https://")
    assert protocol.read_request(request_head) is None


def test_tus_reads_the_name_that_clients_give() -> None:
    for metadata, name in [
        (b"filetype YQ==,filename d29ybGQudHh0", "world.txt"),
        (b"name YS9iXGM=", "c"),
        (b"filename ?", None),
        (b"filename", None),
        (b"relativePath YQ==", None),
    ]:
        transfer_head = Tus().read_request(
            head("POST", "/f", (b"tus-resumable", b"1.0.0"), (b"upload-metadata", metadata))
        )
        assert transfer_head is not None
        assert transfer_head.filename == name


def test_the_draft_is_whole_where_the_server_says_so() -> None:
    draft = IetfResumable()
    first = draft.read_request(
        head("POST", "/f", (b"upload-complete", b"?1"), (b"content-length", b"10"))
    )
    assert first is not None
    assert (first.kind, first.total_bytes, first.is_last) == (TransferKind.CREATE, 10, True)
    assert draft.read_response(first, 200, {}).result is TransferResult.COMPLETED
    open_still = draft.read_response(first, 200, {"upload-complete": "?0", "location": "/f/1"})
    assert open_still == TransferOutcome(TransferResult.CREATED, "/f/1")
    assert (
        draft.read_response(first, 200, {"upload-complete": "?0"}).result is TransferResult.NOTHING
    )
    assert draft.read_response(first, 409, {}).result is TransferResult.REFUSED
    more = draft.read_request(
        head("PATCH", "/f/1", (b"upload-complete", b"?0"), (b"upload-offset", b"7"))
    )
    assert more is not None
    assert (more.offset, more.is_last) == (7, False)
    assert draft.read_response(more, 204, {"upload-offset": "17"}) == TransferOutcome(
        TransferResult.ACCEPTED, offset=17
    )
    gone = draft.read_request(head("DELETE", "/f/1", (b"upload-draft-interop-version", b"8")))
    assert gone is not None
    assert draft.read_response(gone, 204, {}).result is TransferResult.ABORTED


def test_s3_tells_each_answer_from_the_others() -> None:
    s3 = S3Multipart()
    part = s3.read_request(head("PUT", "/b/k", query=b"uploadId=a&partNumber=7"))
    assert part is not None
    assert (part.part, part.filename) == ("7", "k")
    assert s3.read_response(part, 200, {}).result is TransferResult.ACCEPTED
    assert s3.read_response(part, 503, {}).result is TransferResult.REFUSED


@pytest.mark.parametrize(
    ("text", "found"),
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
def test_ranges(text: str | None, found: tuple[int, int, int | None] | None) -> None:
    assert read_range(text) == found


def test_ranges_of_answers() -> None:
    assert end_of_range("bytes=0-9") == end_of_range("0-9") == 10
    assert end_of_range("bytes=5-9") is end_of_range(None) is end_of_range("bytes=0-x") is None


def test_locations() -> None:
    assert resolve_path("http://example.org/files/1?x=y", "/") == "/files/1"
    assert resolve_path("/files/1", "/") == "/files/1"
    assert resolve_path("1", "/files/") == "/files/1"
    assert resolve_path("http://[", "/") is resolve_path("", "/") is None


SPANS = st.lists(
    st.builds(
        lambda part, start, size, is_whole: (part, start, start + size, is_whole),
        st.sampled_from(["", "1", "2"]),
        st.integers(0, 30),
        st.integers(1, 12),
        st.booleans(),
    ),
    max_size=12,
)


@given(SPANS, st.randoms(use_true_random=False))
def test_order_and_duplicates_change_nothing(spans: list[ByteRange], chance: random.Random) -> None:
    """Whatever comes first, twice, or in pieces: the same bytes are here."""
    shuffled = [*spans, *chance.sample(spans, len(spans) // 2)]
    chance.shuffle(shuffled)
    cut = chance.randrange(len(shuffled) + 1)
    bytes_of = {(part, at) for part, start, stop, _ in spans for at in range(start, stop)}

    assert merged(shuffled) == merged([*merged(shuffled[:cut]), *merged(shuffled[cut:])])
    assert merged(shuffled) == merged(spans)
    assert covered(shuffled) == len(bytes_of)
    for part in ("", "1", "2"):
        reach = end_of(shuffled, part)
        assert all((part, at) in bytes_of for at in range(reach))
        assert (part, reach) not in bytes_of
    assert whole_parts(spans) == len({part for part, _, _, taken in spans if part and taken})
