"""What is on the wire and is no value of the core: request bodies, problems, socket messages.

These types describe; nothing is decoded into them. The tests hold what the server really
sends against the schemas that come from here.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from upload_progress._model.models import Metadata, UploadProgress
from upload_progress._model.validation import MAX_COUNT, MAX_GROUP_CHARACTERS, MAX_TEXT_CHARACTERS

__all__ = [
    "Announcement",
    "CLIENT_MESSAGES",
    "Cancel",
    "ErrorMessage",
    "Heartbeat",
    "Problem",
    "ProgressMessage",
    "SERVER_MESSAGES",
    "Subscribe",
    "Subscribed",
    "SubscriptionRequest",
    "Ticket",
    "Unsubscribe",
    "Unsubscribed",
    "Welcome",
]

_Size = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_Name = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
_Group = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_GROUP_CHARACTERS, description="Printable characters only."),
]


class Announcement(Struct, omit_defaults=True):
    """What a client says of an upload before it sends it."""

    filename: _Name | None = None
    total_bytes: _Size | None = None
    content_type: _Name | None = None
    group: _Group | None = None
    metadata: Metadata | None = None


class Problem(Struct):
    """Why a call was refused (RFC 9457): ``code`` for programs, ``detail`` for people.

    ``where`` names the malformed value, where there is one.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str | msgspec.UnsetType = msgspec.UNSET


class Ticket(Struct):
    """Stands in for the caller's identity once, in a URL; ``expires_in`` is in seconds."""

    ticket: str
    expires_in: int


class SubscriptionRequest(Struct):
    """Which open socket an upload is to be added to."""

    client_id: _Name


class Welcome(Struct, tag="welcome"):
    """The first message: under which name this socket can be reached by REST."""

    client_id: str
    heartbeat_seconds: float


class ProgressMessage(Struct, tag="progress"):
    """The newest snapshot of an upload that this socket follows."""

    upload: UploadProgress


class Subscribed(Struct, tag="subscribed"):
    """The socket follows that from now on; what is known of it comes next."""

    upload_id: str | msgspec.UnsetType = msgspec.UNSET
    group: str | msgspec.UnsetType = msgspec.UNSET
    all: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class Unsubscribed(Struct, tag="unsubscribed"):
    """The socket follows that no more."""

    upload_id: str | msgspec.UnsetType = msgspec.UNSET
    group: str | msgspec.UnsetType = msgspec.UNSET
    all: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class Heartbeat(Struct, tag="heartbeat"):
    """Nothing has happened for a while, and the socket is alive."""


class ErrorMessage(Struct, tag="error"):
    """A message of the client's was refused; the socket stays open."""

    problem: Problem


class Subscribe(Struct, tag="subscribe", omit_defaults=True):
    """Follow one upload, or those of a group, or all of the caller's: name exactly one."""

    upload_id: str | None = None
    group: str | None = None
    all: Literal[True] | None = None


class Unsubscribe(Struct, tag="unsubscribe", omit_defaults=True):
    """Undo what ``subscribe`` with the same words did."""

    upload_id: str | None = None
    group: str | None = None
    all: Literal[True] | None = None


class Cancel(Struct, tag="cancel"):
    """End that upload; its running transfer is cut."""

    upload_id: str


SERVER_MESSAGES: Final = (
    Welcome,
    ProgressMessage,
    Subscribed,
    Unsubscribed,
    Heartbeat,
    ErrorMessage,
)
CLIENT_MESSAGES: Final = (Subscribe, Unsubscribe, Cancel)
