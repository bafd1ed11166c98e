"""What lies in the topic: a message for each record, and one for each worker's lease.

A key is a JSON array: ``["owner", "upload", "transfer"]`` of a record, ``["worker"]`` of a lease.
No two names make the same array. A value begins with the version of what follows, in MessagePack.
"""

import json
from typing import Final

import msgspec
from attrs import evolve

from upload_progress._model.codec import pack_record, unpack_record
from upload_progress._model.models import TransferRecord
from upload_progress.exceptions import InvalidValue

__all__ = [
    "VERSION",
    "is_later",
    "lease_key",
    "name_of",
    "pack_lease",
    "pack_value",
    "record_key",
    "unpack_lease",
    "unpack_value",
]

VERSION: Final = 1
_MAX_BYTES: Final = 1_048_576

_LEASE, _RECORD = 1, 3

_packer: Final = msgspec.msgpack.Encoder()
_seconds: Final = msgspec.msgpack.Decoder(float)


def record_key(owner: str, upload_id: str, transfer_id: str) -> bytes:
    """Return the key of a record."""
    return _key_of(owner, upload_id, transfer_id)


def lease_key(worker: str) -> bytes:
    """Return the key of a worker's lease."""
    return _key_of(worker)


def _key_of(*names: str) -> bytes:
    # A name may have half of a surrogate pair: JSON has an escape for it, UTF-8 has nothing.
    return json.dumps(names, separators=(",", ":")).encode("ascii")


def name_of(key: bytes | None) -> list[str]:
    """Return what *key* was made of: three strings for a record, one for a lease.

    Raises:
        InvalidValue: It is no key of ours.
    """
    try:
        name = json.loads(key or b"")
    except (ValueError, RecursionError) as error:
        raise InvalidValue("key", str(error)) from None
    if not isinstance(name, list) or not all(isinstance(each, str) for each in name):
        raise InvalidValue("key", "is no array of strings")
    if len(name) not in (_LEASE, _RECORD):
        raise InvalidValue("key", f"has {len(name)} parts")
    return name


def is_later(value: bytes) -> bool:
    """Tell whether *value* was written by a later version of this library."""
    return value[:1] > bytes([VERSION])


def pack_value(record: TransferRecord) -> bytes:
    """Encode *record* without its key, and without the times that a store adds."""
    return bytes([VERSION]) + pack_record(evolve(record, lease_until=None, expires_at=None))


def unpack_value(owner: str, upload_id: str, value: bytes) -> TransferRecord:
    """Decode what ``pack_value`` made.

    Raises:
        InvalidValue: It is no record.
    """
    _check(value)
    try:
        return unpack_record(owner, upload_id, value[1:])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("record", str(error)) from None


def pack_lease(seconds: float) -> bytes:
    """Encode for how long a worker is alive from now on."""
    return bytes([VERSION]) + _packer.encode(float(seconds))


def unpack_lease(value: bytes) -> float:
    """Decode what ``pack_lease`` made.

    Raises:
        InvalidValue: It is no lease.
    """
    _check(value)
    try:
        return _seconds.decode(value[1:])
    except msgspec.DecodeError as error:
        raise InvalidValue("lease", str(error)) from None


def _check(value: bytes) -> None:
    if value[:1] != bytes([VERSION]):
        raise InvalidValue("message", "is of no version that was ever written")
    if len(value) > _MAX_BYTES:
        raise InvalidValue("message", f"has {len(value)} bytes; {_MAX_BYTES} are read")
