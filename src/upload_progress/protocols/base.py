"""What a request carries of an upload that is sent in many requests, and what came of it.

A protocol is two pure functions. ``read`` looks at a request's head and says which piece of
which upload it carries, or that it is none of its own. ``answer`` looks at the head of the
response and says what came of that piece. Neither sees a body, neither remembers anything,
and neither raises on any head: what it does not understand is None, or refused.

An upload is found again by its *resource*: the address that the protocol itself gives it. Its
id is a digest of that, so that every worker finds the same one without asking another. The
digest names the resource in its owner's namespace; it is no secret and opens nothing.
"""

import re
from collections.abc import Mapping
from enum import StrEnum, unique
from hashlib import blake2b
from typing import Final, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from attrs import frozen

from upload_progress.connection import Connection

__all__ = [
    "TransferResult",
    "Headers",
    "TransferKind",
    "MAX_OFFSET",
    "TransferOutcome",
    "TransferHead",
    "TransferProtocol",
    "parse_count",
    "upload_id_for",
    "is_success",
    "part_name",
    "resolve_path",
]

Headers = Mapping[str, str]
"""A response's headers: lower-case names, of one that comes twice the first value."""

MAX_OFFSET: Final = (1 << 53) - 1
"""The largest number of bytes that every JSON reader understands exactly."""

_COUNT: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_SUCCESS: Final = range(200, 300)


@unique
class TransferKind(StrEnum):
    """What a request wants of an upload."""

    CREATE = "create"
    """A new one, whose address comes with the answer; it may bring first bytes."""
    BYTES = "bytes"
    """To add bytes to it."""
    COMPLETE = "complete"
    """To make one of its parts, all of which are there."""
    ABORT = "abort"
    """To give it up."""


@unique
class TransferResult(StrEnum):
    """What came of a request."""

    NOTHING = "nothing"
    """It made no upload."""
    CREATED = "created"
    """The upload has an address now; it waits for bytes."""
    ACCEPTED = "accepted"
    """The server has taken the bytes; more are to follow, unless it was all."""
    REFUSED = "refused"
    """The server took nothing; the upload is where it was."""
    COMPLETED = "completed"
    """The upload is whole."""
    ABORTED = "aborted"
    """The upload is given up."""


@frozen
class TransferHead:
    """What a request carries.

    Attributes:
        protocol: The name of the protocol that has read it.
        kind: What it wants.
        resource: Where the upload is; None for one that has no address yet.
        part: The name of the part, where parts have names; "" for a stream of bytes.
        offset: Where in the part its bytes begin; None at the end of what is there.
        length: How many bytes of the upload it carries, if that is announced.
        total_bytes: How large the whole upload is, if it says so.
        filename: As the protocol announces it.
        is_last: Whether the upload is whole after it.
        is_sequential: Whether a server takes it only at the end of what it has.
        is_lasting: Whether the resource is the upload's alone, and never that of another.
        is_whole_when_full: Whether the upload is whole when the server has taken all its bytes.
        has_body: Whether bytes of the upload come with it.
        base: The path of the request, from which a relative address in the answer is seen.
        is_one_of: Whether an upload that the client has named may have several such resources.
        partial_bytes: How large this resource will be, where it is only a part of the upload.
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


@frozen
class TransferOutcome:
    """What came of a piece.

    Attributes:
        came: In one word.
        resource: The address of an upload that was created.
        offset: How many bytes from the start the server says it has.
        total_bytes: How large it says the whole is.
    """

    result: TransferResult
    resource: str | None = None
    offset: int | None = None
    total_bytes: int | None = None


class TransferProtocol(Protocol):
    """How an upload travels in many requests."""

    @property
    def name(self) -> str:
        """A short word of letters, which begins the ids of its uploads."""

    @property
    def specification(self) -> str:
        """Where it is specified."""

    def read_request(self, connection: Connection) -> TransferHead | None:
        """Return what the request carries; None where it is not of this protocol."""

    def read_response(
        self, transfer_head: TransferHead, status: int, headers: Headers
    ) -> TransferOutcome:
        """Return what came of *piece*, by the head of the response."""


def upload_id_for(transfer_head: TransferHead, resource: str) -> str:
    """Return the id of the upload at *resource*.

    An address that is not an upload's alone is one that people can guess: its id is too short
    to pass for a secret, so that nobody who holds no more than that is shown anything.
    """
    size = 18 if transfer_head.resource_is_unique else 8
    digest = blake2b(resource.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()
    return f"{transfer_head.protocol}-{digest}"


def part_name(resource: str) -> str:
    """Return the name of the part that is at *resource*, where an upload has several of them."""
    return "." + blake2b(resource.encode("utf-8", "replace"), digest_size=8).hexdigest()


def resolve_path(location: str | None, request_path: str) -> str | None:
    """Return the decoded path that a ``Location`` names, as seen from *base*.

    Returns:
        The path, as a later request's will be; None where it names none.
    """
    if not location:
        return None
    try:
        path = urlsplit(urljoin(quote(request_path, errors="replace"), location.strip())).path
    except ValueError:
        return None
    return unquote(path) if path.startswith("/") else None


def parse_count(text: str | None) -> int | None:
    """Return a number of bytes; None where it is none, or beyond what can be told."""
    if text is None or not _COUNT.fullmatch(text.strip()):
        return None
    count = int(text)
    return count if count <= MAX_OFFSET else None


def is_success(status: int) -> bool:
    """Tell whether *status* is 2xx."""
    return status in _SUCCESS
