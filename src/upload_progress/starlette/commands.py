"""What a client may say on a WebSocket (JSON text, see the AsyncAPI document)."""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from upload_progress.errors import InvalidValue
from upload_progress.wire import decode_json

__all__ = ["MAX_TARGET_CHARACTERS", "Command", "read_command"]

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
