"""The interface of an upload protocol, and the types in which it describes a transfer.

An upload protocol sends one upload in several HTTP requests, called transfers. For the tracker,
it is two pure functions: ``read_request`` describes the transfer from the head of its request,
``read_response`` its outcome from the head of the response. Neither sees a body or keeps state.
Neither raises on any head: what it does not understand is None, or a refused transfer.

An upload is identified by its *resource*: the address that its protocol gives it. The upload's id
is a digest of that address, so every worker derives the same id without asking another one.
"""

import re
from collections.abc import Collection, Container, Mapping
from enum import StrEnum, unique
from hashlib import blake2b
from typing import Final, Protocol, runtime_checkable
from urllib.parse import quote, unquote, urljoin, urlsplit

from attrs import frozen

from upload_progress.connection import Connection
from upload_progress.identity import CAPABILITY_BITS, GUESSABLE_DIGEST_BYTES, alphabet_bits

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_OFFSET",
    "Headers",
    "ReadsQueries",
    "ReadsResponseBody",
    "RequiresHeaders",
    "TransferHead",
    "TransferKind",
    "TransferOutcome",
    "TransferProtocol",
    "TransferResult",
    "content_length",
    "has_random_bits",
    "is_success",
    "parse_count",
    "part_name",
    "refusal",
    "resolve_path",
    "resolve_target",
    "target_of",
    "upload_id_for",
]

Headers = Mapping[str, str]
"""Response headers: names in lower case; of a repeated header the first value."""

MAX_OFFSET: Final = (1 << 53) - 1
"""The largest number of bytes that every JSON reader represents exactly (RFC 8259, section 6)."""

MAX_BODY_BYTES: Final = 4096
"""How much of a response body a protocol may read, in bytes; see `ReadsResponseBody`."""

_COUNT: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_RANDOM: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{32,}",
    re.ASCII | re.IGNORECASE,
)
"""A UUID of version 4 (RFC 9562, section 5.4), or as many hexadecimal digits."""
_SUCCESS: Final = range(200, 300)
_REJECTIONS: Final = range(400, 500)
_MAY_GO_ON: Final = frozenset({401, 403, 407, 408, 409, 412, 416, 423, 425, 429, 460})
"""Client errors that do not end an upload: the request can be corrected and sent again (RFC 9110,
section 15.5; 423: RFC 4918; 425: RFC 8470; 429: RFC 6585; 460: checksum mismatch of tus)."""


@unique
class TransferKind(StrEnum):
    """The purpose of a transfer."""

    CREATE = "create"
    """Create an upload, whose address comes in the response. The request may carry bytes."""
    BYTES = "bytes"
    """Add bytes to an existing upload."""
    COMPLETE = "complete"
    """Complete the upload: all of its parts have been sent."""
    ABORT = "abort"
    """Abandon the upload."""
    QUERY = "query"
    """Ask how many bytes the server has; carries none, starts no attempt."""


@unique
class TransferResult(StrEnum):
    """The result of a transfer, according to the response."""

    NOTHING = "nothing"
    """The request created no upload."""
    CREATED = "created"
    """The upload has been created, and its address is known."""
    ACCEPTED = "accepted"
    """The server has accepted the bytes."""
    REFUSED = "refused"
    """The server has accepted none of the bytes; the client may send them again."""
    REJECTED = "rejected"
    """The server has accepted none of the bytes, and the client cannot go on: the upload fails."""
    COMPLETED = "completed"
    """The upload is complete."""
    ABORTED = "aborted"
    """The upload has been abandoned."""


@frozen
class TransferHead:
    """Description of a transfer, read from the head of its request.

    Attributes:
        protocol: Name of the protocol that recognised the request.
        kind: Purpose of the transfer.
        resource: Address of the upload. None if it gets its address with the response.
        part: Name of the part to which the bytes belong. Empty (default) if the protocol has
            no parts.
        offset: Position of the first byte within the part, in bytes; 0 by default. None if the
            bytes are appended to those that the server has.
        length: Number of bytes of the upload that the request carries. None if not announced.
        total_bytes: Size of the upload, in bytes. None if not announced.
        filename: File name that the protocol announces. None if it announces none.
        is_last: Whether the upload is complete when the server accepts this transfer.
        is_sequential: Whether the server accepts bytes only at the end of those that it has.
        resource_is_unique: Whether the address belongs to this upload alone, and is never
            used for another one.
        completes_at_total: Whether the upload is complete when the server has accepted
            ``total_bytes``, without a final request.
        carries_bytes: Whether the body of the request consists of bytes of the upload.
        request_path: Path of the request, against which a relative ``Location`` is resolved.
        resource_may_be_part: Whether the resource may be one part among several, if the client
            sends the same ``Upload-Id`` with all of them (tus concatenation).
        part_total_bytes: Size of this resource, in bytes, if it is a part of an upload. None
            otherwise.
        content_type: Media type of the upload that the request announces. None if it announces
            none.
    """

    protocol: str
    kind: TransferKind
    resource: str | None = None
    part: str = ""
    offset: int | None = 0
    length: int | None = None
    total_bytes: int | None = None
    filename: str | None = None
    is_last: bool = False
    is_sequential: bool = True
    resource_is_unique: bool = True
    completes_at_total: bool = False
    carries_bytes: bool = True
    request_path: str = "/"
    resource_may_be_part: bool = False
    part_total_bytes: int | None = None
    content_type: str | None = None


@frozen
class TransferOutcome:
    """Outcome of a transfer, read from the head of its response.

    Attributes:
        result: Result of the transfer.
        resource: Address of the upload that was created. None unless one was created.
        offset: Number of bytes that the server has, counted from the start of the part. None
            if the response does not contain it.
        total_bytes: Size of the upload, in bytes. None if the response does not contain it.
        filename: File name that the response announces, as in the answer to a ``HEAD`` request.
            None if it announces none.
        content_type: Media type of the upload that the response announces. None if it announces
            none.
    """

    result: TransferResult
    resource: str | None = None
    offset: int | None = None
    total_bytes: int | None = None
    filename: str | None = None
    content_type: str | None = None


class TransferProtocol(Protocol):
    """A protocol that sends one upload in several requests.

    Pass instances to ``UploadProgressMiddleware(protocols=...)``. Both methods must be pure, fast
    and safe for any input: they run on the event loop, before the request is authenticated.

    Example:
        ``PUT /chunks/NAME/NUMBER`` sends a chunk, ``POST /chunks/NAME`` completes the upload::

            class Chunks:
                name = "chunks"
                specification = "https://example.org/chunks"

                def read_request(self, connection: Connection) -> TransferHead | None:
                    if not connection.path.startswith("/chunks/"):
                        return None
                    upload, _, number = connection.path.removeprefix("/chunks/").partition("/")
                    return TransferHead(
                        self.name,
                        TransferKind.BYTES if number else TransferKind.COMPLETE,
                        upload,
                        part=number,
                        is_sequential=False,
                        is_last=not number,
                        carries_bytes=bool(number),
                    )

                def read_response(
                    self, transfer_head: TransferHead, status: int, headers: Headers
                ) -> TransferOutcome:
                    if status >= 400:
                        return refusal(status)
                    is_last = transfer_head.is_last
                    return TransferOutcome(
                        TransferResult.COMPLETED if is_last else TransferResult.ACCEPTED
                    )
    """

    @property
    def name(self) -> str:
        """Short name of letters and digits; the ids of its uploads begin with it."""

    @property
    def specification(self) -> str:
        """URL of the specification."""

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Describe the transfer that a request carries.

        Args:
            connection: Head of the request.

        Returns:
            The transfer. None if the request does not belong to this protocol.
        """

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return the outcome of a transfer.

        Args:
            transfer_head: The transfer, as returned by ``read_request``.
            status: Status code of the response.
            headers: Headers of the response; empty if the head was not readable.
        """


@runtime_checkable
class RequiresHeaders(Protocol):
    """A `TransferProtocol` whose requests differ from others in the names of their headers.

    It is not asked about other requests, which cost less for that. A protocol without this
    attribute is asked about every request.
    """

    @property
    def required_headers(self) -> Collection[str]:
        """Headers, in lower case, of which each request of the protocol has at least one."""


@runtime_checkable
class ReadsQueries(Protocol):
    """A `TransferProtocol` that reads ``HEAD`` requests, by which a client asks for the offset.

    A protocol without this attribute is never asked about a ``HEAD`` request.
    """

    @property
    def query_headers(self) -> Collection[str]:
        """Headers, in lower case, of which a ``HEAD`` request of the protocol has at least one."""


@runtime_checkable
class ReadsResponseBody(Protocol):
    """A `TransferProtocol` whose outcome may be in the body of the response."""

    def reads_response_body(self, outcome: TransferOutcome) -> bool:
        """Return whether the outcome of a transfer depends on the body of the response.

        Args:
            outcome: The outcome, as returned by ``read_response``.
        """

    def read_response_body(self, outcome: TransferOutcome, body: bytes) -> TransferOutcome:
        """Return the outcome of a transfer, after the end of the response.

        Args:
            outcome: The outcome, as returned by ``read_response``.
            body: The first `MAX_BODY_BYTES` of the body, without leading white space.
        """


def refusal(status: int, *, final: Container[int] = ()) -> TransferOutcome:
    """Return the outcome of a response that is no success.

    >>> (refusal(409).result.value, refusal(413).result.value, refusal(503).result.value)
    ('refused', 'rejected', 'refused')

    Args:
        status: Status code of the response.
        final: Further status codes after which the client cannot go on.
    """
    is_final = status in final or (status in _REJECTIONS and status not in _MAY_GO_ON)
    return TransferOutcome(TransferResult.REJECTED if is_final else TransferResult.REFUSED)


def upload_id_for(transfer_head: TransferHead, resource: str) -> str:
    """Return the id of the upload at *resource*.

    >>> upload_id_for(TransferHead("tus", TransferKind.BYTES), "/files/1")
    'tus-6c8b7d1ec7e4ecc4'

    The digest is no secret: who can guess the address can compute the id. A capability, which
    grants access to those who know it, must not be guessed. So the id is as long as one only if
    the address belongs to this upload alone and contains 128 random bits.
    """
    is_secret = transfer_head.resource_is_unique and has_random_bits(resource)
    size = 18 if is_secret else GUESSABLE_DIGEST_BYTES
    digest = blake2b(resource.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()
    return f"{transfer_head.protocol}-{digest}"


def has_random_bits(resource: str) -> bool:
    """Return whether an address contains what looks like 128 random bits, in hexadecimal digits.

    Other texts of that length may be names of files, which can be guessed.

    >>> has_random_bits("/files/0b5c1e8d9a7f4e21a6c3d2f1b0987e6d")
    True
    >>> (has_random_bits("/files/17"), has_random_bits("/files/" + "17".zfill(32)))
    (False, False)
    """
    return any(alphabet_bits(found) >= CAPABILITY_BITS for found in _RANDOM.findall(resource))


def part_name(resource: str) -> str:
    """Return the name of the part at *resource*, for an upload that has several resources.

    >>> part_name("/files/1") == part_name("/files/2")
    False
    """
    return "." + blake2b(resource.encode("utf-8", "replace"), digest_size=8).hexdigest()


def target_of(connection: Connection) -> str:
    """Return path and query of a request (RFC 9110, section 7.1).

    >>> target_of(Connection({"type": "http", "path": "/files", "query_string": b"name=a"}))
    '/files?name=a'
    """
    query = bytes(connection.scope.get("query_string", b"")).decode("latin-1")
    return f"{connection.path}?{query}" if query else connection.path


def resolve_target(location: str | None, request_path: str) -> str | None:
    """Return path and query of a ``Location`` header, as ``target_of`` returns them.

    >>> resolve_target("1?token=x", "/files/")
    '/files/1?token=x'

    Args:
        location: The header's value. None if it is missing.
        request_path: Path of the request, against which a relative reference is resolved.

    Returns:
        The decoded path with the query. None if the header is missing or is no valid reference.
    """
    if not location:
        return None
    try:
        url = urlsplit(urljoin(quote(request_path, errors="replace"), location.strip()))
    except ValueError:
        return None
    if not url.path.startswith("/"):
        return None
    return f"{unquote(url.path)}?{url.query}" if url.query else unquote(url.path)


def resolve_path(location: str | None, request_path: str) -> str | None:
    """Return the path of a ``Location`` header (RFC 9110, section 10.2.2).

    >>> resolve_path("1?token=x", "/files/")
    '/files/1'

    Args:
        location: The header's value. None if it is missing.
        request_path: Path of the request, against which a relative reference is resolved.

    Returns:
        The decoded path. None if the header is missing or is no valid reference.
    """
    if not location:
        return None
    return resolve_target(location.partition("#")[0].partition("?")[0] or None, request_path)


def parse_count(text: str | None) -> int | None:
    """Return the number of bytes in a header; None if it is missing, invalid or above the limit.

    >>> (parse_count("12"), parse_count("-1"))
    (12, None)
    """
    if text is None or not _COUNT.fullmatch(text.strip()):
        return None
    count = int(text)
    return count if count <= MAX_OFFSET else None


def content_length(connection: Connection) -> int | None:
    """Return the announced size of the body of a request, in bytes.

    A value that was repeated counts once (RFC 9110, section 8.6); different values are invalid.

    >>> headers = [(b"content-length", b"3"), (b"content-length", b"3, 3")]
    >>> content_length(Connection({"type": "http", "headers": headers}))
    3

    Args:
        connection: The head of the request.

    Returns:
        The size. None if it is missing, invalid or above ``MAX_OFFSET``.
    """
    value, *others = connection.headers("content-length") or [""]
    if others or "," in value:
        values = {each.strip() for each in ",".join([value, *others]).split(",")}
        value = values.pop() if len(values) == 1 else ""
    return parse_count(value)


def is_success(status: int) -> bool:
    """Return whether *status* is 2xx."""
    return status in _SUCCESS
