"""Validation of what a client or an application says about an upload.

Text that UTF-8 cannot encode, or a number that a record cannot hold, would break every later
attempt of the store to write the record. So such values are truncated or refused here.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from math import isfinite
from typing import Final, TypedDict
from uuid import UUID

from upload_progress._model.codec import decode_json, encode_json
from upload_progress._model.models import Metadata, truncate_text
from upload_progress.exceptions import InvalidValue

__all__ = [
    "MAX_COUNT",
    "MAX_GROUP_CHARACTERS",
    "MAX_METADATA_DEPTH",
    "MAX_TEXT_CHARACTERS",
    "STAGE_NAME_CHARACTERS",
    "Description",
    "validate_count",
    "validate_description",
    "validate_metadata",
]

MAX_COUNT: Final = (1 << 53) - 1
"""The largest whole number that every JSON reader understands exactly (RFC 8259, section 6)."""
MAX_GROUP_CHARACTERS: Final = 128
MAX_METADATA_DEPTH: Final = 32
MAX_TEXT_CHARACTERS: Final = 255
STAGE_NAME_CHARACTERS: Final = 100
_PLACE_CHARACTERS: Final = 64


class Description(TypedDict, total=False):
    """The description of an upload by an application or a request; None is the same as absent."""

    total_bytes: int | None
    filename: str | None
    content_type: str | None
    group: str | None
    metadata: Metadata | None


def validate_description(where: str, metadata_bytes: int, values: Description) -> Description:
    """Return *values* with truncated names, after checks of sizes and metadata.

    Args:
        where: The name of the call or message, for the error.
        metadata_bytes: The maximal size of the metadata, encoded as JSON.
        values: The description.

    Raises:
        InvalidValue: A value cannot be corrected by truncation.
    """
    metadata = values.get("metadata")
    if metadata is not None:
        metadata = validate_metadata(metadata, f"{where}.metadata", metadata_bytes)
    total = values.get("total_bytes")
    return Description(
        total_bytes=None if total is None else validate_count(f"{where}.total_bytes", total),
        filename=_text(where, "filename", values.get("filename")),
        content_type=_text(where, "content_type", values.get("content_type")),
        group=_group(where, values.get("group")),
        metadata=metadata,
    )


def validate_metadata(metadata: Mapping[str, object], where: str, size_bytes: int) -> Metadata:
    """Return a copy of *metadata*, if it is a JSON object of at most *size_bytes*.

    A value that JSON does not have is refused, and not replaced by a similar one: the owner would
    read something else than what was set.

    Raises:
        InvalidValue: It is not JSON, nested too deeply, or too large.
    """
    value: object = metadata  # callers without a type checker pass anything
    if not isinstance(value, Mapping):
        raise InvalidValue(where, f"must be a mapping, not {type(value).__name__}")
    plain = dict(value)
    _check_json(plain, where, MAX_METADATA_DEPTH)
    encoded = encode_json(plain)
    if len(encoded) > size_bytes:
        raise InvalidValue(where, f"has {len(encoded)} bytes as JSON; {size_bytes} are allowed")
    return decode_json(encoded, where)


_SCALARS: Final = frozenset({str, int, float})
_HALF_OF_A_PAIR: Final = "contains half of a surrogate pair, which UTF-8 cannot encode: remove it"
_OTHER_FIX: Final = "use a str, a number, a list or a dict"
_FIXES: Final[Mapping[type, str]] = {
    bytes: "decode it, or encode it as Base64",
    bytearray: "decode it, or encode it as Base64",
    AbstractSet: "use a list",
    Mapping: "use dict()",
    date: "use isoformat()",
    Decimal: "use str() or float()",
    UUID: "use str()",
    str: "use str()",
    int: "use int()",
    float: "use float()",
}


def _check_json(value: object, where: str, levels: int) -> None:
    """Raise ``InvalidValue`` with the place of the first value that JSON does not have."""
    if not isinstance(value, dict | list | tuple):
        problem = _problem_of(value)
        if problem is not None:
            raise InvalidValue(where, problem)
    elif levels == 0:
        problem = f"is nested more than {MAX_METADATA_DEPTH} levels deep: use fewer levels"
        raise InvalidValue(where, problem)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_json(item, f"{where}.{_checked_key(key, where)}", levels - 1)
    else:
        for number, item in enumerate(value):
            _check_json(item, f"{where}[{number}]", levels - 1)


def _checked_key(key: object, where: str) -> str:
    """Return the beginning of *key*, for the place of its value."""
    if type(key) is not str:
        problem = f"has the key {key!r}, which is not a str: use {str(key)!r}"
        raise InvalidValue(where, problem)
    if not _is_encodable(key):
        raise InvalidValue(where, f"has the key {key!r}, which {_HALF_OF_A_PAIR}")
    return key[:_PLACE_CHARACTERS]


def _problem_of(value: object) -> str | None:
    """Return why JSON does not have *value*, and how to fix it; None if JSON has it."""
    if value is None or isinstance(value, bool):
        return None
    if type(value) not in _SCALARS and not isinstance(value, StrEnum | IntEnum):
        fix = next((fix for kind, fix in _FIXES.items() if isinstance(value, kind)), _OTHER_FIX)
        return f"is of the type {type(value).__name__}, which JSON does not have: {fix}"
    if isinstance(value, str):
        return None if _is_encodable(value) else _HALF_OF_A_PAIR
    if isinstance(value, float):
        return None if isfinite(value) else f"is {value}, which JSON does not have: use None"
    is_short = isinstance(value, int) and -(1 << 63) <= value < 1 << 64
    return None if is_short else "is a number of more than 64 bits: use a str"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate_count(where: str, value: object) -> int:
    """Return *value*, if it is a whole number from 0 up that JSON represents exactly.

    Raises:
        InvalidValue: It is not.
    """
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise InvalidValue(where, f"must be a whole number from 0 to {MAX_COUNT}")
    return int(value)


def _text(where: str, name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidValue(f"{where}.{name}", f"must be a str, not {type(value).__name__}")
    return truncate_text(value, MAX_TEXT_CHARACTERS)


def _group(where: str, value: str | None) -> str | None:
    text = _text(where, "group", value)
    if text is not None and (text != value or not 0 < len(text) <= MAX_GROUP_CHARACTERS):
        problem = f"must have 1 to {MAX_GROUP_CHARACTERS} characters of UTF-8"
        raise InvalidValue(f"{where}.group", problem)
    return text
