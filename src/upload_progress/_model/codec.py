"""Encodings: snapshots and lists as JSON, records as MessagePack.

A reader ignores fields that it does not know, so that an older process understands a newer one.

Sources: RFC 8259 (JSON), RFC 3339 (times), the MessagePack specification.
"""

from collections.abc import Mapping
from operator import attrgetter
from types import GenericAlias
from typing import Final, get_type_hints

import msgspec
from attrs import NOTHING, fields

from upload_progress._model.models import TransferRecord, UploadPage, UploadProgress
from upload_progress.exceptions import InvalidValue

__all__ = [
    "decode_json",
    "decode_page",
    "decode_progress",
    "encode_json",
    "pack_record",
    "unpack_record",
]

_encoder: Final = msgspec.json.Encoder()
_packer: Final = msgspec.msgpack.Encoder()
_record_fields: Final = tuple(attribute.name for attribute in fields(TransferRecord))[2:]
_hints: Final = get_type_hints(TransferRecord)
_SINGLE_REQUEST_FIELDS: Final = _record_fields.index("protocol")
"""The number of fields of most uploads in one request; the others are for several requests, and for
uploads that have replaced others, were handed over or are passed on."""
_MIN_FIELDS: Final = sum(each.default is NOTHING for each in fields(TransferRecord)) - 2
_single_request_values: Final = attrgetter(*_record_fields[:_SINGLE_REQUEST_FIELDS])
_record_values: Final = attrgetter(*_record_fields)


def _types_of(count: int) -> GenericAlias:
    return tuple.__class_getitem__(tuple(_hints[name] for name in _record_fields[:count]))


_unpackers: Final = {
    count: msgspec.msgpack.Decoder(_types_of(count))
    for count in (_SINGLE_REQUEST_FIELDS, len(_record_fields))
}


def encode_json(value: object) -> bytes:
    """Encode a value of this library, or plain JSON data, as UTF-8 JSON.

    >>> encode_json({"received": 3})
    b'{"received":3}'
    """
    return _encoder.encode(value)


def decode_json(data: bytes | str, where: str) -> Mapping[str, object]:
    """Decode a JSON object.

    Raises:
        InvalidValue: It is not a JSON object, or nested too deeply.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue(where, f"is not a JSON object: {error}") from None


def decode_progress(data: bytes | str) -> UploadProgress:
    """Decode a snapshot; unknown fields are ignored.

    Raises:
        InvalidValue: It is not a snapshot.
    """
    try:
        return msgspec.json.decode(data, type=UploadProgress)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("snapshot", str(error)) from None


def decode_page(data: bytes | str) -> UploadPage:
    """Decode a page of a list; unknown fields are ignored.

    Raises:
        InvalidValue: It is not a page.
    """
    try:
        return msgspec.json.decode(data, type=UploadPage)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("page", str(error)) from None


def pack_record(record: TransferRecord) -> bytes:
    """Encode a record compactly: the values in MessagePack, without names and without the key."""
    return _packer.encode(
        _single_request_values(record) if _is_first_plain(record) else _record_values(record)
    )


def _is_first_plain(record: TransferRecord) -> bool:
    """Return whether a record is of one request only, which has replaced no other upload."""
    is_plain = record.protocol is None and record.hand_over is None and record.stored_bytes is None
    return is_plain and not record.former_sessions


def unpack_record(owner: str, upload_id: str, data: bytes) -> TransferRecord:
    """Decode the result of ``pack_record``, also of an older or newer version of this library.

    Raises:
        msgspec.MsgspecError: It is not a packed record.
    """
    unpacker = _unpackers.get(int.from_bytes(data[1:3], "big"))
    if unpacker is not None:
        return TransferRecord(owner, upload_id, *unpacker.decode(data))
    known = msgspec.msgpack.decode(data, type=list)[: len(_record_fields)]
    if len(known) < _MIN_FIELDS:
        raise msgspec.ValidationError("a record lacks fields")
    values = msgspec.convert(known, _types_of(len(known)))
    return TransferRecord(owner, upload_id, *values)
