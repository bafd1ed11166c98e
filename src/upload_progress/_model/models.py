"""Values: states, records, snapshots and pages; all immutable.

Sizes are in bytes, rates in bytes per second. A record contains seconds since the Unix epoch; a
snapshot contains aware UTC datetimes, which are RFC 3339 in JSON.

Classes that are encoded have no slots: msgspec then encodes their fields in order, and faster.
"""

import os
import re
from binascii import b2a_base64
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from attrs import evolve, frozen
from msgspec import UNSET, UnsetType

__all__ = [
    "RESERVED_IDS",
    "Arrival",
    "ByteRange",
    "ErrorCode",
    "HandOver",
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
    "is_upload_id",
    "new_transfer_id",
    "new_upload_id",
    "truncate_text",
    "without_store_times",
]

Metadata = Mapping[str, object]

ByteRange = tuple[str, int, int, bool]
"""Part name, first byte, end, and whether the application has accepted the bytes."""

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
"""Words in the paths of the progress API, which cannot be upload ids."""

_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


def is_upload_id(text: str) -> bool:
    """Return whether *text* is a valid upload id: 1 to 128 unreserved characters (RFC 3986)."""
    return (
        _UPLOAD_ID.fullmatch(text) is not None
        and text not in RESERVED_IDS
        and text not in {".", ".."}
    )


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def new_upload_id() -> str:
    """Return a new upload id: 128 random bits of the operating system, URL-safe.

    The last of the 22 characters holds two bits, and is one of ``AQgw``. It is moved to the front,
    so that no id starts with a hyphen, which a command line would take for an option.
    """
    token = b2a_base64(os.urandom(16), newline=False).translate(_URL_SAFE).decode()
    return token[21] + token[:21]


def new_transfer_id() -> str:
    """Return a new transfer id, unique within its upload."""
    return os.urandom(8).hex()


def truncate_text(text: str, characters: int) -> str:
    """Return the first *characters* of *text*; a ``?`` replaces what UTF-8 cannot encode."""
    first = text[:characters]
    return first if first.isascii() else first.encode("utf-8", "replace").decode("utf-8")


@unique
class UploadState(StrEnum):
    """The state of an upload; see ``TRANSITIONS`` in ``upload_progress._model.state``."""

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
    """How the body arrived: while the client sent it, or at once from a buffering proxy."""

    STREAMED = "streamed"
    BUFFERED = "buffered"


@frozen(slots=False)
class Stage:
    """What the application does with an upload; *total* None means indeterminate."""

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
    """How many numbered parts of an upload were received; *total* None means unknown."""

    received: int
    total: int | None = None


@frozen(slots=False)
class Links:
    """Absolute paths of an upload under the mount path."""

    progress: str
    events: str
    websocket: str
    cancel: str


@frozen(slots=False)
class HandOver:
    """That the processing of an upload was handed over, by a token, to a task.

    Attributes:
        token_hash: The SHA-256 hash of the token.
        is_resumed: Whether a task has resumed it; else the upload waits for one.
    """

    token_hash: str
    is_resumed: bool = False


@frozen(order=True)
class UploadKey:
    """An owner and an upload id: the same id of two owners means two uploads."""

    owner: str
    upload_id: str


@frozen(slots=False)
class TransferRecord:
    """The state of one transfer, as its worker stores it; an upload is the fold over its records.

    A record is written by exactly one worker at a time: by hand-over, another process becomes its
    writer. The announcement by ``POST /uploads`` is a record without bytes. Times are in seconds
    since the epoch.

    Attributes:
        attempt: The attempt of the upload, from 1.
        sequence: Grows with each stored change of the record.
        total_bytes: The size of the upload, if this worker knows it.
        worker: The worker whose lease keeps the record alive.
        lease_until: When that lease ends; set by the store on loading.
        expires_at: When a waiting upload expires; set by the store on loading.
        protocol: The protocol of an upload in several requests; None for a single request.
        byte_ranges: The byte ranges received by this worker; empty for a single request.
        confirmed_bytes: How many bytes from the start the application said it has.
        set_by_app: The names of the attributes that the application has set: in several requests
            they take precedence over those that clients announce at other workers.
        previous_ended_at: When the attempt before has ended; None if it had not, or there is none.
        former_sessions: The sessions of uploads that this one has replaced; of one request, the
            names of their records.
        hand_over: Who may take over the record from the worker that received the upload.
        stored_bytes: How many bytes the application has passed on; None if it reports nothing.
        session: The name of the address to which all requests of the upload go, after the one that
            creates it; with a dot before it if there may be more addresses. None if not known.
        idle_at: When the last request of an upload in several requests ended at this worker.
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
    byte_ranges: tuple[ByteRange, ...] = ()
    confirmed_bytes: int = 0
    set_by_app: tuple[str, ...] = ()
    previous_ended_at: float | None = None
    former_sessions: tuple[str, ...] = ()
    hand_over: HandOver | None = None
    stored_bytes: int | None = None
    session: str | None = None
    idle_at: float | None = None

    @property
    def key(self) -> UploadKey:
        """The key of the upload."""
        return UploadKey(self.owner, self.upload_id)


def without_store_times(record: TransferRecord) -> TransferRecord:
    """Return *record* without the times that a store adds when it is loaded."""
    if record.lease_until is None and record.expires_at is None:
        return record
    return evolve(record, lease_until=None, expires_at=None)


@frozen(slots=False)
class UploadProgress:
    """A snapshot: everything known about an upload at one moment; cumulative, never a delta.

    Attributes:
        owner: The owner, if an operator looks at the uploads of others; else ``UNSET``, and not
            part of the JSON object.
    """

    upload_id: str
    group: str | None
    sequence: int
    attempt: int
    state: UploadState
    stage: Stage | None
    bytes_transferred: int
    stored_bytes: int | None
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
    owner: str | UnsetType = UNSET


@frozen(slots=False)
class UploadTotal:
    """The sum over several uploads; None for a sum with an unknown part.

    Attributes:
        approximate: Whether there are more uploads: the sum is that of the newest ones.
    """

    uploads: int
    bytes_transferred: int
    total_bytes: int | None
    percent: float | None
    bytes_per_second: float | None
    eta_seconds: float | None
    approximate: bool = False


@frozen(slots=False)
class UploadPage:
    """One page of an owner's uploads, newest first; ``next`` is the cursor of the next page."""

    uploads: tuple[UploadProgress, ...]
    total: UploadTotal
    next: str | None = None
