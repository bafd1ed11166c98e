"""Validation of what a client or an application says about an upload.

Text that UTF-8 cannot encode, or a number that a record cannot hold, would break every later
attempt of the store to write the record. So such values are truncated or refused here.
"""

from collections.abc import Mapping
from typing import Final, TypedDict

import msgspec

from upload_progress._model.codec import decode_json, encode_json
from upload_progress._model.models import Metadata, truncate_text
from upload_progress.exceptions import InvalidValue

__all__ = [
    "MAX_COUNT",
    "MAX_GROUP_CHARACTERS",
    "MAX_METADATA_DEPTH",
    "MAX_TEXT_CHARACTERS",
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
        filename=_text(f"{where}.filename", values.get("filename")),
        content_type=_text(f"{where}.content_type", values.get("content_type")),
        group=_group(f"{where}.group", values.get("group")),
        metadata=metadata,
    )


def validate_metadata(metadata: Mapping[str, object], where: str, size_bytes: int) -> Metadata:
    """Return a copy of *metadata*, if it can be encoded as JSON of at most *size_bytes*.

    Raises:
        InvalidValue: It cannot, or it is nested too deeply.
    """
    try:
        encoded = encode_json(metadata)
        msgspec.msgpack.encode(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(where, f"cannot be encoded as JSON: {error}") from None
    if _is_deeper(metadata, MAX_METADATA_DEPTH):
        raise InvalidValue(where, f"is nested more than {MAX_METADATA_DEPTH} levels deep")
    if len(encoded) > size_bytes:
        raise InvalidValue(where, f"has {len(encoded)} bytes as JSON; {size_bytes} are allowed")
    return decode_json(encoded, where)


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in value)


def validate_count(where: str, value: object) -> int:
    """Return *value*, if it is a whole number from 0 up that JSON represents exactly.

    Raises:
        InvalidValue: It is not.
    """
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise InvalidValue(where, f"must be a whole number from 0 to {MAX_COUNT}")
    return int(value)


def _text(where: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidValue(where, f"must be a str, not {type(value).__name__}")
    return truncate_text(value, MAX_TEXT_CHARACTERS)


def _group(where: str, value: str | None) -> str | None:
    text = _text(where, value)
    if text is not None and (text != value or not 0 < len(text) <= MAX_GROUP_CHARACTERS):
        raise InvalidValue(where, f"must have 1 to {MAX_GROUP_CHARACTERS} characters of UTF-8")
    return text
