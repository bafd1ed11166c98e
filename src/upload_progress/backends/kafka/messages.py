"""Format of the messages in the store's topic: one for each record, and one for each lease.

A key is a JSON array: ``["owner", "upload", "transfer"]`` of a record, ``["worker"]`` of a lease.
Different names never make the same array. A value is a version byte, followed by MessagePack.
"""

import json
from typing import Final

import msgspec

from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.models import TransferRecord, UploadState, without_store_times
from upload_progress._model.state import is_final
from upload_progress._model.version import Version
from upload_progress.exceptions import InvalidValue

__all__ = [
    "VERSION",
    "is_of_newer_release",
    "lease_key",
    "pack_lease",
    "pack_value",
    "packed_record",
    "parse_key",
    "record_key",
    "unpack_lease",
    "unpack_value",
    "unpack_version",
]

VERSION: Final = 1
_MAX_BYTES: Final = 1_048_576

_LEASE_NAMES, _RECORD_NAMES = 1, 3

_encoder: Final = msgspec.msgpack.Encoder()
_key_decoder: Final = msgspec.json.Decoder(list[str])
_float_decoder: Final = msgspec.msgpack.Decoder(float)


def record_key(owner: str, upload_id: str, transfer_id: str) -> bytes:
    """Return the key of a record."""
    return _encode_key(owner, upload_id, transfer_id)


def lease_key(worker: str) -> bytes:
    """Return the key of a worker's lease."""
    return _encode_key(worker)


def _encode_key(*names: str) -> bytes:
    # A name may contain a lone surrogate, which JSON can escape and UTF-8 cannot encode.
    return json.dumps(names, separators=(",", ":")).encode("ascii")


def parse_key(key: bytes | None) -> list[str]:
    """Return the names in *key*: three of a record, one of a lease.

    Raises:
        InvalidValue: The key has another format.
    """
    try:
        names = _key_decoder.decode(key or b"")
    except (msgspec.DecodeError, UnicodeError):
        names = _parse_any_key(key or b"")
    if len(names) not in (_LEASE_NAMES, _RECORD_NAMES):
        raise InvalidValue("key", f"must have 1 or 3 names; it has {len(names)}")
    return names


def _parse_any_key(key: bytes) -> list[str]:
    """Return the names in a key that may have lone surrogates, which msgspec does not decode."""
    try:
        names = json.loads(key.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise InvalidValue("key", str(error)) from None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise InvalidValue("key", "must be an array of strings")
    return names


def is_of_newer_release(value: bytes) -> bool:
    """Return whether *value* has a version that only a newer release can read."""
    return value[:1] > bytes([VERSION])


def pack_value(record: TransferRecord) -> bytes:
    """Encode *record* without its key and without store times."""
    return bytes([VERSION]) + pack_record(without_store_times(record))


def packed_record(value: bytes) -> bytes:
    """Return the part of the result of ``pack_value`` that ``pack_record`` has made."""
    return value[1:]


def unpack_value(owner: str, upload_id: str, value: bytes) -> TransferRecord:
    """Decode the result of ``pack_value``.

    Raises:
        InvalidValue: It is not a record.
    """
    _check(value)
    try:
        return unpack_record(owner, upload_id, value[1:])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("record", str(error)) from None


class _RecordHead(msgspec.Struct, array_like=True):
    """The first values of a packed record."""

    transfer_id: str
    attempt: int
    sequence: int
    state: UploadState


def unpack_version(value: bytes) -> Version:
    """Decode only the version of the result of ``pack_value``.

    Raises:
        InvalidValue: It is not a record.
    """
    _check(value)
    try:
        head = _head_decoder.decode(value[1:])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("record", str(error)) from None
    return Version(head.attempt, is_final(head.state), head.sequence)


_head_decoder: Final = msgspec.msgpack.Decoder(_RecordHead)


def pack_lease(seconds: float) -> bytes:
    """Encode the duration of a lease, which begins when the message is read."""
    return bytes([VERSION]) + _encoder.encode(float(seconds))


def unpack_lease(value: bytes) -> float:
    """Decode the result of ``pack_lease``: seconds.

    Raises:
        InvalidValue: It is not a lease.
    """
    _check(value)
    try:
        return _float_decoder.decode(value[1:])
    except msgspec.DecodeError as error:
        raise InvalidValue("lease", str(error)) from None


def _check(value: bytes) -> None:
    if value[:1] != bytes([VERSION]):
        raise InvalidValue("message", f"must have version {VERSION}")
    if len(value) > _MAX_BYTES:
        raise InvalidValue("message", f"has {len(value)} bytes; at most {_MAX_BYTES} are read")
