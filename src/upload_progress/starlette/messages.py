"""Reading request bodies and WebSocket messages: JSON objects, bounded in size and time."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import anyio
import msgspec
from starlette.types import Receive

from upload_progress._model.api_types import CLIENT_MESSAGES, ClientMessage
from upload_progress._model.codec import decode_json
from upload_progress.exceptions import InvalidValue
from upload_progress.starlette.http import ErrorResponse, RequestRefused

__all__ = ["BODY_TIMEOUT_SECONDS", "parse_client_message", "read_body"]

T = TypeVar("T")

BODY_TIMEOUT_SECONDS: Final = 10.0

_INCOMPLETE_BODY: Final = ErrorResponse.build(
    400, "incomplete_body", "The request body ended before it was complete."
)
_SLOW_BODY: Final = ErrorResponse.build(
    408,
    "slow_body",
    f"The request body must arrive within {BODY_TIMEOUT_SECONDS:.0f} seconds.",
)
_LOCATION: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.*)`")
_MESSAGE_TYPES: Final[Mapping[object, type[ClientMessage]]] = {
    kind.__struct_config__.tag: kind for kind in CLIENT_MESSAGES
}


async def read_body(receive: Receive, kind: type[T], *, max_bytes: int) -> T:
    """Read a JSON object as a *kind*; an empty body means ``{}``, unknown fields are ignored.

    Raises:
        InvalidValue: The body is not a JSON object, or a field is invalid.
        RequestRefused: The body is too large, too slow or incomplete.
    """
    try:
        with anyio.fail_after(BODY_TIMEOUT_SECONDS):
            body = await _read_bytes(receive, max_bytes)
    except TimeoutError:
        raise RequestRefused(_SLOW_BODY) from None
    return _convert(decode_json(body or b"{}", "body"), kind, "body")


async def _read_bytes(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestRefused(_INCOMPLETE_BODY)
        body += message.get("body", b"")
        if len(body) > max_bytes:
            detail = f"The request body must not exceed {max_bytes} bytes."
            raise RequestRefused(ErrorResponse.build(413, "large_body", detail))
        if not message.get("more_body", False):
            return bytes(body)


def parse_client_message(text: str) -> ClientMessage:
    """Return the client message in *text*; unknown fields are ignored.

    Raises:
        InvalidValue: The text is not a JSON object, or not a valid message.
    """
    members = decode_json(text, "message")
    name = members.get("type")
    kind = _MESSAGE_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        allowed = ", ".join(str(tag) for tag in _MESSAGE_TYPES)
        raise InvalidValue("message.type", f"must be one of {allowed}")
    return _convert(members, kind, "message")


def _convert(members: Mapping[str, object], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        # Raised by a type's own check: it names the field itself.
        if isinstance(error.__cause__, InvalidValue):
            raise error.__cause__ from None
        raise _invalid_value(where, str(error)) from None


def _invalid_value(where: str, text: str) -> InvalidValue:
    """Return the error for a text of msgspec, such as ``Expected `int` - at `$.a[0]```."""
    location = _LOCATION.fullmatch(text)
    if location is not None:
        text, where = location[1], where + location[2]
    missing = _MISSING_FIELD.fullmatch(text)
    if missing is not None:
        return InvalidValue(f"{where}.{missing[1]}", "is required")
    return InvalidValue(where, text)
