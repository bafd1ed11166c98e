"""Types of the HTTP and WebSocket API: request bodies, problem documents and messages.

Requests and client messages are decoded into these types; responses and server messages are
encoded from them. The OpenAPI and AsyncAPI documents are generated from the same types, so they
state exactly what is accepted and sent.
"""

from typing import Annotated, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from upload_progress._model.models import Metadata, UploadProgress
from upload_progress._model.validation import (
    MAX_COUNT,
    MAX_GROUP_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    STAGE_NAME_CHARACTERS,
)
from upload_progress.exceptions import InvalidValue

__all__ = [
    "CLIENT_ID_PATTERN",
    "CLIENT_MESSAGES",
    "EDGE_HEADER",
    "MAX_TARGETS",
    "SERVER_MESSAGES",
    "Announcement",
    "Cancel",
    "ClientMessage",
    "EdgeAccess",
    "ErrorMessage",
    "Heartbeat",
    "Problem",
    "ProgressMessage",
    "ServerMessage",
    "StageReport",
    "Subscribe",
    "SubscribeRequest",
    "Subscribed",
    "Target",
    "TaskReport",
    "Ticket",
    "TicketTargets",
    "Unsubscribe",
    "Unsubscribed",
    "Welcome",
]

CLIENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{44}$"
"""A ``client_id``: the name of the worker that holds the socket, a dot, 128 random bits, and 128
bits of a signature."""

EDGE_HEADER: Final = "upload-edge"
"""In the response of an event stream: there is a push server, to which the client may connect."""
MAX_TARGETS: Final = 100
"""How many uploads and groups one connection to a push server may be for."""

_ByteCount = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
_Group = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_GROUP_CHARACTERS, description="Printable characters only."),
]
_UploadId = Annotated[str, Meta(min_length=1, max_length=128)]
_ClientId = Annotated[str, Meta(pattern=CLIENT_ID_PATTERN)]


# HTTP


class Announcement(Struct, frozen=True, omit_defaults=True):
    """What a client announces about an upload before it sends the upload."""

    filename: _Text | None = None
    total_bytes: _ByteCount | None = None
    content_type: _Text | None = None
    group: _Group | None = None
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        """Reject a group that an ``Upload-Group`` header could not carry."""
        if self.group is not None and not self.group.isprintable():
            raise InvalidValue("body.group", "must contain printable characters only")


class SubscribeRequest(Struct, frozen=True):
    """The open WebSocket to which an upload is added."""

    client_id: _Text


class StageReport(Struct, frozen=True, omit_defaults=True):
    """What a task does with an upload; *total* null means indeterminate."""

    name: Annotated[str, Meta(max_length=STAGE_NAME_CHARACTERS)]
    done: _ByteCount = 0
    total: _ByteCount | None = None


class TaskReport(Struct, frozen=True, omit_defaults=True):
    """What a task reports about an upload that was handed over to it.

    Without a ``stage`` the last one stays; null ends it. ``message`` is the reason of ``failed``.
    """

    state: Literal["processing", "completed", "failed"] = "processing"
    stage: StageReport | UnsetType | None = UNSET
    message: Annotated[str, Meta(max_length=1000)] | None = None
    stored_bytes: _ByteCount | None = None
    lease_seconds: Annotated[float, Meta(ge=1, le=86_400)] | None = None


class Target(Struct, frozen=True, omit_defaults=True):
    """One upload, or one group."""

    upload_id: _UploadId | None = None
    group: _Group | None = None

    def __post_init__(self) -> None:
        """Reject a target that names nothing, or two things."""
        if (self.upload_id is None) == (self.group is None):
            problem = "must each contain exactly one of upload_id and group"
            raise InvalidValue("body.targets", problem)


class TicketTargets(Struct, frozen=True, omit_defaults=True):
    """What a client will follow through the push server; without targets, all uploads of the user.

    Without a push server it has no effect: a ticket is for any stream or socket.
    """

    targets: Annotated[list[Target], Meta(max_length=MAX_TARGETS)] = []


class EdgeAccess(Struct, frozen=True):
    """How a client connects to the push server, which is Centrifugo.

    ``url`` is its address for unidirectional HTTP streams, ``token`` the connection token, which
    subscribes to all channels. ``subscriptions`` has a subscription token for each channel, for
    clients that are connected already. All are valid for ``expires_in`` seconds.
    """

    url: str
    token: str
    subscriptions: dict[str, str]
    expires_in: int


class Ticket(Struct, frozen=True):
    """A one-time replacement for credentials in a URL; ``expires_in`` is in seconds.

    ``edge`` is missing if the server has no push server, or if what the client wants to follow
    is not published there.
    """

    ticket: str
    expires_in: int
    edge: EdgeAccess | UnsetType = UNSET


class Problem(Struct, frozen=True):
    """An error (RFC 9457): ``code`` is for programs, ``detail`` is for people.

    ``where`` names the invalid value, if there is one.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str | UnsetType = UNSET


# WebSocket messages of the server


class Welcome(Struct, frozen=True, tag="welcome"):
    """The first message: the ``client_id`` by which HTTP calls address this socket.

    With ``edge``, there is a push server: get a ticket, and follow the uploads there.
    """

    client_id: _ClientId
    heartbeat_seconds: float
    edge: Literal[True] | UnsetType = UNSET


class ProgressMessage(Struct, frozen=True, tag="progress"):
    """The newest snapshot of an upload to which this socket is subscribed."""

    upload: UploadProgress


class _SubscriptionTarget(Struct, frozen=True):
    """The subject of a confirmation: one upload, one group, or all uploads of the user."""

    upload_id: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    all: Literal[True] | UnsetType = UNSET


class Subscribed(_SubscriptionTarget, frozen=True, tag="subscribed"):
    """A subscription has started; the current snapshots follow."""


class Unsubscribed(_SubscriptionTarget, frozen=True, tag="unsubscribed"):
    """A subscription has ended."""


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """Nothing has changed for a while; the connection is alive."""


class ErrorMessage(Struct, frozen=True, tag="error"):
    """A message of the client was refused; the socket stays open."""

    problem: Problem


# WebSocket messages of the client


class _RequestedTarget(Struct, frozen=True, omit_defaults=True):
    """The subject of a command: one upload, one group, or all uploads of the user."""

    upload_id: _UploadId | None = None
    group: _Group | None = None
    all: Literal[True] | None = None

    def __post_init__(self) -> None:
        """Reject a message that names no target, or several."""
        if [self.upload_id, self.group, self.all].count(None) != 2:  # noqa: PLR2004  # of three
            raise InvalidValue("message", "must contain exactly one of upload_id, group, all")


class Subscribe(_RequestedTarget, frozen=True, omit_defaults=True, tag="subscribe"):
    """Subscribe to one upload, to a group, or to all uploads of the user: name exactly one."""


class Unsubscribe(_RequestedTarget, frozen=True, omit_defaults=True, tag="unsubscribe"):
    """End the subscription that ``subscribe`` with the same target started."""


class Cancel(Struct, frozen=True, tag="cancel"):
    """Cancel an upload; its running transfer is aborted."""

    upload_id: _UploadId


ServerMessage = Welcome | ProgressMessage | Subscribed | Unsubscribed | Heartbeat | ErrorMessage
ClientMessage = Subscribe | Unsubscribe | Cancel
SERVER_MESSAGES: Final[tuple[type[ServerMessage], ...]] = get_args(ServerMessage)
CLIENT_MESSAGES: Final[tuple[type[ClientMessage], ...]] = get_args(ClientMessage)
