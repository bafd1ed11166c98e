"""The nouns: immutable values that travel between the floors.

Sizes are in bytes, rates in bytes per second. A record holds seconds since the Unix
epoch; a snapshot holds aware UTC datetimes, which become RFC 3339 on the wire.

What goes onto the wire has no slots: msgspec then writes its fields in their order, and faster.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from attrs import frozen

__all__ = [
    "RESERVED_IDS",
    "Arrival",
    "ByteRange",
    "ErrorCode",
    "Links",
    "Metadata",
    "Parts",
    "Stage",
    "TransferRecord",
    "UploadError",
    "UploadKey",
    "UploadPage",
    "UploadProgress",
    "UploadState",
    "UploadTotal",
    "bounded_text",
    "is_upload_id",
    "new_transfer_id",
    "new_upload_id",
]

Metadata = Mapping[str, object]

ByteRange = tuple[str, int, int, bool]
"""Of an upload in many requests: a part's name, first byte, end, and whether it was taken."""

RESERVED_IDS: Final = frozenset(
    {
        "progress",
        "tickets",
        "subscribe",
        "unsubscribe",
        "upload-progress.js",
        "openapi.json",
        "asyncapi.json",
    }
)
"""Words of the API's own paths, which therefore name no upload."""

_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


def is_upload_id(text: str) -> bool:
    """Tell whether *text* may name an upload: RFC 3986 unreserved characters, 1 to 128."""
    return (
        _UPLOAD_ID.fullmatch(text) is not None
        and text not in RESERVED_IDS
        and text not in {".", ".."}
    )


def new_upload_id() -> str:
    """Return a fresh id: 128 bits from the system's random source, URL-safe.

    The last of its 22 characters holds two bits, and is one of ``AQgw``. Put first, it keeps a
    hyphen from standing there, where a command line would take the id for an option.
    """
    token = secrets.token_urlsafe(16)
    return token[-1] + token[:-1]


def new_transfer_id() -> str:
    """Return a name for a record, unique within its upload."""
    return secrets.token_urlsafe(8)


def bounded_text(text: str, characters: int) -> str:
    """Return *text* cut to that many characters, and without what UTF-8 cannot say."""
    return text[:characters].encode("utf-8", "replace").decode("utf-8")


@unique
class UploadState(StrEnum):
    """Where an upload stands; ``lifecycle`` holds the table of the moves between them."""

    PENDING = "pending"
    RECEIVING = "receiving"
    PAUSED = "paused"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@unique
class ErrorCode(StrEnum):
    """Why an upload did not complete."""

    CLIENT_DISCONNECTED = "client_disconnected"
    REJECTED = "rejected"
    APP_ERROR = "app_error"
    CANCELLED_BY_OWNER = "cancelled_by_owner"
    WORKER_LOST = "worker_lost"
    EXPIRED = "expired"


@unique
class Arrival(StrEnum):
    """How the bytes came: as the client sent them, or in one gulp from a buffering proxy."""

    STREAMED = "streamed"
    BUFFERED = "buffered"


@frozen(slots=False)
class Stage:
    """What the application is doing with an upload; ``total`` None is indeterminate."""

    name: str
    done: int = 0
    total: int | None = None


@frozen(slots=False)
class UploadError:
    """Why an upload failed or was cancelled."""

    code: ErrorCode
    message: str
    http_status: int | None = None


@frozen(slots=False)
class Parts:
    """How many parts of an upload in several parts are here; ``total`` None is unknown."""

    received: int
    total: int | None = None


@frozen(slots=False)
class Links:
    """Absolute paths under the mount point."""

    progress: str
    events: str
    websocket: str
    cancel: str


@frozen(order=True)
class UploadKey:
    """An upload id in its owner's namespace: the same id of two owners is two uploads."""

    owner: str
    upload_id: str


@frozen
class TransferRecord:
    """What one writer knows about an upload; an upload is the fold over its records.

    A record is written by exactly one worker. The announcement made by ``POST /uploads``
    is a record that carries no bytes. Times are seconds since the epoch.

    Attributes:
        attempt: Which try of the upload this belongs to, from 1.
        sequence: Grows with every stored change of this record.
        total_bytes: The size of the upload, as far as this writer knows.
        worker: Whose lease keeps the record alive.
        lease_until: Set by the store when it loads an open record of a worker.
        expires_at: When an upload that waits is given up; None while bytes come.
        protocol: By which protocol it comes in many requests; None where it is one request.
        spans: Which of its bytes came to this writer; those of one request are just counted.
        confirmed_bytes: How many bytes from the start the server said it had.
    """

    owner: str
    upload_id: str
    transfer_id: str
    attempt: int
    sequence: int
    state: UploadState
    received_bytes: int = 0
    total_bytes: int | None = None
    retransmitted_bytes: int = 0
    bytes_per_second: float | None = None
    stalled: bool = False
    arrival: Arrival | None = None
    stage: Stage | None = None
    error: UploadError | None = None
    group: str | None = None
    filename: str | None = None
    content_type: str | None = None
    metadata: Metadata | None = None
    created_at: float = 0.0
    started_at: float | None = None
    updated_at: float = 0.0
    last_byte_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    worker: str | None = None
    lease_until: float | None = None
    protocol: str | None = None
    spans: tuple[ByteRange, ...] = ()
    confirmed_bytes: int = 0

    @property
    def key(self) -> UploadKey:
        """The upload this belongs to."""
        return UploadKey(self.owner, self.upload_id)


@frozen(slots=False)
class UploadProgress:
    """A snapshot: everything known about an upload at one moment, never a delta."""

    upload_id: str
    group: str | None
    sequence: int
    attempt: int
    state: UploadState
    stage: Stage | None
    bytes_transferred: int
    total_bytes: int | None
    percent: float | None
    bytes_per_second: float | None
    eta_seconds: float | None
    retransmitted_bytes: int
    parts: Parts | None
    stalled: bool
    arrival: Arrival | None
    filename: str | None
    content_type: str | None
    metadata: Metadata | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    last_byte_at: datetime | None
    finished_at: datetime | None
    error: UploadError | None
    links: Links


@frozen(slots=False)
class UploadTotal:
    """Several uploads added up; a sum that has an unknown part is None."""

    uploads: int
    bytes_transferred: int
    total_bytes: int | None
    percent: float | None
    bytes_per_second: float | None
    eta_seconds: float | None


@frozen(slots=False)
class UploadPage:
    """One page of an owner's uploads, newest first; ``next`` is the cursor of the next page."""

    uploads: tuple[UploadProgress, ...]
    total: UploadTotal
    next: str | None = None
