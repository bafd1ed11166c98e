"""Request bodies of the API: small JSON objects, read within bounds of size and time."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import anyio
import msgspec
from attrs import frozen
from starlette.types import Receive

from upload_progress._model.codec import decode_json
from upload_progress.exceptions import InvalidValue
from upload_progress.starlette.http import Problem, Refused

__all__ = [
    "Announcement",
    "BODY_SECONDS",
    "Command",
    "MAX_TARGET_CHARACTERS",
    "SubscribeRequest",
    "read_body",
    "read_command",
]

T = TypeVar("T")

BODY_SECONDS: Final = 10.0

_TOO_LARGE: Final = "The body may have {} bytes."
_GONE: Final = Problem(400, "incomplete_body", "The body ended early.")
_TOO_SLOW: Final = Problem(408, "slow_body", f"The body must be here within {BODY_SECONDS:.0f} s.")
_PLACE: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)

_Name = Annotated[str, msgspec.Meta(max_length=255)]
_Group = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=10**18)]


@frozen
class Announcement:
    """The body of ``POST /uploads``; every field may be absent."""

    filename: _Name | None = None
    total_bytes: _Size | None = None
    content_type: _Name | None = None
    group: _Group | None = None
    metadata: dict[str, object] | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a group that the header of an upload could not carry either."""
        if self.group is not None and not self.group.isprintable():
            raise InvalidValue("body.group", "must be printable")


@frozen
class SubscribeRequest:
    """The body of ``POST /uploads/{upload_id}/subscribe``."""

    client_id: _Name


async def read_body(receive: Receive, kind: type[T], *, most_bytes: int) -> T:
    """Read a JSON object into a *kind*; no body is the same as ``{}``, unknown fields are ignored.

    Raises:
        InvalidValue: It is no JSON object, or a field is wrong.
        Refused: It is too large, too slow, or was broken off.
    """
    try:
        with anyio.fail_after(BODY_SECONDS):
            body = await _bytes(receive, most_bytes)
    except TimeoutError:
        raise Refused(_TOO_SLOW) from None
    return _convert(decode_json(body or b"{}", "body"), kind)


async def _bytes(receive: Receive, most_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(_GONE)
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise Refused(Problem(413, "large_body", _TOO_LARGE.format(most_bytes)))
        if not message.get("more_body", False):
            return bytes(body)


def _convert(members: Mapping[str, object], kind: type[T]) -> T:
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InvalidValue):
            raise error.__cause__ from None
        match = _PLACE.fullmatch(str(error))
        problem, place = (match[1], match[2]) if match else (str(error), "")
        raise InvalidValue(f"body{place}", problem) from None


# FROM starlette.commands: What a client may say on a WebSocket (JSON text, see the AsyncAPI document).

_KINDS: Final = ("subscribe", "unsubscribe", "cancel")
_TARGETS: Final = ("upload_id", "group", "all")
MAX_TARGET_CHARACTERS: Final = 128


@frozen
class Command:
    """One message: what to do, with one upload, one group, or everything.

    Attributes:
        kind: ``subscribe``, ``unsubscribe`` or ``cancel``.
        upload_id: One upload; None where it is a group, or everything.
        group: A group; None where it is an upload, or everything.
    """

    kind: str
    upload_id: str | None = None
    group: str | None = None

    @property
    def target(self) -> dict[str, object]:
        """The member that names what it is about, as it stands in an answer."""
        if self.upload_id is not None:
            return {"upload_id": self.upload_id}
        return {"all": True} if self.group is None else {"group": self.group}


def read_command(text: str) -> Command:
    """Read a message; members it does not know are ignored.

    Raises:
        InvalidValue: It is no JSON object, or no command that is known.
    """
    members = decode_json(text, "message")
    kind = members.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidValue("message.type", f"must be one of {', '.join(_KINDS)}")
    named = [name for name in _TARGETS if members.get(name) is not None]
    if len(named) != 1:
        raise InvalidValue("message", f"must have one of {', '.join(_TARGETS)}")
    if kind == "cancel" and named != ["upload_id"]:
        raise InvalidValue("message.upload_id", "must say which upload to cancel")
    return _command(kind, named[0], members)


def _command(kind: str, name: str, members: Mapping[str, object]) -> Command:
    value = members[name]
    if name == "all":
        if value is not True:
            raise InvalidValue("message.all", "must be true")
        return Command(kind)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TARGET_CHARACTERS:
        raise InvalidValue(f"message.{name}", "must be a string of 1 to 128 characters")
    return Command(kind, **{name: value})
