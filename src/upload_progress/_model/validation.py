"""The words on the wire: JSON snapshots, CloudEvents, frames, and packed records.

A reader ignores fields that it does not know, so that an older process understands a newer
one. What is sent to many watchers is encoded once: see ``Update``.

Sources: RFC 8259 (JSON), RFC 3339 (times), CloudEvents 1.0 JSON format, the HTML standard's
event stream format (section 9.2).
"""

from collections.abc import Mapping
from typing import Final, TypedDict

from upload_progress._model.codec import (
    _encoder,
    _packer,
    decode_json,
)
from upload_progress._model.models import (
    Metadata,
    bounded_text,
)
from upload_progress.exceptions import InvalidValue

__all__ = [
    "DEEPEST_METADATA",
    "MAX_COUNT",
    "MAX_GROUP_CHARACTERS",
    "MAX_TEXT_CHARACTERS",
    "Described",
    "bounded_metadata",
    "checked_count",
    "described",
]

DEEPEST_METADATA: Final = 32


def bounded_metadata(metadata: Mapping[str, object], where: str, size_bytes: int) -> Metadata:
    """Return a copy of *metadata* that is JSON and no larger than *size_bytes*.

    Raises:
        InvalidValue: It is not, or it is.
    """
    try:
        encoded = _encoder.encode(metadata)
        _packer.encode(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(where, f"is nothing that can be kept as JSON: {error}") from None
    if _is_deeper(metadata, DEEPEST_METADATA):
        raise InvalidValue(where, f"is nested more than {DEEPEST_METADATA} levels deep")
    if len(encoded) > size_bytes:
        raise InvalidValue(where, f"has {len(encoded)} bytes as JSON; {size_bytes} are allowed")
    return decode_json(encoded, where)


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in value)


# FROM description: What is said about an upload from outside its bytes, made fit to be kept and sent.
#
# Whatever is not text that UTF-8 can say, or is no number that a record can hold, would break
# the store that has to write it, again and again. So it is mended or refused here, at the door.
#

MAX_COUNT: Final = (1 << 53) - 1
"""The largest whole number that every JSON reader understands exactly (RFC 8259, section 6)."""
MAX_GROUP_CHARACTERS: Final = 128
MAX_TEXT_CHARACTERS: Final = 255


class Described(TypedDict, total=False):
    """What an application or a request may say about an upload; None is nothing said."""

    total_bytes: int | None
    filename: str | None
    content_type: str | None
    group: str | None
    metadata: Metadata | None


def described(where: str, metadata_bytes: int, values: Described) -> Described:
    """Return *values* fit to be kept: names cut, sizes and metadata checked.

    Args:
        where: What they were said to, for the error.
        metadata_bytes: How large the metadata may be, as JSON.
        values: What was said.

    Raises:
        InvalidValue: One of them cannot be mended by cutting it.
    """
    metadata = values.get("metadata")
    if metadata is not None:
        metadata = bounded_metadata(metadata, f"{where}.metadata", metadata_bytes)
    total = values.get("total_bytes")
    return Described(
        total_bytes=None if total is None else checked_count(f"{where}.total_bytes", total),
        filename=_text(f"{where}.filename", values.get("filename")),
        content_type=_text(f"{where}.content_type", values.get("content_type")),
        group=_group(f"{where}.group", values.get("group")),
        metadata=metadata,
    )


def checked_count(where: str, value: object) -> int:
    """Return *value*, a whole number from 0 up that JSON can say exactly.

    Raises:
        InvalidValue: It is none.
    """
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise InvalidValue(where, f"must be a whole number from 0 to {MAX_COUNT}")
    return int(value)


def _text(where: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidValue(where, f"must be a str, not {type(value).__name__}")
    return bounded_text(value, MAX_TEXT_CHARACTERS)


def _group(where: str, value: str | None) -> str | None:
    text = _text(where, value)
    if text is not None and (text != value or not 0 < len(text) <= MAX_GROUP_CHARACTERS):
        raise InvalidValue(where, f"must have 1 to {MAX_GROUP_CHARACTERS} characters of UTF-8")
    return text
